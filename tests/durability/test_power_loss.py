"""The power of the host fails under writes: what was acknowledged is there, though the kernel's cache is lost.

The disk's file lies in a small file system on a loop device. What that device's own file holds at some moment is what
a real disk would hold: the dirty pages of the disk's file are not in it. So a copy of it, taken right after the kill
and mounted elsewhere (which replays the journal), is the host after a power failure. Needs root.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.bench import own_server
from hba.storage import linux
from hba.vfio_user.client import Disconnected
from tests.durability.machine import BLOCK, BLOCKS, PROMISES, Machine, stamped
from tests.durability.test_kill import Promises, configure, kill, rest

FAILURES = int(os.environ.get("HBA_KILLS", "17")) // 8 or 1
IMAGE_SIZE = 24 << 20


class Mounted:
    """An ext4 on a loop device."""

    def __init__(self, image: Path, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        result = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, text=True)
        if result.returncode:
            folder.rmdir()
            pytest.skip(f"no loop device can be mounted here: {result.stderr.strip()}")

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)
        self.folder.rmdir()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """An ext4 with the disk in it, all of it allocated and stable."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system of its own needs root")
    image = tmp_path / "host.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_SIZE)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with Mounted(image, tmp_path / "first") as folder, (folder / "disk").open("wb") as file:
        file.write(bytes(BLOCK * BLOCKS))
        file.flush()
        os.fsync(file.fileno())
    yield image


@pytest.mark.parametrize("promise", PROMISES)
def test_acknowledged_blocks_survive(promise: str, image: Path, tmp_path: Path) -> None:
    chance = random.Random(promise)
    after = tmp_path / "after.img"
    for seed in range(1, FAILURES + 1):
        promises = Promises()
        with Mounted(image, tmp_path / "host") as folder:
            config = configure(tmp_path, folder / "disk", promise, "file")
            with own_server.start(config) as server, Machine(server.socket, promise, seed) as writer:
                left = chance.randint(20, 150)
                try:
                    for block, stamp in writer.acknowledged():
                        promises.add(block, stamp)
                        left -= 1
                        if left == 0:
                            kill(server)
                            shutil.copyfile(image, after)
                except Disconnected:
                    pass
                rest(writer)  # acknowledged after the copy was made, perhaps: they prove nothing
        with Mounted(after, tmp_path / "again") as folder:
            promises.check(folder / "disk")


def test_what_was_not_flushed_is_lost(image: Path, tmp_path: Path) -> None:
    """The method works: a write that nobody made stable is not in the copy."""
    after = tmp_path / "after.img"
    with Mounted(image, tmp_path / "host") as folder:
        fd = os.open(folder / "disk", os.O_RDWR)
        assert linux.file_system(fd) == linux.EXT4_MAGIC
        os.pwrite(fd, stamped(1), 0)
        os.pwrite(fd, stamped(2), 3 * BLOCK)
        lost = Promises()
        lost.add(0, 1)
        shutil.copyfile(image, after)
        os.close(fd)
    with Mounted(after, tmp_path / "again") as folder, pytest.raises(AssertionError, match="lost"):
        lost.check(folder / "disk")
