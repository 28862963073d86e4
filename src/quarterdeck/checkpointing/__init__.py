"""Checkpoints: saving, listing, loading. In every process; users see `quarterdeck.saving` of it."""
