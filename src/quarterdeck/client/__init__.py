"""The kernel's side: a thin client of the coordinator. Never imports torch, never forks, no IPython (that is
`magics`).
"""
