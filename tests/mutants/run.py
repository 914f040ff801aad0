"""Runs the tests that reach a planted fault, in a process of their own.

All tests are collected once, in this process; each fault has a child of it, in which the functions that are loaded get
the faulty code. So a fault costs what its tests take and no start, and there can be ten thousand of them.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.plant import Mutant
from tests.mutants.reach import OPTIONS, Reach
from tests.mutants.swap import CannotSwap, Functions

OUTCOMES = KILLED, HUNG, SURVIVED, UNREACHED = "killed", "hung", "survived", "unreached"

ONE_TEST = 30  # seconds; a fault that makes a test hang is noticed
LOADED = 4  # times the patience, which is CPU time, and
GRACE = 60.0  # seconds beyond it: what has not ended by then hangs where Python cannot interrupt it
MEMORY = 12 << 30  # bytes of address space; a fault that makes a list grow without end is noticed
_KILLED, _SURVIVED, _CANNOT_SWAP = 1, 0, 99


@dataclass
class _Running:
    mutant: Mutant
    since: float
    told: Path  # the test that noticed it


class Runner:
    """A pytest plugin that, when the tests are collected, runs those of each fault instead of all of them."""

    def __init__(
        self,
        mutants: Iterable[Mutant],
        reach: Reach,
        workers: int,
        patience: float,
        folder: Path,
        told: Callable[[Mutant, str], None],
    ) -> None:
        self._todo = iter(mutants)
        self._reach = reach
        self._workers = workers
        self._patience = patience
        self._folder = folder
        self._told = told
        self._running: dict[int, _Running] = {}
        self._noticed: dict[
            tuple[Path, str], list[str]
        ] = {}  # by function: tests that noticed a fault of it, last first

    def run(self) -> None:
        """Until every mutant has been told of."""
        options = (*OPTIONS, "-s", "-p", "no:terminal", "--assert=plain", "-o", f"timeout={ONE_TEST}")
        os.environ["HBA_MUTANTS"] = "1"  # tests/conftest.py: no smaller example is looked for
        pytest.main([*options, *self._reach.tests], plugins=[self])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise SystemExit("the tests cannot be collected")
        items = {item.nodeid: item for item in session.items}
        for item in session.items:
            item.add_marker(pytest.mark.long_turns("a loaded machine is not to be taken for a fault noticed"))
        functions = Functions(Path.cwd())
        session.config.option.tbstyle = "native"  # nobody reads it, and the others take longer than the test
        gc.collect()
        gc.freeze()  # the children share it
        done = False
        while self._running or not done:
            while not done and len(self._running) < self._workers:
                mutant = next(self._todo, None)
                if mutant is None:
                    done = True
                    break
                self._start(session, functions, items, mutant)
            self._reap()
            time.sleep(0.002)  # asked again: waiting for any one of several children has no time limit to it
        return True

    def _start(
        self, session: pytest.Session, functions: Functions, items: dict[str, pytest.Item], mutant: Mutant
    ) -> None:
        tests, imported = self._reach.of(mutant)
        first = self._noticed.get((mutant.path, mutant.function), [])
        order = [test for test in first if test in tests]
        order += [test for test in tests if test not in order]
        if not order and not imported:
            self._told(mutant, UNREACHED)
            return
        told = self._folder / f"{len(self._running)}-{time.monotonic_ns()}"
        told.mkdir()
        sys.stdout.flush()
        child = os.fork()
        if child:
            self._running[child] = _Running(mutant, time.monotonic(), told)
            return
        code = _KILLED
        try:
            os.setpgid(0, 0)  # not a session of its own: how nice the run is says so for it, too
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(told)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            _quiet()
            chosen = [items[test] for test in order if test in items]
            code = _tests(session, functions, mutant, chosen, self._patience, told)
            if code == _CANNOT_SWAP or (code == _SURVIVED and imported):
                code = _anew(mutant, order or self._reach.tests, told)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for child, running in list(self._running.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                outcome = KILLED if os.waitstatus_to_exitcode(status) else SURVIVED
            elif time.monotonic() - running.since > LOADED * self._patience + GRACE:
                outcome = HUNG
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            else:
                continue
            del self._running[child]
            self._learn(running)
            shutil.rmtree(running.told, ignore_errors=True)
            self._told(running.mutant, outcome)

    def _learn(self, running: _Running) -> None:
        """Its test is the first one for the next fault of the same function."""
        noticed = running.told / "test"
        if not noticed.exists():
            return
        test = noticed.read_text("utf-8")
        known = self._noticed.setdefault((running.mutant.path, running.mutant.function), [])
        if test in known:
            known.remove(test)
        known.insert(0, test)


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)


def _tests(
    session: pytest.Session,
    functions: Functions,
    mutant: Mutant,
    items: Sequence[pytest.Item],
    patience: float,
    told: Path,
) -> int:
    try:
        functions.plant(mutant)
    except CannotSwap:
        return _CANNOT_SWAP
    begun = time.process_time()
    for item, after in zip(items, [*items[1:], None], strict=True):
        if time.process_time() - begun > patience:
            return _SURVIVED
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        except BaseException:
            session.testsfailed += 1
        if session.testsfailed:
            (told / "test").write_text(item.nodeid, "utf-8")
            return _KILLED
    return _SURVIVED


def _anew(mutant: Mutant, tests: Sequence[str], folder: Path) -> int:
    """The same in a program that imports the faulty source: for what runs at import."""
    faulty = folder / "faulty.py"
    faulty.write_text(mutant.source(mutant.path.read_text("utf-8")), "utf-8")
    command = [sys.executable, "-m", "tests.mutants.anew", str(mutant.path), str(faulty)]
    options = (*OPTIONS, "-x", "-q", "-o", f"timeout={ONE_TEST}")
    return _KILLED if subprocess.run([*command, *options, *tests], check=False).returncode else _SURVIVED
