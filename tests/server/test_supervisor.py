"""Several adapters, a process each: exit codes, and that none touches the others."""

from __future__ import annotations

import io
import json
import os
import select
import signal
from collections.abc import Callable

from hba.config.model import AdapterConfig
from hba.server.report import Report
from hba.server.supervisor import run_children


def adapters(*names: str) -> list[AdapterConfig]:
    return [AdapterConfig(type="pvscsi", name=name) for name in names]


def report() -> tuple[Report, io.StringIO]:
    out = io.StringIO()
    return Report(True, out, io.StringIO()), out


def run(bodies: dict[str, Callable[[], int]], grace: float = 60.0) -> tuple[int, list[dict[str, object]]]:
    told, out = report()
    code = run_children(adapters(*bodies), lambda config: bodies[config.name](), told, grace)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def die(number: int) -> Callable[[], int]:
    def body() -> int:
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
    assert lines == [{"event": "failed", "adapter": "a", "message": "ended by SIGKILL", "exit_code": 137}]


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

        def body(config: AdapterConfig) -> int:
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
