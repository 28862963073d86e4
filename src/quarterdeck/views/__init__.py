"""The kernel's half of what a notebook's page shows.

    cell/         what stands under a running cell: merged output of the ranks, how it failed, a picture
    run/          a run as messages for the live view, read from the run store as it grows
    checkpoints/  the same for the checkpoint browser
    sink          where outputs go
    widget        the line to the page; it and the `widget` of `run` and `checkpoints` alone know anywidget,
                  and are imported when the first view is shown, as that takes a moment

The browser's half lies in `labextension/`.
"""
