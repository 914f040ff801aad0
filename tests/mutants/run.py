"""Runs the tests that reach a planted fault, in a process of their own that sees the faulty source."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutants.plant import Mutant

PATIENCE = 40.0  # seconds; a fault that makes the tests hang is noticed
PATIENCE_FOR_ALL = 400.0
KILLED, HUNG, SURVIVED = "killed", "hung", "survived"


class Reach:
    """Which tests run which lines, from one run of all of them under coverage."""

    def __init__(self, tests: Sequence[str], sources: Sequence[str], data: Path) -> None:
        self.all = tests
        self._sources = sources
        self._data = data
        self._found: dict[tuple[str, int], set[str]] = {}
        self._around: dict[str, set[str]] = {}  # by file: all tests that run anything of it

    def measure(self) -> None:
        """In a child: nothing of the program is loaded here, or its faulty source would not be."""
        child = os.fork()
        if not child:
            os._exit(self._measure())
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the tests fail without any fault; mend them first")
        self._load()

    def _measure(self) -> int:
        import coverage

        settings = self._data.with_suffix(".rc")
        settings.write_text("[run]\ndynamic_context = test_function\n")
        measured = coverage.Coverage(
            data_file=str(self._data), config_file=str(settings), include=[f"{source}/*" for source in self._sources]
        )
        measured.start()
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not qemu", *self.all])
        measured.stop()
        measured.save()
        return int(code)

    def _load(self) -> None:
        import coverage

        data = coverage.CoverageData(basename=str(self._data))
        data.read()
        for file in data.measured_files():
            path = str(Path(file).relative_to(Path.cwd()))
            for line, contexts in data.contexts_by_lineno(file).items():
                tests = {test for test in map(_node, contexts) if test}
                self._around.setdefault(path, set()).update(tests)
                if "" in contexts:  # a fixture ran it, for whom coverage does not say
                    tests.add("")
                self._found[path, line] = tests

    def tests(self, mutant: Mutant) -> list[str]:
        """Node ids of the tests that run its lines; where a fixture does, of all that run anything of its file."""
        found: set[str] = set()
        for line in range(mutant.line, mutant.line + mutant.old.count("\n") + 1):
            found |= self._found.get((str(mutant.path), line), set())
        if "" in found:
            found |= self._around[str(mutant.path)]
            found.discard("")
        return sorted(found)


def _node(context: str) -> str:
    """tests.port.test_base.TestX.test_y -> tests/port/test_base.py::TestX::test_y"""
    parts = context.split(".")
    for index, part in enumerate(parts):
        if part.startswith("test_") and Path(*parts[: index + 1]).with_suffix(".py").exists():
            return "::".join(("/".join(parts[: index + 1]) + ".py", *parts[index + 1 :]))
    return ""


class _Faulty(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from other source than is on the disk."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = str(mutant.path.with_suffix("")).replace("/", ".").removesuffix(".__init__")
        self._path = mutant.path
        self._source = mutant.source(mutant.path.read_text("utf-8"))

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> object:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path.absolute(), loader=self)

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


def _child(mutant: Mutant, tests: Sequence[str]) -> int:
    quiet = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    sys.meta_path.insert(0, _Faulty(mutant))
    try:
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]))
    except BaseException:
        return 1


def outcomes(mutants: Iterable[Mutant], reach: Reach, workers: int) -> Iterable[tuple[Mutant, str]]:
    """What became of each, as it becomes known; `workers` at a time.

    First the tests that run its lines, which is quick and kills most. What survives, or is run by no test that coverage
    knows of (it loses some: those of hypothesis, what a fixture starts), meets all tests.
    """
    running: dict[int, tuple[Mutant, float, bool]] = {}  # since when, by all tests
    todo = iter(mutants)
    done = False

    def start(mutant: Mutant, tests: Sequence[str], everything: bool) -> None:
        child = os.fork()
        if not child:
            os.setsid()
            os._exit(_child(mutant, tests))
        running[child] = mutant, time.monotonic(), everything

    while running or not done:
        while not done and len(running) < workers:
            mutant = next(todo, None)
            if mutant is None:
                done = True
                break
            tests = reach.tests(mutant)
            start(mutant, tests or reach.all, not tests)
        for child, (mutant, since, everything) in list(running.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                del running[child]
                if os.waitstatus_to_exitcode(status):
                    yield mutant, KILLED
                elif everything:
                    yield mutant, SURVIVED
                else:
                    start(mutant, reach.all, True)
            elif time.monotonic() - since > (PATIENCE_FOR_ALL if everything else PATIENCE):
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                del running[child]
                yield mutant, HUNG
        time.sleep(0.01)  # asked again: waiting for any one of several children has no time limit to it
