"""Several adapters, a process each: exit codes, and that none touches the others."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.config.model import AdapterConfig, adapter_config
from hba.server.pulse import Pulse
from hba.server.report import Report
from hba.server.supervisor import Restarts, run_children


def adapters(*names: str) -> list[AdapterConfig]:
    return [adapter_config()(type="pvscsi", name=name) for name in names]


def report() -> tuple[Report, io.StringIO]:
    out = io.StringIO()
    return Report(True, out, io.StringIO()), out


NEVER = Restarts(most=0)


def run(
    bodies: dict[str, Callable[[], int]], grace: float = 60.0, restarts: Restarts = NEVER
) -> tuple[int, list[dict[str, object]]]:
    told, out = report()
    code = run_children(adapters(*bodies), lambda config, pulse: bodies[config.name](), told, grace, restarts)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def die(number: int) -> Callable[[], int]:
    def body() -> int:
        faulthandler.disable()  # pytest's: it would tell of a death that is meant
        os.kill(os.getpid(), number)
        return 0

    return body


def raise_defect() -> int:
    raise RuntimeError("a defect in the child")


def until_told() -> int:
    """A child that ends well when it gets SIGTERM, or badly after a while without."""
    received = signal.sigtimedwait([signal.SIGTERM], 20)
    return 0 if received is not None else 99


def blocked(body: Callable[[], int]) -> Callable[[], int]:
    def wrapped() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        return body()

    return wrapped


def tell_parent(body_after: Callable[[], int]) -> Callable[[], int]:
    """Ask the supervisor to stop everything, then go on."""

    def wrapped() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getppid(), signal.SIGTERM)
        return body_after()

    return wrapped


def test_all_good() -> None:
    assert run({"a": lambda: 0, "b": lambda: 0}) == (0, [])


def test_the_exit_code_is_that_of_one_that_failed() -> None:
    assert run({"a": lambda: 0, "b": lambda: 5, "c": lambda: 0})[0] == 5


def test_a_child_that_was_killed_is_named_and_counts_as_in_a_shell() -> None:
    code, lines = run({"a": die(signal.SIGKILL), "b": lambda: 0})
    assert code == 128 + signal.SIGKILL
    assert [line["event"] for line in lines] == ["gave-up", "failed"]
    assert lines[1]["exit_code"] == 137 and "ended by SIGKILL" in str(lines[1]["message"])


def test_a_defect_in_a_child_stays_in_it() -> None:
    assert run({"a": raise_defect, "b": lambda: 0})[0] == 70


def test_sigterm_reaches_all_children() -> None:
    assert run({"a": blocked(until_told), "b": tell_parent(until_told)})[0] == 0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_that_fails_leaves_the_others_up() -> None:
    """The other ends only because it stops the supervisor itself, after the first has failed and was buried."""
    read, write = os.pipe()

    def fails() -> int:
        os.write(write, b"%d" % os.getpid())
        return 4

    def outlives() -> int:
        pid = int(os.read(read, 100))
        while not gone(pid):
            os.sched_yield()
        return tell_parent(until_told)()

    assert run({"a": fails, "b": outlives})[0] == 4
    os.close(read)
    os.close(write)


def test_one_that_does_not_end_is_killed_after_the_grace() -> None:
    def deaf() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getppid(), signal.SIGTERM)
        while True:
            signal.pause()

    code, lines = run({"a": deaf}, grace=0.05)
    assert code == 128 + signal.SIGKILL
    assert "did not end within" in str(lines[0]["message"])


def test_children_end_when_the_supervisor_is_killed() -> None:
    read, write = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:

        def body(config: AdapterConfig, pulse: Pulse) -> int:
            os.write(write, b"%d" % os.getpid())
            while True:
                signal.pause()

        run_children(adapters("a"), body, report()[0])
        os._exit(0)
    os.close(write)
    child = int(os.read(read, 100))
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    ended, _, _ = select.select([read], [], [], 20)  # the end of the file: nobody has the other end any more
    os.close(read)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert ended


SOON = Restarts(most=3, first_pause=0.0)


def dies_until(count: int, way: Callable[[], int], then: Callable[[], int], counter: int) -> Callable[[], int]:
    """A body that goes `way` in its first `count` lives; `counter` is a file that counts them."""

    def body() -> int:
        os.write(counter, b"x")
        return way() if os.fstat(counter).st_size <= count else then()

    return body


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "lives", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("way", [die(signal.SIGBUS), die(signal.SIGSEGV), die(signal.SIGKILL), raise_defect])
def test_one_that_dies_is_started_again(counter: int, way: Callable[[], int]) -> None:
    code, lines = run({"a": dies_until(2, way, lambda: 0, counter)}, restarts=SOON)
    assert (code, os.fstat(counter).st_size) == (0, 3)
    assert [(line["event"], line["number"], line["most"]) for line in lines] == [
        ("restarting", 1, 3),
        ("restarting", 2, 3),
    ]


def test_the_reason_is_told(counter: int) -> None:
    _, lines = run({"a": dies_until(1, die(signal.SIGBUS), lambda: 0, counter)}, restarts=SOON)
    assert "ended by SIGBUS: memory that it had mapped went away" in str(lines[0]["message"])


def test_one_that_dies_again_and_again_stays_dead(counter: int) -> None:
    code, lines = run({"a": dies_until(99, die(signal.SIGBUS), lambda: 0, counter), "b": lambda: 0}, restarts=SOON)
    assert (code, os.fstat(counter).st_size) == (128 + signal.SIGBUS, 4)
    assert [line["event"] for line in lines] == ["restarting"] * 3 + ["gave-up", "failed"]
    assert lines[3]["deaths"] == 4


def test_deaths_long_ago_do_not_count(counter: int) -> None:
    restarts = Restarts(most=1, window=0.0, first_pause=0.0)
    assert run({"a": dies_until(5, die(signal.SIGBUS), lambda: 0, counter)}, restarts=restarts)[0] == 0
    assert os.fstat(counter).st_size == 6


@pytest.mark.parametrize("code", [0, 3, 4, 5, 6])
def test_what_has_said_why_it_fails_is_not_started_again(counter: int, code: int) -> None:
    assert run({"a": dies_until(99, lambda: code, lambda: 0, counter)}, restarts=SOON) == (code, [])
    assert os.fstat(counter).st_size == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_was_ended_on_purpose_is_not_started_again(counter: int, number: int) -> None:
    def body() -> int:
        signal.signal(number, signal.SIG_DFL)
        return die(number)()

    assert run({"a": dies_until(99, body, lambda: 0, counter)}, restarts=SOON)[0] == 128 + number
    assert os.fstat(counter).st_size == 1


def test_nothing_is_started_again_while_all_end(counter: int) -> None:
    """It dies when it is told to end: as often as before, but that is its end."""

    def dies_when_told() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getppid(), signal.SIGTERM)
        signal.sigtimedwait([signal.SIGTERM], 20)
        return die(signal.SIGKILL)()

    assert run({"a": dies_until(99, dies_when_told, lambda: 0, counter)}, restarts=SOON)[0] == 137
    assert os.fstat(counter).st_size == 1


def test_told_to_end_while_one_waits_to_be_started_again(counter: int) -> None:
    """The pause would last for ever."""
    pid_read, pid_write = os.pipe()

    def dies() -> int:
        os.write(counter, b"x")
        os.write(pid_write, b"%d" % os.getpid())
        return die(signal.SIGBUS)()

    def ends_all() -> int:
        pid = int(os.read(pid_read, 100))
        while not gone(pid):  # the supervisor has buried it
            os.sched_yield()
        return tell_parent(until_told)()

    code, _ = run({"a": dies, "b": ends_all}, restarts=Restarts(first_pause=1e6))
    os.close(pid_read)
    os.close(pid_write)
    assert code == 0 and os.fstat(counter).st_size == 1
