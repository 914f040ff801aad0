"""A made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.storage import sysfs
from hba.storage.sysfs import Limits

NODE = Path("/dev/null").stat()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk's folder."""
    disk = tmp_path / "block" / "sda"
    (disk / "device").mkdir(parents=True)
    monkeypatch.setattr(sysfs, "folder", lambda node: disk)
    return disk


def test_the_folder_is_found_by_number() -> None:
    assert str(sysfs.folder(NODE)) == "/sys/dev/char/1:3"


@pytest.mark.parametrize("name", ["device/wwid", "wwid", "serial", "device/serial"])
def test_who_it_is(device: Path, name: str) -> None:
    assert sysfs.identity(NODE) == ""
    (device / name).write_text("naa.5000\n")
    assert sysfs.identity(NODE) == "naa.5000"


def test_a_partition_is_its_disks(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (device / "device" / "wwid").write_text("naa.5000\n")
    (device / "sda1").mkdir()
    monkeypatch.setattr(sysfs, "folder", lambda node: device / "sda1")
    assert sysfs.identity(NODE) == "naa.5000"
    assert sysfs.is_there(NODE)
    (device / "device" / "state").write_text("cancel\n")
    assert not sysfs.is_there(NODE)


def test_whether_it_is_there(device: Path) -> None:
    assert sysfs.is_there(NODE)
    for state, there in (("running", True), ("offline", True), ("cancel", False), ("deleted", False)):
        (device / "device" / "state").write_text(f"{state}\n")
        assert sysfs.is_there(NODE) is there
    (device / "device" / "state").unlink()
    (device / "device").rmdir()
    device.rmdir()
    assert not sysfs.is_there(NODE)


def test_a_scsi_device_without_a_state_is_half_removed(device: Path) -> None:
    """The kernel takes the state away first, and the nodes, long after it, last."""
    (device / "device").rmdir()
    scsi = device.parent / "2:0:1:0"
    scsi.mkdir()
    (device / "device").symlink_to(scsi)
    assert not sysfs.is_there(NODE)
    (scsi / "state").write_text("running\n")
    assert sysfs.is_there(NODE)


@pytest.mark.parametrize("where", ["queue", "device/block/sda/queue"])
def test_what_it_takes(device: Path, where: str) -> None:
    assert sysfs.limits(NODE) == Limits(0, 0)
    (device / where).mkdir(parents=True)
    for name, value in (("max_hw_sectors_kb", 32767), ("max_segments", 128), ("logical_block_size", 512)):
        (device / where / name).write_text(f"{value}\n")
    assert sysfs.limits(NODE) == Limits(127 * 4096, 512)
    (device / where / "max_hw_sectors_kb").write_text("256\n")
    assert sysfs.limits(NODE) == Limits(256 * 1024, 512)
