"""Which tests run which lines, and how long each takes: from one run of all of them, without a fault."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coverage import Coverage

    from tests.mutants.plant import Mutant


class Reach:
    """The tests that can notice a fault: those that run its lines, the quickest first."""

    def __init__(self, tests: Sequence[str], sources: Sequence[Path], folder: Path) -> None:
        self.tests = tests
        self._sources = sources
        self._data = folder / "coverage"
        self._times = folder / "times.json"
        self._found: dict[tuple[str, int], set[str]] = {}
        self._taken: dict[str, float] = {}

    def measure(self) -> None:
        """In a child: what coverage watches is slower ever after."""
        child = os.fork()
        if not child:
            os._exit(self._measure())
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the tests fail without any fault; mend them first")
        self._load()

    def _measure(self) -> int:
        import coverage

        include = [str(source / "*" if source.is_dir() else source) for source in self._sources]
        measured = coverage.Coverage(data_file=str(self._data), config_file=False, include=include)
        told = _Told(measured)
        measured.start()
        code = pytest.main([*OPTIONS, "-q", "-x", *self.tests], plugins=[told])
        measured.stop()
        measured.save()
        self._times.write_text(json.dumps(told.times), "utf-8")
        return int(code)

    def _load(self) -> None:
        import coverage

        data = coverage.CoverageData(basename=str(self._data))
        data.read()
        for file in data.measured_files():
            path = str(Path(file).relative_to(Path.cwd()))
            for line, tests in data.contexts_by_lineno(file).items():
                self._found[path, line] = set(tests)
        self._taken = json.loads(self._times.read_text("utf-8"))

    def of(self, mutant: Mutant) -> tuple[list[str], bool]:
        """Node ids, and whether its lines also run while modules are imported."""
        found: set[str] = set()
        for line in range(mutant.line, mutant.line + mutant.old.count("\n") + 1):
            found |= self._found.get((str(mutant.path), line), set())
        imported = "" in found
        found.discard("")
        # Likelier to notice than what only comes by: a module's own tests, then those in its folder.
        file, folder = f"/test_{mutant.path.stem}.py::", f"tests/{'/'.join(mutant.path.parts[1:-1])}/"

        def order(test: str) -> tuple[bool, bool, float, str]:
            return file not in test, not test.startswith(folder), self._taken.get(test, 0.0), test

        return sorted(found, key=order), imported


# Each test once, whatever pyproject.toml says; and no file of results.
OPTIONS = ("-o", "addopts=", "-p", "no:cacheprovider", "-m", "not qemu")


class _Told:
    """Tells coverage which test is run, with its fixtures, and takes the time."""

    def __init__(self, measured: Coverage) -> None:
        self._measured = measured
        self.times: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._measured.switch_context(item.nodeid)
        begun = time.monotonic()
        result = yield
        self.times[item.nodeid] = time.monotonic() - begun
        return result
