"""A run as the live view shows it, read from the run store: the kernel's half of the view.

messages      all that travels between this half and the browser's, the only truth about it
feed          a run as these messages, as it grows
curve_stream  its metrics; `output_rows` its text; `run_files` and `snapshot` all that is small, in one
              message
progress      the loops of all ranks as one; `faults` what went wrong, in words
requests      what a view asks for: logs, decks, other runs
static_html   the same as plain HTML, for saved notebooks; `runs_html` a table of runs
"""
