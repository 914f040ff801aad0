"""What the tool cannot do on /dev/sg, shown on a disk that is not ours."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import tool
from test_1_scsi import CRASHES_ON_SG, TIMEOUT


@pytest.fixture
def foreign_disk():
    """A disk of the kernel's own scsi_debug: its /dev/sg node."""
    subprocess.run(["modprobe", "scsi_debug", "dev_size_mb=32", "lbpu=1"], check=True, timeout=60)
    try:
        subprocess.run(["udevadm", "settle", "--timeout=60"], check=True)
        yield _node()
        subprocess.run(["udevadm", "settle", "--timeout=60"], check=True)
    finally:
        subprocess.run(["modprobe", "-r", "scsi_debug"], timeout=60)


def _node() -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for unit in Path("/sys/bus/pseudo/drivers/scsi_debug").glob("adapter*/host*/target*/*:*:*:*"):
            for generic in (unit / "scsi_generic").glob("sg*"):
                return f"/dev/{generic.name}"
        time.sleep(0.2)  # the kernel scans in its own time
    raise AssertionError("scsi_debug shows no disk")


@pytest.mark.parametrize("name", sorted(CRASHES_ON_SG))
def test_the_tool_crashes_on_a_foreign_disk_too(foreign_disk, name):
    result = tool.run(name, foreign_disk, TIMEOUT)
    print(result.output)
    assert result.outcome == tool.CRASHED
    # The same disk is fine otherwise.
    assert tool.run("SCSI.TestUnitReady.Simple", foreign_disk, TIMEOUT).outcome == tool.PASSED
