"""What tests share: a notebook in a real kernel, JupyterLab in a real browser, run folders, a receiver."""
