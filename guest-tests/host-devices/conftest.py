"""The real disks by target, each back in its place at the end of a test."""

from __future__ import annotations

import pytest
from hardware import DEVICES, RealDisk


@pytest.fixture(scope="module")
def real(experiment: dict) -> dict[int, RealDisk]:
    """The suite's disks, by target."""
    found = {}
    for expected in experiment["disks"]:
        (address,) = (path.name for path in DEVICES.glob(f"*:0:{expected['target']}:{expected['lun']}"))
        found[expected["target"]] = RealDisk(address, expected)
    return found


@pytest.fixture(autouse=True)
def all_there(real: dict[int, RealDisk]):
    """A test that failed half-way must not take the next ones with it."""
    yield
    for disk in real.values():
        if not disk.there:
            disk.put_back()
