"""The notebook's side: magics, display, completion. Loaded by `%load_ext quarterdeck`; IPython is imported
here only.
"""
