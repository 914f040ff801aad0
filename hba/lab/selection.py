"""Whether an expression (pytest's -k) can select any test of a suite: asked before a guest is booted for nothing.

The suite's modules are read, not run: they are made for the guest. Where a test's parameters are known only there, an
expression that names none of what is known is given the benefit of the doubt.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(r"\s*(?:(?P<paren>[()])|(?P<word>(?::?[\w.\-\[\]/+\\])+))")
Answer = bool | None  # None: it depends on what is known only in the guest


@dataclass(frozen=True)
class Test:
    """One test function."""

    name: str
    keywords: frozenset[str]  # lower case: what an expression's words may be part of
    open: bool  # its parameters are known only in the guest

    def matches(self, word: str) -> Answer:
        if any(word.lower() in keyword for keyword in self.keywords):
            return True
        return None if self.open else False


class BadExpression(ValueError):
    """It cannot be understood; the text says why."""


def selects(folder: Path, expression: str) -> bool:
    """Whether `expression` may select a test below `folder`. Raises `BadExpression`."""
    tests = list(_tests(folder))
    parsed = _Parser(expression).parse()
    return any(_evaluate(parsed, test) is not False for test in tests)


def known(folder: Path) -> list[str]:
    """The names of the tests below `folder`."""
    return [test.name for test in _tests(folder)]


def suggestion(folder: Path, expression: str) -> str:
    """A test that is meant perhaps, or an empty text."""
    names = known(folder)
    close = difflib.get_close_matches(expression, [*names, *(name.removeprefix("test_") for name in names)], 1)
    return close[0] if close else ""


def _tests(folder: Path) -> Iterator[Test]:
    conftest = folder / "conftest.py"
    generates = conftest.is_file() and "def pytest_generate_tests(" in conftest.read_text("utf-8")
    for module in sorted(folder.glob("test_*.py")):
        for node in ast.parse(module.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                identifiers, is_open = _parameters(node)
                keywords = {folder.name, module.name, node.name, *identifiers}
                yield Test(node.name, frozenset(map(str.lower, keywords)), generates or is_open)


def _parameters(test: ast.FunctionDef) -> tuple[set[str], bool]:
    """What the decorators add to a test's names, and whether that is not all."""
    names: set[str] = set()
    is_open = False
    lists = 0
    for decorator in test.decorator_list:
        text = ast.unparse(decorator)
        if not text.startswith("pytest.mark."):
            is_open = True
        elif not isinstance(decorator, ast.Call) or not text.startswith("pytest.mark.parametrize("):
            names.add(text.removeprefix("pytest.mark.").partition("(")[0])
        else:
            given = next((word.value for word in decorator.keywords if word.arg == "ids"), decorator.args[1])
            values = _literal(given)
            lists += 1
            names.update(f"{test.name}[{value}]" for value in values or ())
            is_open = is_open or values is None or lists > 1  # of several, the names are combined
    return names, is_open


def _literal(node: ast.expr) -> list[str] | None:
    """The identifiers pytest makes of a list of plain values; None for any other."""
    try:
        values = ast.literal_eval(node)
    except ValueError:
        return None
    if not isinstance(values, list | tuple) or not all(isinstance(value, str | int | float) for value in values):
        return None
    return [str(value) for value in values]


_Node = tuple[str, "_Node | str", "_Node | str"]


class _Parser:
    """expression: and_test ("or" and_test)*; and_test: not_test ("and" not_test)*; not_test: "not" | "(" | word"""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._at = 0

    def parse(self) -> _Node:
        found = self._or()
        if self._at < len(self._tokens):
            raise BadExpression(f'"{self._tokens[self._at]}" is not expected there')
        return found

    @staticmethod
    def _split(text: str) -> Iterator[str]:
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise BadExpression(f'"{text[at:].strip()[:20]}" cannot be understood')
            yield match[0].strip()
            at = match.end()

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _or(self) -> _Node:
        left = self._and()
        while self._next() == "or":
            self._at += 1
            left = ("or", left, self._and())
        return left

    def _and(self) -> _Node:
        left = self._not()
        while self._next() == "and":
            self._at += 1
            left = ("and", left, self._not())
        return left

    def _not(self) -> _Node:
        word = self._next()
        self._at += 1
        if word == "not":
            return ("not", self._not(), "")
        if word == "(":
            inner = self._or()
            if self._next() != ")":
                raise BadExpression('")" is missing')
            self._at += 1
            return inner
        if word in ("", ")", "and", "or"):
            raise BadExpression("a name is missing" + (f' before "{word}"' if word else " at its end"))
        return ("word", word, "")


def _evaluate(node: _Node, test: Test) -> Answer:
    kind, left, right = node
    if kind == "word":
        assert isinstance(left, str)
        return test.matches(left)
    assert not isinstance(left, str)
    first = _evaluate(left, test)
    if kind == "not":
        return None if first is None else not first
    assert not isinstance(right, str)
    answers = (first, _evaluate(right, test))
    decisive = kind == "or"
    if decisive in answers:
        return decisive
    return None if None in answers else not decisive
