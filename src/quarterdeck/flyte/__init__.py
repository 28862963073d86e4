"""How a distributed function is launched, in the fields of Flyte's `Elastic` and `PyTorch`.

    Elastic   n processes on this node; `max_restarts`, `start_method`
    PyTorch   a Kubernetes job's master and workers, run as so many processes on this node
    Launch    what the runner needs of either

Each is checked when it is made and cannot change afterwards: what is wrong shows in the line that wrote it,
not in a worker minutes later. Pure: importable in every process. Nothing is imported here: `%load_ext` needs
one name of it.
"""
