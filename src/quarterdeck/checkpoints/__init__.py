"""Checkpoints: what a run saves and finds again. Pure: usable from every process."""
