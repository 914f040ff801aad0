"""A partition and a file system on it, used through the page cache."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

import pytest
from adapter import settle

FIRST_MIB, LAST_MIB = 48, 62


def run(*command: str) -> str:
    """Run a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def partition(writable):
    """The first partition of the first disk, new."""
    disk = writable[0]
    run("parted", "--script", disk.node, "mklabel", "gpt", "mkpart", "lab", f"{FIRST_MIB}MiB", f"{LAST_MIB}MiB")
    settle()
    node = f"{disk.node}1"
    assert Path(node).is_block_device(), f"the kernel shows no partition {node}"
    return node


def test_ext4_keeps_what_it_is_given(partition, tmp_path):
    run("mkfs.ext4", "-q", "-F", partition)
    mount = tmp_path / "mnt"
    mount.mkdir()
    chance = random.Random(5)
    sums = {}
    run("mount", partition, str(mount))
    try:
        for number in range(40):
            path = mount / f"folder{number % 4}" / f"file{number}"
            path.parent.mkdir(exist_ok=True)
            content = chance.randbytes(chance.randrange(200_000))
            path.write_bytes(content)
            sums[path] = hashlib.sha256(content).hexdigest()
        for path in list(sums)[::3]:
            path.unlink()
            del sums[path]
    finally:
        run("umount", str(mount))
    run("e2fsck", "-f", "-n", partition)
    # Mounted anew, everything comes from the disk again.
    run("mount", "-o", "ro", partition, str(mount))
    try:
        found = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sums}
    finally:
        run("umount", str(mount))
    assert found == sums
