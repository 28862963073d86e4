"""Names that statements bind by themselves, without regard to order. Used by `transfer.names` for function
bodies."""

from __future__ import annotations

import ast

_BINDING = {
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
    ast.MatchMapping,
}


class LocalNames(ast.NodeVisitor):
    """Collects the names that statements bind in their own scope, without entering nested ones."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.declared: set[str] = set()
        self.outer: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.stored.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self.declared.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.outer.update(node.names)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for part in (node.iter, *node.ifs):
            self.visit(part)

    def generic_visit(self, node: ast.AST) -> None:
        self.stored.update(bound_by(node))
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                self.visit(decorator)
            return
        super().generic_visit(node)


def bound_by(node: ast.AST) -> list[str]:
    """Names that a node binds by a plain string field and not by a Name node."""
    if type(node) not in _BINDING:
        return []
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(a.asname or a.name.partition(".")[0]) for a in names if a.name != "*"]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
    return []
