"""What one running cell shows in the notebook: merged lines and displays of all ranks, and how it failed."""
