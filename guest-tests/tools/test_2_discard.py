"""blkdiscard and fstrim; whether the file on the host gets smaller is looked at there."""

from __future__ import annotations

import os
import re
import subprocess

import pattern
import pytest
from adapter import settle

MIB = 1 << 20
BLKDISCARD, FSTRIM = (544 * MIB, 32 * MIB), (576 * MIB, 62 * MIB)


def mapped(disk, offset: int, size: int) -> int:
    """Bytes of this stretch that the disk says are mapped (GET LBA STATUS)."""
    block = disk.expected["block_size"]
    total, position, end = 0, offset, offset + size
    while position < end:
        said = subprocess.run(
            ["sg_get_lba_status", "--brief", f"--lba={position // block}", disk.generic],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        found = re.findall(r"^0x([0-9a-f]+) +0x([0-9a-f]+) +(\d+)", said, re.MULTILINE)
        assert found, said
        for lba, count, status in found:
            first, last = int(lba, 16) * block, (int(lba, 16) + int(count, 16)) * block
            if status == "0":
                total += max(0, min(last, end) - max(first, position))
        position = max(last, position + block)
    return total


def test_blkdiscard(disk, run):
    offset, size = BLKDISCARD
    if "from_host" in disk.expected:
        assert disk.read(offset, MIB) == pattern.data(disk.expected["from_host"]["seed"], 0, MIB // pattern.BLOCK)
        assert mapped(disk, offset, size) == size
    else:
        disk.write(offset, os.urandom(size))
    run("blkdiscard", "--offset", offset, "--length", size, disk.node)
    assert disk.read(offset, MIB) == bytes(MIB) and disk.read(offset + size - MIB, MIB) == bytes(MIB)
    assert mapped(disk, offset, size) == 0


def test_blkdiscard_zeroes(disk, run):
    offset = 64 * MIB
    disk.write(offset, os.urandom(2 * MIB))
    run("blkdiscard", "--zeroout", "--offset", offset, "--length", MIB, disk.node)
    assert disk.read(offset, MIB) == bytes(MIB)
    assert any(disk.read(offset + MIB, MIB))


@pytest.fixture
def mounted(disk, run, tmp_path):
    """ext4 in the stretch for fstrim, which mkfs has left as it was."""
    offset, size = FSTRIM
    run("parted", "--script", disk.node, "mklabel", "gpt", "mkpart", "lab", f"{offset}B", f"{offset + size - 1}B")
    settle()
    partition = f"{disk.node}1"
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", partition)
    folder = tmp_path / "mnt"
    folder.mkdir()
    run("mount", partition, folder)
    try:
        yield folder
    finally:
        run("umount", folder)
    run("e2fsck", "-f", "-n", partition)


def test_fstrim(disk, run, mounted):
    offset, size = FSTRIM
    file = mounted / "data"
    file.write_bytes(os.urandom(24 * MIB))
    run("sync")
    before = mapped(disk, offset, size)
    assert before >= 24 * MIB
    file.unlink()
    run("sync")
    said = run("fstrim", "--verbose", mounted)
    trimmed = int(re.search(r"\((\d+) bytes\)", said)[1])
    assert trimmed >= 24 * MIB, said
    assert mapped(disk, offset, size) <= before - 24 * MIB
