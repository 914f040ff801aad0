"""Every test runs on every disk of the experiment."""

from __future__ import annotations

import json
import subprocess
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
def run():
    """Run a program that must succeed; what it says."""

    def call(*command: object) -> str:
        words = list(map(str, command))
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{said}"
        return said

    return call
