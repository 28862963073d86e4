"""Other libraries' calls that feed `qd.log` and `qd.progress`. In the worker."""
