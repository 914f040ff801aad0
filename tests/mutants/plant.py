"""The faults that can be planted in a source file: one small change each, as somebody in a hurry would make it."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# What only people read: a fault in it is no fault of the program.
_TOLD = frozenset(("__repr__", "__str__", "describe", "snapshot", "decode", "document"))
_TELLING = frozenset(("log", "logging", "print"))


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` at `start` (characters in the file) becomes `new`."""

    path: Path
    function: str
    line: int
    start: int
    old: str
    new: str
    kind: str
    repeat: int = 1  # of faults that read the same in one function

    @property
    def name(self) -> str:
        """Stays the same when lines move: file, function, kind, and what becomes of what."""
        again = f" ({self.repeat})" if self.repeat > 1 else ""
        return f"{self.path} {self.function} {self.kind}: {_short(self.old)} -> {_short(self.new)}{again}"

    def source(self, text: str) -> str:
        """The file with the fault."""
        assert text[self.start : self.start + len(self.old)] == self.old
        return text[: self.start] + self.new + text[self.start + len(self.old) :]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:67] + "..."


def plant(path: Path, text: str) -> list[Mutant]:
    """Every fault for one file."""
    planter = _Planter(path, text)
    planter.visit(ast.parse(text))
    found: Counter[str] = Counter()
    result = []
    for mutant in planter.mutants:
        found[mutant.name] += 1
        result.append(replace(mutant, repeat=found[mutant.name]))
    return result


class _Planter(ast.NodeVisitor):
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.mutants: list[Mutant] = []
        self._where: list[str] = []
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    # -- where we are -------------------------------------------------------------------------------------------------

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._where.append(node.name)
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.ClassDef):
                self.visit(item)
        self._where.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in _TOLD:
            return
        self._where.append(node.name)
        for item in node.body:
            self.visit(item)
        self._where.pop()

    def visit_Module(self, node: ast.Module) -> None:
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.ClassDef):
                self.visit(item)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._drop(node)
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """For the type checker, or of what cannot be."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass", "dropped")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Text."""

    # -- statements ---------------------------------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in _TELLING:
                return
        if not isinstance(node.value, ast.Yield | ast.YieldFrom):
            self._drop(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._drop(node)
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._drop(node)
        other = _OPERATORS.get(type(node.op))
        if other is not None:
            changed = copy.deepcopy(node)
            changed.op = other()
            self._replace(node, ast.unparse(changed), "operator")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._drop(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._drop(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._drop(node)

    def visit_If(self, node: ast.If) -> None:
        self._replace(node.test, f"not ({ast.unparse(node.test)})", "condition")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._replace(node.test, f"(not ({ast.unparse(node.test)}))", "condition")
        self.generic_visit(node)

    # -- expressions --------------------------------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = _COMPARE[type(operator)]()
            self._replace(node, f"({ast.unparse(changed)})", "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, f"({ast.unparse(changed)})", "and/or")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.Invert):
            self._replace(node, f"({ast.unparse(node.operand)})", "not")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = _OPERATORS.get(type(node.op))
        if other is not None:
            changed = copy.deepcopy(node)
            changed.op = other()
            self._replace(node, f"({ast.unparse(changed)})", "operator")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value), "constant")
        elif isinstance(value, int):
            self._replace(node, str(value + 1), "off by one")

    # -- noting -------------------------------------------------------------------------------------------------------

    def _drop(self, node: ast.stmt) -> None:
        self._replace(node, "pass", "dropped")

    def _replace(self, node: ast.stmt | ast.expr, new: str, kind: str) -> None:
        start, end = self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)
        old = self.text[start:end]
        self.mutants.append(Mutant(self.path, ".".join(self._where), node.lineno, start, old, new, kind))

    def _offset(self, line: int | None, column: int | None) -> int:
        assert line is not None and column is not None
        begin = self._lines[line - 1]
        row = self.text[begin : self._lines[line]] if line < len(self._lines) else self.text[begin:]
        return begin + len(row.encode()[:column].decode())


def everything(paths: Iterable[Path]) -> list[Mutant]:
    """The faults of all files."""
    return [mutant for path in sorted(paths) for mutant in plant(path, path.read_text("utf-8"))]
