"""Twelve adapters in one `hba serve`, one of which does not answer any more: the others go on as if nothing were.

What they manage in a second with and without it is printed (`pytest -s`), and held to nothing: it is the machine's.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
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
COMMANDS = 400  # of each, one after the other


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


def stop(server: Crowd) -> None:
    os.kill(server.pids["a0"], signal.SIGSTOP)


def loop_for_ever(server: Crowd) -> None:
    """Its guest asks for what its miniport never gets over."""
    driver = server.wedged_guest = server.driver("a0")  # it stays: it does not know yet
    cdb = bytes((0x28, 0, 0, 0, 0, NEVER, 0, 0, 8, 0))
    driver._place(0, cdb, 4096, FLAG_DIR_TOHOST, driver._data_at, driver._produced & MASK)
    driver._produced += 1
    driver._state[0] = driver._produced
    driver._client.region_write(0, KICK, bytes(4), posted=True)


@pytest.mark.parametrize("wedge", [stop, loop_for_ever])
def test_eleven_go_on_beside_one_that_does_not(server: Crowd, wedge: Callable[[Crowd], None]) -> None:
    before = rates(server)
    wedge(server)
    with pytest.raises(NoAnswer):
        server.control("a0", timeout=0.5)
    after = rates(server)
    assert len(after) == ADAPTERS - 1
    for number in range(1, ADAPTERS):
        with server.control(f"a{number}") as control:
            assert control.call("show.summary")["violations"] == 0
    assert all(psutil.pid_exists(pid) for pid in server.pids.values())
    print(
        f"{wedge.__name__}: median of {ADAPTERS - 1} adapters at once {median(before):.0f} commands/s before, "
        f"{median(after):.0f} after, ratio {median(after) / median(before):.2f}"
    )
