"""Which global names a cell needs from outside, and which it binds. Called by the kernel before each worker
cell."""

from __future__ import annotations

import ast

from quarterdeck.transfer.evaluation import CellVisitor
from quarterdeck.transfer.flow import CellNames
from quarterdeck.transfer.references import referenced_globals, transitive

__all__ = ["CellNames", "analyse", "referenced_globals", "transitive"]


def analyse(code: str) -> CellNames:
    """Names of a cell whose magics IPython has already turned into calls. Raises SyntaxError as `compile`
    would."""
    visitor = CellVisitor()
    visitor.visit(ast.parse(code))
    return visitor.result()
