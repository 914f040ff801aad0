"""A process that spins gets idle time alone until it answers; one that is only busy, or waits, keeps its priority."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hba.config.model import AdapterConfig, adapter_config
from hba.loop import EventLoop
from hba.server import pulse, supervisor
from hba.server.pulse import Pulse, Watch
from hba.server.report import Report
from hba.server.supervisor import Restarts, run_children

Body = Callable[[EventLoop, Pulse], None]
SMALL = 0.05  # seconds of CPU


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PERIOD", SMALL)
    monkeypatch.setattr(pulse, "BUSY", 0.0)
    monkeypatch.setattr(pulse, "PATIENCE", SMALL)


def not_for_ever() -> None:
    """In a child: a test that fails must not last. The handler is that of pytest's own limit, which is the parent's."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(120)


def spin_until(condition: Callable[[], object]) -> None:
    while not condition():
        pass


def turns_until(loop: EventLoop, condition: Callable[[], object]) -> None:
    """Without a pause, and each of them short."""

    def again() -> None:
        loop.call_soon(again)

    again()
    while not condition():
        loop.run_once()


def burnt(seconds: float) -> Callable[[], bool]:
    enough = time.process_time() + seconds
    return lambda: time.process_time() >= enough


def run(body: Body) -> list[dict[str, Any]]:
    """One child with a loop; what was reported of it."""

    def child(config: AdapterConfig, its: Pulse) -> int:
        not_for_ever()
        body(EventLoop(), its)
        return 0

    out = io.StringIO()
    config = adapter_config()(type="pvscsi", name="a")
    assert run_children([config], child, Report(True, out, io.StringIO()), restarts=Restarts(most=0)) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def spins_and_answers(loop: EventLoop, its: Pulse) -> None:
    before = os.sched_getscheduler(0)
    its.begin(loop)
    spin_until(lambda: os.sched_getscheduler(0) == os.SCHED_IDLE)
    turns_until(loop, lambda: os.sched_getscheduler(0) == before)
    its.close(loop)


@pytest.mark.skipif(os.geteuid() != 0, reason="raising a priority needs root, or RLIMIT_NICE")
def test_it_has_idle_time_alone_until_it_answers() -> None:
    spinning, answers = run(spins_and_answers)
    assert (spinning["event"], spinning["adapter"]) == ("spinning", "a")
    assert (answers["event"], answers["adapter"], answers["restored"]) == ("answers", "a", True)


def test_threads_are_meant_too() -> None:
    """Those of its workers: a loop without end may be there, holding the interpreter."""
    watch, its, pid = forked()
    threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    assert [os.sched_getscheduler(thread) for thread in threads] == [os.sched_getscheduler(0)] * 2
    until(watch.look)
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}
    bury(watch, its, pid)


def test_where_a_priority_may_not_be_raised_it_stays_low_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, policy: int, parameter: os.sched_param) -> None:
        if policy != os.SCHED_IDLE:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    watch, its, pid = forked()
    until(watch.look)
    its.send(b".")
    assert watch.answered() is False
    assert watch.answered() is None
    bury(watch, its, pid)


def test_one_that_is_busy_and_answers_keeps_its_priority() -> None:
    def body(loop: EventLoop, its: Pulse) -> None:
        its.begin(loop)
        turns_until(loop, burnt(20 * SMALL))
        its.close(loop)

    assert run(body) == []


def test_nothing_is_asked_before_the_loop_runs_and_after_its_end() -> None:
    def body(loop: EventLoop, its: Pulse) -> None:
        spin_until(burnt(10 * SMALL))
        its.begin(loop)
        loop.run_once()
        its.close(loop)
        spin_until(burnt(10 * SMALL))

    assert run(body) == []


def test_one_that_is_stopped_takes_nothing_and_keeps_its_priority() -> None:
    watch, its, pid = forked()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    for _ in range(100):
        assert not watch.look()
    assert os.sched_getscheduler(pid) == os.sched_getscheduler(0)
    bury(watch, its, pid)


def test_a_supervisor_that_goes_is_not_answered() -> None:
    ours, its = pulse.pulse()
    loop = EventLoop()
    answering = Pulse(its)
    answering.begin(loop)
    assert ours.recv(1) == b"."
    ours.close()
    loop.run_once(None)
    turns = loop.turns
    loop.run_once(0)
    assert loop.turns == turns + 1 and its.fileno() not in loop._readers
    answering.close(loop)
    loop.close()


# -- a child that has begun and spins, with two threads -------------------------------------------------------------


def forked() -> tuple[Watch, Any, int]:
    ours, its = pulse.pulse()
    pid = os.fork()
    if not pid:
        not_for_ever()
        threading.Thread(target=spin_until, args=(lambda: False,), daemon=True).start()
        its.send(b".")
        spin_until(lambda: False)
    watch = Watch(pid, ours)
    select.select([ours], [], [])  # it has begun
    assert watch.answered() is None
    return watch, its, pid


def until(condition: Callable[[], object]) -> None:
    """The child's CPU time goes on meanwhile."""
    while not condition():
        os.sched_yield()


def bury(watch: Watch, its: Any, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    watch.close()
    its.close()
