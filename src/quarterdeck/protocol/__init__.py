"""What the processes say to each other: typed messages and the channel that carries them. Pure: no torch, no
IPython.
"""
