"""What stays on disk: for now the complete output of every cell, one text file per rank. Pure; used by the
coordinator.
"""
