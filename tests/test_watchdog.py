"""The watchdog over turns of the event loop."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hba.loop import EventLoop
from hba.watchdog import Watchdog, make_loop


def burn(milliseconds: int) -> None:
    end = time.thread_time_ns() + milliseconds * 1_000_000
    while time.thread_time_ns() < end:
        pass


@pytest.mark.long_turns("that is what is tested")
def test_a_long_turn_is_told_with_what_it_did(turns: list[str]) -> None:
    loop = EventLoop()
    loop.call_soon(lambda: burn(200))
    loop.run_once()
    loop.close()
    (told,) = turns
    assert "ms of CPU" in told and "in burn" in told


def test_short_turns_are_no_long_one(turns: list[str]) -> None:
    loop = EventLoop()
    for _ in range(20):
        loop.call_soon(lambda: burn(10))
        loop.run_once()
    loop.close()
    assert not turns


def test_waiting_is_no_work(turns: list[str]) -> None:
    loop = EventLoop()
    loop.call_soon(lambda: time.sleep(0.15))  # what is tested
    loop.run_once()
    loop.close()
    assert not turns


def test_other_threads_and_collections_do_not_count(turns: list[str]) -> None:
    loop = EventLoop()

    def work() -> None:
        thread = threading.Thread(target=burn, args=(120,))
        thread.start()
        thread.join()
        for _ in range(5):
            gc.collect()

    loop.call_soon(work)
    loop.run_once()
    loop.close()
    assert not turns


def test_a_server_tells_on_standard_error_when_it_is_asked_to() -> None:
    program = (
        "from hba.watchdog import make_loop\nimport time\nloop = make_loop()\n"
        "def burn():\n    end = time.thread_time() + 0.1\n    while time.thread_time() < end: pass\n"
        "loop.call_soon(burn)\nloop.run_once()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HBA_TURN_FILE"}
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HBA_TURN_LIMIT": "20"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a turn of the event loop took" in said.stderr and "in burn" in said.stderr
    quiet = subprocess.run(
        [sys.executable, "-c", program], env={**environment, "HBA_TURN_LIMIT": ""}, capture_output=True, check=True
    )
    assert quiet.stderr == b""


def test_it_leaves_nothing_behind() -> None:
    program = (
        "import signal, gc\nfrom hba.watchdog import Watchdog\n"
        "before = signal.getsignal(signal.SIGPROF), len(gc.callbacks)\n"
        "Watchdog(10**7, print).close()\nassert (signal.getsignal(signal.SIGPROF), len(gc.callbacks)) == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_loop_takes_its_watchdog_along(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGPROF), len(gc.callbacks)
    monkeypatch.setenv("HBA_TURN_LIMIT", "50")
    loop = make_loop()
    assert signal.getsignal(signal.SIGPROF) != before[0]
    loop.close()
    assert (signal.getsignal(signal.SIGPROF), len(gc.callbacks)) == before


def test_a_turn_counts_for_what_it_takes_at_the_usual_pace() -> None:
    """A virtual processor that others slow down needs more CPU time for the same work."""
    told: list[str] = []
    watchdog = Watchdog(20_000_000, told.append)
    try:
        watchdog.turn(lambda: burn(60))
        assert len(told) == 1
        watchdog._pace //= 20  # it was twenty times as fast when the watchdog was made
        watchdog.turn(lambda: burn(60))
        assert len(told) == 1
    finally:
        watchdog.close()
