"""Metrics: `qd.log` in every process that runs user code, and what readers make of it: columns, tables,
figures. numpy, pandas and matplotlib are loaded when something is read or drawn, not before.

    log      writes: one append per call to the rank's file in the run's folder
    format   the bytes of these files
    reader   a file as columns, read as it grows; its last values from its end
    history  a run and those that it continues: their files, and which `records` count
    series   `run.metrics`: a history, by name and rank
    thinned  a history as the curves of a live view; `buckets` has the arithmetic
    plot     the figure of a run; `figure` has what needs matplotlib, `thinning` the arithmetic
"""
