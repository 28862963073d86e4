"""A node: the zygotes, the worker processes, where ranks run, how they ended, what they use."""
