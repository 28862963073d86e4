"""The checkpoint browser's half in the kernel: what there is, read from the folders that have it, and what
can be done with it.
"""
