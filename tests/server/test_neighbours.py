"""Twelve adapters in one `hba serve`, one of which does not answer any more: the others go on as if nothing were.

What they manage in a second with it to without it is printed (`pytest -s`), and held to nothing: it is the machine's.
`HBA_ROUNDS` and `HBA_COMMANDS` (in each) make it a measurement: 20 and 1000.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil
import pytest

from hba.adapters.pvscsi.bench import KICK, MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import FLAG_DIR_TOHOST
from hba.control.client import NoAnswer
from tests.server.several import Several
from tests.server.wedged import NEVER, WedgedMiniport

ADAPTERS = 12
PORTS = ("storport", "scsiport")
COMMANDS = int(os.environ.get("HBA_COMMANDS", "200"))  # of each in a round
ROUNDS = int(os.environ.get("HBA_ROUNDS", "1"))


class Crowd(Several):
    """All of them; the first has the miniport that can be wedged."""

    def __init__(self, folder: Path) -> None:
        text = ""
        for number in range(ADAPTERS):
            text += f'[[adapter]]\ntype = "pvscsi"\nname = "a{number}"\nport = "{PORTS[number % 2]}"\n'
            if not number:
                text += f'miniport = "{WedgedMiniport.__module__}:{WedgedMiniport.__name__}"\n'
            text += '[[adapter.lun]]\nstorage = { kind = "memory", size = "1M" }\n'
        super().__init__(folder, text, ADAPTERS)
        self.wedged_guest: PvscsiBenchDriver | None = None

    def close(self) -> None:
        # One that turns in a loop of its own is killed after a minute's grace; nobody waits for that here.
        os.kill(self.pids["a0"], signal.SIGKILL)
        super().close()
        if self.wedged_guest is not None:
            self.wedged_guest.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Crowd]:
    server = Crowd(tmp_path)
    yield server
    server.close()


def rate(server: Crowd, number: int) -> float:
    """Commands in a second, of one adapter."""
    with server.driver(f"a{number}") as driver:
        driver.prepare([(False, 0, 4096)], 512)
        begin = time.monotonic()
        driver.run(3600.0, 4, most=COMMANDS)
        return COMMANDS / (time.monotonic() - begin)


def rates(server: Crowd) -> list[float]:
    """Of all but the first, at once."""
    found: list[float] = []
    failed: list[BaseException] = []

    def one(number: int) -> None:
        try:
            found.append(rate(server, number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, ADAPTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    return found


class Stopped:
    """Nothing of it runs."""

    def __init__(self, server: Crowd) -> None:
        self._pid = server.pids["a0"]
        self.on()

    def on(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def off(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


class Spinning:
    """Its guest asks for what its miniport never gets over; what that takes from the others is measured against the
    same process when it is stopped."""

    def __init__(self, server: Crowd) -> None:
        self._pid = server.pids["a0"]
        driver = server.wedged_guest = server.driver("a0")  # it stays: it does not know yet
        cdb = bytes((0x28, 0, 0, 0, 0, NEVER, 0, 0, 8, 0))
        driver._place(0, cdb, 4096, FLAG_DIR_TOHOST, driver._data_at, driver._produced & MASK)
        driver._produced += 1
        driver._state[0] = driver._produced
        driver._client.region_write(0, KICK, bytes(4), posted=True)
        event = server.event()
        assert (event["event"], event["adapter"], event["pid"]) == ("spinning", "a0", self._pid)
        assert os.sched_getscheduler(self._pid) == os.SCHED_IDLE
        others = [os.sched_getscheduler(pid) for name, pid in server.pids.items() if name != "a0"]
        assert others == [os.SCHED_OTHER] * (ADAPTERS - 1)

    def on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def off(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)


@pytest.mark.parametrize("wedged", [Stopped, Spinning])
def test_eleven_go_on_beside_one_that_does_not(server: Crowd, wedged: type[Stopped | Spinning]) -> None:
    wedge = wedged(server)
    with pytest.raises(NoAnswer):
        server.control("a0", timeout=0.5)
    ratios = []
    for _ in range(ROUNDS):  # in turns: a machine that has other things to do is as slow for the one as for the other
        with_it = rates(server)
        wedge.off()
        without = rates(server)
        wedge.on()
        assert len(with_it) == len(without) == ADAPTERS - 1
        ratios.append(median(with_it) / median(without))
    for number in range(1, ADAPTERS):
        with server.control(f"a{number}") as control:
            assert control.call("show.summary")["violations"] == 0
    assert all(psutil.pid_exists(pid) for pid in server.pids.values())
    print(
        f"{wedged.__name__}: median of {ADAPTERS - 1} adapters at once with it to without it, in {ROUNDS} rounds: "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
