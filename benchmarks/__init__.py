"""Measures quarterdeck in real kernels; see README.md. `benchmarks.peers` measures other tools."""
