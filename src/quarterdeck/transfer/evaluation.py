"""Walks a cell in the order in which Python evaluates it, and tells `transfer.flow` what is read
and bound.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import cast

from quarterdeck.transfer import magics
from quarterdeck.transfer.flow import NameFlow, Scope
from quarterdeck.transfer.scopes import LocalNames, bound_by

_RANKS = {"rank", "local_rank"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


class CellVisitor(NameFlow):
    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            if self._scopes[-1].kind != "comprehension" or node.id not in self._scopes[-1].local:
                self._bind(node.id)
            return
        self._read(node.id)
        if isinstance(node.ctx, ast.Del):
            self._unbind(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._paths.add(".".join([inner.id, *reversed(parts)]))
        self.visit(inner)

    def generic_visit(self, node: ast.AST) -> None:
        for name in node._fields:
            child = getattr(node, name, None)
            if isinstance(child, list):
                for item in child:
                    if isinstance(item, ast.AST):
                        self.visit(item)
            elif isinstance(child, ast.AST) and not isinstance(child, ast.expr_context | ast.operator):
                self.visit(child)
        for bound in bound_by(node):
            self._bind(bound)

    # ---- statements whose evaluation order is not that of their fields

    def _all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._all([node.value, *node.targets])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._read(node.target.id)
        self._all([node.value, node.target])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if self._scopes[-1].kind != "function":
            self.visit(node.annotation)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self._all([node.value, node.target])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._all([node.value, node.target])

    def visit_Global(self, node: ast.Global) -> None:
        if self._scopes[-1].kind == "class":
            self._scopes[-1].declared.update(node.names)

    # ---- branches: what only one of them binds is not certain

    def _maybe(self, nodes: Iterable[ast.AST | None], guarded: bool = False) -> None:
        self._alternatives([lambda: self._all(nodes), lambda: None], guarded)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        branches = [lambda: self._all(node.body), lambda: self._all(node.orelse)]
        self._alternatives(branches, _asks_rank(node.test))

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self._alternatives(
            [lambda: self.visit(node.body), lambda: self.visit(node.orelse)], _asks_rank(node.test)
        )

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._maybe(node.values[1:], _asks_rank(node.values[0]))

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            self._maybe([case], _asks_rank(node.subject))

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        self._maybe(node.body)
        self._maybe(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._maybe(node.body)
        self._maybe(node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        self._maybe([*node.body, *node.orelse])
        for handler in node.handlers:
            self._maybe([handler])
        self._all(node.finalbody)

    def visit_TryStar(self, node: ast.TryStar) -> None:
        self.visit_Try(cast(ast.Try, node))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._all([node.type])
        if node.name:
            self._bind(node.name)
        self._all(node.body)
        if node.name:
            self._unbind(node.name)

    # ---- nested scopes

    def _enter(self, scope: Scope, nodes: Iterable[ast.AST | None]) -> None:
        self._scopes.append(scope)
        self._all(nodes)
        self._scopes.pop()

    def _function(self, node: _Function) -> None:
        args = node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        self._all([*args.defaults, *args.kw_defaults])
        self._all(arg.annotation for arg in every if arg is not None)
        self._all([getattr(node, "returns", None)])
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
        names = LocalNames()
        for part in body:
            names.visit(part)
        local = (names.stored - names.declared - names.outer) | {arg.arg for arg in every if arg is not None}
        self._enter(Scope("function", local, names.declared), body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list)
        self._with_type_params(node, lambda: self._function(node))
        self._bind(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        def inside() -> None:
            self._all([*node.bases, *node.keywords])
            self._enter(Scope("class", {"__module__", "__qualname__"}), node.body)

        self._all(node.decorator_list)
        self._with_type_params(node, inside)
        self._bind(node.name)

    def _with_type_params(self, node: ast.AST, inside: Callable[[], None]) -> None:
        params: list[ast.AST] = getattr(node, "type_params", [])
        if not params:
            inside()
            return
        self._scopes.append(Scope("comprehension", {str(getattr(param, "name", "")) for param in params}))
        self._all(getattr(param, "bound", None) for param in params)
        inside()
        self._scopes.pop()

    def _comprehend(self, node: _Comprehension) -> None:
        self.visit(node.generators[0].iter)
        targets = LocalNames()
        for generator in node.generators:
            targets.visit(generator.target)
        element = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner = [part for index, gen in enumerate(node.generators) for part in _parts(gen, index)]
        self._enter(Scope("comprehension", targets.stored), [*inner, *element])

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehend

    # ---- magics

    def visit_Call(self, node: ast.Call) -> None:
        call = magics.recognise(node)
        if call is None:
            self.generic_visit(node)
            return
        self._all(call.expressions())
        statements = [statement for module in call.python() for statement in module.body]
        if call.keeps_names:
            self._all(statements)
        else:
            self._maybe(statements)
        for name in call.binds():
            self._bind(name)


def _parts(generator: ast.comprehension, index: int) -> list[ast.expr]:
    return [*generator.ifs] if index == 0 else [generator.iter, *generator.ifs]


def _asks_rank(test: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id in _RANKS for node in ast.walk(test))
