"""What a live view of a run shows, read from the run store: the kernel's half of the run view.

    messages   all that travels between this half and the browser's, the only truth about it
    feed       a run as these messages, as it grows
    curves     its metrics; lines its text; facts and state all that is small, in one message
    bars       the loops of all ranks as one; faults what went wrong, in words
    answers    what a view asks for: logs, decks, other runs

The browser's half lies in `labextension/`; `widgets` connects the two.
"""
