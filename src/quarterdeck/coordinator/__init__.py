"""The coordinator: one process per kernel that owns its sessions, the runs in groups of their own, and
the stop ladder. No torch, no IPython.
"""
