"""Metrics: `qd.log` in every process that runs user code, and what readers make of it: columns, tables,
figures. Pure but for `plot` (matplotlib) and `to_pandas`, which load what they need when they are called.

    log      writes: one append per call to the rank's file in the run's folder
    format   the bytes of these files
    reader   a file as columns, read as it grows; its last values from its end
    series   a run: all its files, ranks and attempts together
    plot     the figure of a run; `figure` has what needs matplotlib, `thinning` the arithmetic
"""
