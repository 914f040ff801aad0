"""One pytest case for every test of the tool on every kind of disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tool
from adapter import Disk, find_adapters
from score import Score

EXPERIMENT = Path("/run/lab/experiment.json")


def kind_of(disk: Disk) -> str:
    """The name of a kind of disk, which is part of the case's name."""
    if disk.read_only:
        return "protected"
    return "removable" if disk.removable else "plain"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scsi_test" in metafunc.fixturenames:
        expected = json.loads(EXPERIMENT.read_text())["adapters"]
        kinds = dict.fromkeys(kind_of(disk) for adapter in find_adapters(expected) for disk in adapter.disks())
        # All tests of one disk, then the next: a case's name tells both.
        metafunc.parametrize(("kind", "scsi_test"), [(kind, test) for kind in kinds for test in tool.tests()])


@pytest.fixture(scope="session")
def score() -> Score:
    """What the tests so far came to."""
    return Score()


@pytest.fixture(scope="session")
def disks_by_kind(experiment: dict) -> dict[str, Disk]:
    """The first disk of each kind. Looked up once: no test here takes a disk away, and there are many tests."""
    found = [disk for adapter in find_adapters(experiment["adapters"]) for disk in adapter.disks()]
    return {kind_of(disk): disk for disk in reversed(found)}


@pytest.fixture
def disk(disks_by_kind: dict[str, Disk], kind: str) -> Disk:
    return disks_by_kind[kind]
