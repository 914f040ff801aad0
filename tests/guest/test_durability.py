"""A real guest writes; the server or QEMU is killed; every block the guest's program was told is stable is in the file.

`HBA_GUEST_KILLS` sets how many boots, and kills, each of the two gets (default 1; the many kills without a guest are in
tests/durability).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.errors import GuestError, HbaError
from tests.durability.machine import BLOCK, BLOCKS
from tests.durability.test_kill import Promises
from tests.guest.scratch import scratch
from tests.guest.units import Units, sparse

pytestmark = pytest.mark.qemu

KILLS = int(os.environ.get("HBA_GUEST_KILLS", "1"))

# Runs in the guest: three writers, each with its own way to make a block stable before it says so on stdout.
WRITER = f"""
import fcntl, mmap, os, random, sys, threading
node, seed = sys.argv[1], int(sys.argv[2])
BLOCK, BLOCKS = {BLOCK}, {BLOCKS}

def write(flags, flush, first, stamp, chance):
    fd = os.open(node, os.O_WRONLY | os.O_DIRECT | flags)
    memory = mmap.mmap(-1, BLOCK)
    while True:
        block = first + 3 * chance.randrange(BLOCKS // 3)
        stamp += 1
        memory[:] = stamp.to_bytes(8, "little") * (BLOCK // 8)
        os.pwritev(fd, [memory], block * BLOCK)
        if flush:
            os.fsync(fd)
        os.write(1, b"%d %d\\n" % (block, stamp))

for number, (flags, flush) in enumerate([(os.O_DSYNC, False), (0, True), (os.O_SYNC, False)]):
    threading.Thread(target=write, args=(flags, flush, number, seed << 32, random.Random(seed + number))).start()
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = scratch("hbau-")
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(folder / "run"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("victim", ["server", "QEMU"])
def test_acknowledged_blocks_survive(victim: str, folder: Path) -> None:
    disk = sparse(folder / "disk", 16 << 20)
    promises = Promises()
    chance = random.Random(victim)
    for seed in range(1, KILLS + 1):
        units = Units([{"storage": {"kind": "file", "path": str(disk)}}], folder)
        try:
            units.start()
            for block, stamp in until_killed(units, victim, chance.randint(100, 400), seed):
                promises.add(block, stamp)
            promises.check(disk)
        finally:
            units.close()
        promises.check(disk)
    assert promises.count >= 100 * KILLS


def until_killed(units: Units, victim: str, count: int, seed: int) -> list[tuple[int, int]]:
    """Write in the guest, kill after `count` acknowledged blocks; all that the guest still said."""
    experiment = units.experiment
    pid = experiment.guest.pid if victim == "QEMU" else units.server_pid()
    experiment.guest.agent.put("/tmp/writer.py", WRITER.encode())
    said = bytearray()
    killed = threading.Event()

    def heard(data: bytes) -> None:
        said.extend(data)
        if said.count(b"\n") >= count and not killed.is_set():
            killed.set()
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(HbaError) as ended:
        experiment.guest.agent.exec(["python3", "/tmp/writer.py", units.there(0), str(seed)], on_output=heard)
    assert killed.is_set(), f"{ended.value}\n{said[-500:].decode()}"
    assert victim == "server" or isinstance(ended.value, GuestError)
    lines = [line.split() for line in bytes(said).split(b"\n")[:-1]]
    return [(int(block), int(stamp)) for block, stamp in lines]
