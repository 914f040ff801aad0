"""Every test runs on every disk of the experiment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapter import Disk

EXPERIMENT = Path("/run/lab/experiment.json")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "disk" in metafunc.fixturenames:
        units = json.loads(EXPERIMENT.read_text())["disks"]
        names = [f"{unit['block_size']}-byte blocks" for unit in units]
        metafunc.parametrize("disk", range(len(units)), ids=names, indirect=True)


@pytest.fixture
def disk(request: pytest.FixtureRequest, disks: list[Disk]) -> Disk:
    return disks[request.param]


@pytest.fixture
def blocks(disk: Disk) -> int:
    """How many blocks the disk has."""
    return disk.expected["size"] // disk.expected["block_size"]
