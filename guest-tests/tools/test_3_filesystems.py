"""parted, then each file system: made, filled, checked, and read back."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from adapter import settle

FIRST_MIB, LAST_MIB = 1, 513

MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
CHECK = {
    "ext4": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n"),
    "btrfs": ("btrfs", "check", "--readonly", "--check-data-csum"),
}


@pytest.fixture
def partition(disk, run):
    """A new partition for the file systems."""
    run("parted", "--script", disk.node, "mklabel", "gpt", "mkpart", "lab", f"{FIRST_MIB}MiB", f"{LAST_MIB}MiB")
    settle()
    node = f"{disk.node}1"
    assert Path(node).is_block_device(), f"the kernel shows no partition {node}"
    return node


@pytest.mark.parametrize("label", ["gpt", "msdos"])
def test_parted(disk, run, label):
    block = disk.expected["block_size"]
    name = ["lab"] if label == "gpt" else ["primary"]
    run("parted", "--script", disk.node, "mklabel", label, "mkpart", *name, "8MiB", "40MiB")
    settle()
    said = run("parted", "--script", "--machine", disk.node, "unit", "B", "print")
    disk_line, partition_line = said.splitlines()[1:3]
    assert disk_line.split(":")[1:5] == [f"{disk.expected['size']}B", "scsi", str(block), str(block)]
    assert partition_line.split(":")[1:4] == [f"{8 << 20}B", f"{(40 << 20) - 1}B", f"{32 << 20}B"]
    run("parted", "--script", disk.node, "align-check", "optimal", "1")
    run("parted", "--script", disk.node, "rm", "1")
    settle()
    assert not Path(f"{disk.node}1").exists()


@pytest.mark.parametrize("kind", sorted(MAKE))
def test_filesystem(partition, run, tmp_path, kind):
    run(*MAKE[kind], partition)
    folder = tmp_path / "mnt"
    folder.mkdir()
    sums = fill_mounted(run, partition, folder, kind)
    run(*CHECK[kind], partition)
    run("mount", "-o", "ro", partition, folder)
    try:
        found = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sums}
    finally:
        run("umount", folder)
    assert found == sums


def fill_mounted(run, partition, folder: Path, kind: str) -> dict[Path, str]:
    """Write files of many sizes, remove some, write over some; what the others must hold."""
    chance = random.Random(kind)
    sums = {}
    run("mount", partition, folder)
    try:
        for number in range(60):
            path = folder / f"folder{number % 7}" / f"file{number}"
            path.parent.mkdir(exist_ok=True)
            content = chance.randbytes(chance.choice((0, 100, 4096, 70_000, 900_000)))
            path.write_bytes(content)
            sums[path] = hashlib.sha256(content).hexdigest()
        for path in list(sums)[::3]:
            path.unlink()
            del sums[path]
        run("sync")
        for path in list(sums)[::4]:
            content = chance.randbytes(50_000)
            with path.open("r+b") as file:
                file.write(content)
            sums[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        run("fstrim", folder)
    finally:
        run("umount", folder)
    return sums
