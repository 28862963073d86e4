"""Run the quickstart notebook in a real kernel, and keep what it showed (`make demo`)."""

import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "01_quickstart.ipynb"
OUT = ROOT / "build" / "demo"
CELL_TIMEOUT_S = 300
ACCURACY = re.compile(r"^test accuracy: \d+\.\d %$", re.MULTILINE)
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
"""nbconvert's own page, without the scripts that it would load from elsewhere: nothing here needs them."""


def execute(notebook: NotebookNode) -> str:
    """Run all cells; what went wrong, or an empty text."""
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        timeout=CELL_TIMEOUT_S,
        store_widget_state=False,
        resources={"metadata": {"path": str(OUT)}},
    )
    os.environ.setdefault(
        "JUPYTER_PREFER_ENV_PATH", "1"
    )  # this interpreter's kernel, not a registered namesake
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        return str(error)
    return ""


def keep(notebook: NotebookNode) -> tuple[Path, Path]:
    executed, page = OUT / NOTEBOOK.name, OUT / f"{NOTEBOOK.stem}.html"
    nbformat.write(notebook, executed)
    html, _ = HTMLExporter(raw_template=PAGE).from_notebook_node(notebook)
    page.write_text(html, encoding="utf-8")
    return executed, page


def accuracy_line(notebook: NotebookNode) -> str | None:
    printed = (
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    lines = ACCURACY.findall("\n".join(printed))
    return lines[-1] if lines else None


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"running {NOTEBOOK.relative_to(ROOT)} on 2 workers ...", flush=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    problem = execute(notebook)
    executed, page = keep(notebook)
    line = accuracy_line(notebook)
    if problem or line is None:
        print(problem or "the notebook ran, but printed no `test accuracy` line", file=sys.stderr)
        print(f"what it showed: {os.path.relpath(page)}", file=sys.stderr)
        return 1
    print(line)
    print(f"executed notebook:  {os.path.relpath(executed)}")
    print(f"as a web page:      {os.path.relpath(page)}")
    print("open in JupyterLab: make lab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
