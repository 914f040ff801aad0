"""What a unit's store fails with is told on the host, with its cause."""

from __future__ import annotations

import errno

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk
from hba.scsi.passthrough import PassThrough
from hba.scsi.sense import COPY_THIRD_PARTY_FAILURE
from hba.scsi.trouble import QUIET
from tests.scsi.test_copy import copy, segment, target
from tests.scsi.test_format_sanitize import BLOCK_ERASE, sanitize
from tests.scsi.test_passthrough import FakeDevice
from tests.scsi.util import Deferred, disk, make_task, read10, run, write10

FULL = StorageError("No space left on device", errno.ENOSPC)
BROKEN = StorageError("Input/output error", errno.EIO)


@pytest.fixture
def backend() -> Deferred:
    return Deferred(1 << 20, deferred=False)


@pytest.fixture
def unit(backend: Deferred) -> Disk:
    return disk(backend=backend)


@pytest.fixture
def told(unit: Disk) -> list[str]:
    """What those who watch the bus hear."""
    heard: list[str] = []
    bus = ScsiBus()
    bus.attach(3, 0, unit)
    bus.on_storage = lambda event, target, lun: heard.append(f"{target}:{lun} {event}")
    while run(unit, "00" * 6).status:
        pass
    return heard


def write(unit: Disk, backend: Deferred, error: StorageError | None) -> None:
    backend.fail_next = error
    assert run(unit, write10(0, 1), out=bytes(512)).status == (2 if error else 0)


def test_each_cause_is_told_once_in_a_while(unit: Disk, backend: Deferred, told: list[str]) -> None:
    write(unit, backend, FULL)
    assert told == ["3:0 error: No space left on device"]
    write(unit, backend, FULL)
    assert len(told) == 1
    write(unit, backend, BROKEN)
    assert told[1:] == ["3:0 error: Input/output error"]
    assert isinstance(unit.clock, VirtualClock)
    unit.clock.advance(QUIET)
    write(unit, backend, FULL)
    assert told[2:] == ["3:0 error: No space left on device"]


def test_and_kept_to_be_looked_at(unit: Disk, backend: Deferred, told: list[str]) -> None:
    assert (unit.describe()["storage_errors"], unit.describe()["latest_storage_error"]) == (0, None)
    write(unit, backend, FULL)
    write(unit, backend, BROKEN)
    write(unit, backend, None)
    shown = unit.describe()
    assert (shown["storage_errors"], shown["latest_storage_error"]) == (2, "Input/output error")
    assert (shown["write_errors"], shown["read_errors"]) == (2, 0)


def test_a_failed_flush_is_an_error_of_writing(unit: Disk, backend: Deferred, told: list[str]) -> None:
    backend.fail_next = BROKEN
    assert run(unit, "35" + "00" * 9).status == 2
    assert (unit.write_errors, unit.read_errors) == (1, 0)
    assert told == ["3:0 error: Input/output error"]


def test_what_is_the_guests_fault_is_not_told(unit: Disk, told: list[str]) -> None:
    assert run(unit, read10(1 << 20, 1), 512).status == 2
    assert told == [] and unit.describe()["storage_errors"] == 0


def test_a_store_that_has_gone_says_that_itself(unit: Disk, backend: Deferred, told: list[str]) -> None:
    write(unit, backend, StorageError("/dev/sdx has gone", errno.ENODEV))
    assert told == [] and unit.describe()["storage_errors"] == 0


def test_of_a_copy_too(unit: Disk, backend: Deferred, told: list[str]) -> None:
    """EXTENDED COPY tells the guest COPY ABORTED only."""
    backend.fail_next = BROKEN
    assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, 1)]).condition == COPY_THIRD_PARTY_FAILURE
    assert told == ["3:0 error: Input/output error"]


@pytest.mark.parametrize("flags", [0, 0x80], ids=["awaited", "immediate"])
def test_of_what_runs_in_the_background(unit: Disk, backend: Deferred, told: list[str], flags: int) -> None:
    backend.fail_next = FULL
    run(unit, sanitize(BLOCK_ERASE, flags=flags))
    assert isinstance(unit.clock, VirtualClock)
    unit.clock.advance(1)
    assert told == ["3:0 error: No space left on device"]


def test_of_a_device_that_is_passed_through() -> None:
    device = FakeDevice()
    unit = PassThrough(device, VirtualClock())
    heard: list[str] = []
    bus = ScsiBus()
    bus.attach(0, 0, unit)
    bus.on_storage = lambda event, target, lun: heard.append(event)
    unit.attentions.next(7)
    device.refuse = BROKEN
    assert unit.execute([make_task(read10(0, 1), 512)])
    assert heard == ["error: Input/output error"]
    assert unit.describe()["storage_errors"] == 1


def test_a_defect_in_what_the_host_wants_is_no_success(caplog: pytest.LogCaptureFixture) -> None:
    """`hba lun resize` said that it had."""

    class Broken(Deferred):
        def resize(self, size: int) -> None:
            raise OverflowError("too much")

    unit = disk(backend=Broken(1 << 20, deferred=False))
    ended: list[StorageError | None] = []
    unit.resize(2 << 20, ended.append)
    assert "internal error: OverflowError('too much')" in str(ended)
    assert "what the host wanted" in caplog.text
