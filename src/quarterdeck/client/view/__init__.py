"""What one running cell shows in the notebook: merged lines and displays of all ranks, and how it failed."""

from quarterdeck.client.view.cell import CellView
from quarterdeck.client.view.failure import failure
from quarterdeck.client.view.sink import Sink

__all__ = ["CellView", "Sink", "failure"]
