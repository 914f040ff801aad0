"""Resets of every size: the disk is there afterwards, and its data too."""

from __future__ import annotations

import pytest
import sg
from adapter import settle

# What the kernel says when somebody asks for a reset.
ANNOUNCED = r"reset|Power-on or device reset occurred"


@pytest.mark.expects_kernel_messages(ANNOUNCED)
@pytest.mark.parametrize("kind", ["device", "bus", "host"])
def test_reset(adapters, disk, kind):
    if not all(kind in adapter.about["resets"] for adapter in adapters):
        pytest.skip(f"the driver has no {kind} reset")
    content = kind.encode().ljust(8) * 512
    disk.write(1 << 20, content)
    sg.run("sg_reset", f"--{kind}", "--no-escalate", disk.generic)
    settle()
    assert disk.read(1 << 20, 4096) == content
    disk.write(2 << 20, content)
    assert disk.read(2 << 20, 4096) == content
    sg.run("sg_turs", disk.generic)
