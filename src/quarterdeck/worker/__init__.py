"""The worker: the only place that runs user code, and the zygote that forks it. Layers above talk to it by
message.
"""
