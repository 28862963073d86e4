"""What all ranks write, as rows: the one way from text to lines, for a cell's output and for the live view.

transcript  takes what ranks write, and gives rows to a layout
screen      one stream of one rank as a terminal shows it
rows        the merge: equal lines of several ranks are one row
"""
