"""Puts a fault into a program that is loaded already: its functions get the code of the faulty source."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

from tests.mutants.plant import Mutant

_Place = tuple[str, str, int]  # file, qualified name, first line


class CannotSwap(Exception):
    """The faulty function takes other variables from around it than the one that is loaded."""


class Functions:
    """Every function of the program that is loaded now."""

    def __init__(self, root: Path) -> None:
        self._found: dict[_Place, list[FunctionType]] = {}
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(str(root)):
                code = thing.__code__
                place = code.co_filename, code.co_qualname, code.co_firstlineno
                self._found.setdefault(place, []).append(thing)

    def plant(self, mutant: Mutant) -> None:
        """From now on this process runs the fault. Raises CannotSwap."""
        path = str(mutant.path.absolute())
        text = mutant.path.read_text("utf-8")
        module = compile(mutant.source(text), path, "exec")
        _load(path, module)
        faulty = dict(_codes(module))
        for name, code in _codes(compile(text, path, "exec")):
            for function in self._found.get((path, code.co_qualname, code.co_firstlineno), ()):
                try:
                    function.__code__ = faulty[name]
                except (KeyError, ValueError) as error:
                    raise CannotSwap(mutant.name) from error


def _load(path: str, module: CodeType) -> None:
    """Whoever loads the file from now on gets this: a miniport named in a configuration is loaded by each test."""
    load = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return module if self.path == path else load(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def _codes(module: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """Each function's code by qualified name, with a number for those that share one (a property's three, say)."""
    met: Counter[str] = Counter()
    waiting = [module]
    while waiting:
        code = waiting.pop()
        met[code.co_qualname] += 1
        yield (code.co_qualname, met[code.co_qualname]), code
        waiting.extend(inner for inner in reversed(code.co_consts) if isinstance(inner, CodeType))
