"""The notebook's own process: magics, sessions, functions, runs; a thin client of the coordinator. It never
imports torch and never forks; IPython is imported in `magics` only.
"""
