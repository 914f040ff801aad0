"""The server itself runs inside the guest, on the guest's SCSI devices, which are pulled out and put back."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.guest.launching import Launch

pytestmark = pytest.mark.qemu


def test_pass_through_and_host_devices_on_a_real_kernel(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    launch = Launch(tmp_path, "--suite", "host-devices", "--junit", str(report))
    try:
        assert launch.wait(600) == 0, launch.said()
        assert launch.left_behind() == []
    finally:
        launch.close()
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    assert len(cases) >= 70
    assert not [case.get("name") for case in cases if case.find("skipped") is not None]
