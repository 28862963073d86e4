"""What a notebook's page draws by itself: the live view of a run. In the kernel; the only place that knows
anywidget. Imported when the first view is shown, as that takes a moment.
"""
