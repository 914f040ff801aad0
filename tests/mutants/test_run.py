"""Faults are planted in what is loaded, the tests that run them are found, and what nobody notices is told."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.mutants.plant import plant
from tests.mutants.swap import CannotSwap, Functions

ROOT = Path(__file__).parents[2]
SOURCE = """
import functools


def twice(function):
    @functools.wraps(function)
    def called(*numbers):
        return function(*numbers) + function(*numbers)

    return called


class Box:
    def __init__(self, side: int) -> None:
        self._side = side

    @property
    def side(self) -> int:
        return self._side + 0

    @side.setter
    def side(self, side: int) -> None:
        self._side = side

    @twice
    def area(self) -> int:
        return self.side * self.side


def least(limit: int) -> int:
    if limit < 3:
        return 3
    return limit


def offsets(first: int):
    step = 4
    return [number + first for number in range(0, 8, step)]


TABLE = offsets(1)
"""


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Any, Path, Functions]:
    path = tmp_path / "small.py"
    path.write_text(SOURCE, "utf-8")
    return _load(path), path, Functions(tmp_path)


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("small", path)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _planted(functions: Functions, path: Path, where: str, kind: str) -> None:
    [mutant] = [mutant for mutant in plant(path, SOURCE) if (mutant.function, mutant.kind) == (where, kind)]
    functions.plant(mutant)


def test_methods_properties_and_what_is_decorated_get_the_fault(loaded: tuple[Any, Path, Functions]) -> None:
    module, path, functions = loaded
    box = module.Box(5)
    assert box.area() == 50
    _planted(functions, path, "Box.area", "operator")
    assert box.area() == 2
    _planted(functions, path, "Box.side", "off by one")
    assert (box.side, box.area()) == (6, 72)


def test_what_a_decorator_made_gets_the_fault(loaded: tuple[Any, Path, Functions]) -> None:
    module, path, functions = loaded
    _planted(functions, path, "twice.called", "operator")
    assert module.Box(5).area() == 0


def test_a_comprehension_gets_the_fault(loaded: tuple[Any, Path, Functions]) -> None:
    module, path, functions = loaded
    _planted(functions, path, "offsets", "operator")
    assert module.offsets(1) == [-1, 3]
    assert module.TABLE == [1, 5]  # what was made at import is as it was


def test_what_is_loaded_later_gets_the_fault(
    loaded: tuple[Any, Path, Functions], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, functions = loaded
    monkeypatch.setattr(SourceFileLoader, "get_code", SourceFileLoader.get_code)  # put back afterwards
    _planted(functions, path, "offsets", "operator")
    assert _load(path).TABLE == [-1, 3]


def test_one_that_takes_other_variables_is_told(tmp_path: Path) -> None:
    source = "def outer(a):\n    def inner():\n        b.append(a)\n    b = []\n    return inner\nINNER = outer(1)\n"
    path = tmp_path / "closed.py"
    path.write_text(source, "utf-8")
    names: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), names)
    [dropped] = [mutant for mutant in plant(path, source) if mutant.kind == "dropped"]
    with pytest.raises(CannotSwap):
        Functions(tmp_path).plant(dropped)


TWICE = "function(*numbers) + function(*numbers) -> (function(*numbers) - function(*numbers))"
CHECKS = """
import small


def test_area():
    assert small.Box(3).area() == 18


def test_least():
    assert small.least(2) == 3
    assert small.least(7) == 7


def test_table():
    assert small.TABLE == [1, 5]
"""


def test_what_nobody_notices_is_told(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SOURCE, "utf-8")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_small.py").write_text(CHECKS, "utf-8")
    results = tmp_path / "results"
    command = [sys.executable, "-m", "tests.mutants", "small.py", "--tests", "checks", "--results", str(results)]
    paths = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 1, first.stdout + first.stderr
    told = dict(line.split(" ", 1)[::-1] for line in results.read_text("utf-8").splitlines())
    assert told["small.py Box.area operator: self.side * self.side -> (self.side // self.side)"] == "killed"
    assert told["small.py twice.called operator: " + TWICE] == "killed"
    assert told["small.py least comparison: limit < 3 -> (limit <= 3)"] == "survived"
    assert told["small.py offsets off by one: 4 -> 5"] == "killed"  # at import only
    assert told["small.py Box.__init__ dropped: self._side = side -> pass"] == "killed"
    assert told["small.py Box.side dropped: self._side = side -> pass"] == "unreached"
    assert "survived   small.py least comparison: limit < 3 -> (limit <= 3)  [line" in first.stdout
    assert "unexplained" in first.stdout.splitlines()[-1]

    # Those that were noticed are not planted again, and counted all the same.
    second = run()
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    again = results.read_text("utf-8").splitlines()[len(told) :]
    assert again and not [line for line in again if line.startswith("killed")]
