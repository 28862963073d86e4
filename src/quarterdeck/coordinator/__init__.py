"""The coordinator: one process per kernel that owns the session, its workers and the stop ladder. No torch,
no IPython.
"""
