"""What one side writes, the other finds byte for byte. The host's half is in hba/lab/suite.py."""

from __future__ import annotations

import pattern
import pytest


def test_what_the_host_wrote_is_read_here(disks):
    checked = 0
    for disk in disks:
        where = disk.expected.get("from_host")
        if where is not None:
            found = disk.read(where["offset"], where["size"])
            wrong = pattern.first_difference(found, where["seed"], 0)
            assert wrong is None, f"{disk}: byte {where['offset'] + wrong} is not what the host wrote"
            checked += 1
    if not checked:
        pytest.skip("no disk is a raw file of the host")


def test_write_for_the_host_to_find(writable):
    for disk in writable:
        where = disk.expected["from_guest"]
        data = pattern.data(where["seed"], 0, where["size"] // pattern.BLOCK)
        disk.write(where["offset"], data)
        assert disk.read(where["offset"], where["size"]) == data, disk
