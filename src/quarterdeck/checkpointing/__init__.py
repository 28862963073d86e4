"""Checkpoints: saving, listing, loading. In every process; users see `save` and `load` of it."""
