"""What was acknowledged survives `kill -9` of the server and of the machine: the whole path, without a guest.

After SYNCHRONIZE CACHE, with FUA, or with WCE=0. `HBA_KILLS` sets how many kills each of the six cases gets (default
17, more than 100 in all). A killed process keeps what it handed to the kernel, so this finds an acknowledgement that
came before the write, wrong data and torn blocks; `test_power_loss.py` has the cache of the host's kernel lost as well.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hba.bench import own_server
from hba.bench.own_server import OwnServer
from hba.vfio_user.client import Disconnected
from tests.durability import machine
from tests.durability.machine import BLOCK, BLOCKS, PROMISES, THROUGH, Machine, stamped

KILLS = int(os.environ.get("HBA_KILLS", "17"))
MOST = 150  # acknowledged blocks before a kill

PROJECT = Path(__file__).parents[2]


class Promises:
    """The newest acknowledged stamp of each block, over all the kills."""

    def __init__(self) -> None:
        self.newest: dict[int, int] = {}
        self.count = 0

    def add(self, block: int, stamp: int) -> None:
        self.count += 1
        self.newest[block] = max(stamp, self.newest.get(block, 0))

    def check(self, disk: Path) -> None:
        """Every block is whole, and none older than promised."""
        with disk.open("rb") as file:
            for block in range(BLOCKS):
                data = file.read(BLOCK)
                stamp = int.from_bytes(data[:8], "little")
                assert data == stamped(stamp), f"block {block} is torn"
                assert stamp >= self.newest.get(block, 0), f"block {block}: an acknowledged write is lost"


def configure(folder: Path, disk: Path, promise: str, store: str, port: str = "storport") -> Path:
    config = folder / "durability.toml"
    config.write_text(
        f'[[adapter]]\ntype = "pvscsi"\nname = "durability"\nport = "{port}"\n'
        f"[[adapter.lun]]\nwrite_cache = {'false' if promise == THROUGH else 'true'}\n"
        f"storage = {{ kind = \"file\", path = '{disk}', direct = {'true' if store == 'direct' else 'false'} }}\n"
    )
    return config


def make_disk(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(BLOCK * BLOCKS)
    return path


def kill(server: OwnServer) -> None:
    """The adapter's process, hard; its supervisor, which would start it again, is stopped before and killed after."""
    os.kill(server.child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.child.pid, os.WSTOPPED)
    os.kill(server.pid, signal.SIGKILL)
    server.child.kill()
    server.child.wait()


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("store", ["file", "direct"])
def test_the_server_is_killed(store: str, promise: str, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk")
    config = configure(tmp_path, disk, promise, store)
    chance = random.Random(f"{store} {promise}")
    promises = Promises()
    for seed in range(1, KILLS + 1):
        with own_server.start(config) as server, Machine(server.socket, promise, seed) as writer:
            left = chance.randint(1, MOST)
            try:
                for block, stamp in writer.acknowledged():
                    promises.add(block, stamp)
                    left -= 1
                    if left == 0:
                        kill(server)  # with others under way; the loop goes on until it notices
            except Disconnected:
                pass
            for block, stamp in rest(writer):
                promises.add(block, stamp)
            assert left <= 0, "the server ended before it was killed"
        promises.check(disk)
    assert promises.count >= KILLS


def rest(writer: Machine) -> list[tuple[int, int]]:
    """What the killed server still put into the ring."""
    try:
        return writer.collect()
    except Disconnected:  # a flush that could not be sent any more
        return []


@pytest.mark.parametrize("promise", PROMISES)
def test_the_machine_is_killed(promise: str, tmp_path: Path) -> None:
    """In place of QEMU: its memory and its connection go at any moment. The server takes the next one."""
    disk = make_disk(tmp_path / "disk")
    promises = Promises()
    chance = random.Random(promise)
    with own_server.start(configure(tmp_path, disk, promise, "file")) as server:
        for seed in range(1, max(2, KILLS // 5) + 1):
            child = subprocess.Popen(
                [sys.executable, "-m", machine.__name__, server.socket, promise, str(seed)],
                stdout=subprocess.PIPE,
                cwd=PROJECT,
            )
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(chance.randint(1, MOST))]
            child.kill()
            lines += child.stdout.readlines()
            child.wait()
            child.stdout.close()
            for line in lines:
                if line.endswith(b"\n"):
                    promises.add(*map(int, line.split()))
            promises.check(disk)
        assert server.child.poll() is None
        kill(server)
        promises.check(disk)
    assert promises.count


def test_the_check_finds_a_lost_write(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk")
    promises = Promises()
    promises.add(3, 7)
    with pytest.raises(AssertionError, match="lost"):
        promises.check(disk)
    with disk.open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(stamped(8)[: BLOCK - 8])
    with pytest.raises(AssertionError, match="torn"):
        promises.check(disk)
    with disk.open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(stamped(8))
    promises.check(disk)
