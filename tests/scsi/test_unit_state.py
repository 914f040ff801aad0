"""What a unit has in its head goes to another process whole; what comes back is checked."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from hba.clock import MS, VirtualClock
from hba.scsi import sense
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.sense import CheckCondition
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.unit_state import AnyUnitState
from hba.storage.memory import MemoryBackend
from tests.scsi.util import Deferred, disk, make_task, read10, run, settle, write10

TUR = "000000000000"
KEY = 0xFFFF_FFFF_FFFF_FFFE  # more than a signed number of 64 bits
CACHE_OFF = "15100000 18 00".replace(" ", "")
CACHING = bytes(4) + bytes((0x08, 0x12)) + bytes(18)  # WCE=0


def moved(source: DeviceServer, make: Callable[[], DeviceServer]) -> DeviceServer:
    """Another unit that has become `source`, by way of JSON."""
    text = msgspec.json.encode(source.save())
    target = make()
    state = msgspec.json.decode(text, type=AnyUnitState)
    target.check_saved(state)
    target.restore(state)
    assert msgspec.json.encode(target.save()) == text
    return target


def fresh() -> Disk:
    return disk(attentions=True)


def test_everything_of_a_disk() -> None:
    unit = disk(removable=True)
    settle(unit, 3)
    assert run(unit, CACHE_OFF, out=CACHING).status == 0
    register = bytes(8) + KEY.to_bytes(8, "big") + bytes(8)
    assert run(unit, "5f060000000000001800", out=register).status == 0
    assert run(unit, "5f010500000000001800", out=KEY.to_bytes(8, "big") + bytes(16)).status == 0
    assert run(unit, "3b0200000000000004" + "00", out=b"kept").status == 0
    assert run(unit, "3b0a00000000000004" + "00", out=b"echo").status == 0
    assert run(unit, "1d2000000000").status == 0
    assert run(unit, "a40f000000000000000c0000", out=bytes(4) + (5_000_000).to_bytes(6, "big") + bytes(2)).status == 0
    assert run(unit, "1e0000000100").status == 0  # PREVENT ALLOW MEDIUM REMOVAL
    unit.deferred = CheckCondition(sense.WRITE_ERROR, 77)
    unit.attention(sense.CAPACITY_DATA_HAS_CHANGED, but=7)
    unit.copy_results[7, 9] = (True, 3)
    assert isinstance(unit.clock, VirtualClock)
    unit.clock.advance(1000 * MS)

    other = moved(unit, lambda: disk(attentions=True, removable=True))
    settle_first = run(other, TUR)  # the deferred error, and no POWER ON OCCURRED
    assert settle_first.condition == sense.WRITE_ERROR and settle_first.sense[0] & 0x7F == 0x71
    assert run(other, TUR).status == 0
    # Initiator 3 has its own, in their order.
    pending = [run(other, TUR, initiator=3).condition for _ in range(3)]
    assert sense.CAPACITY_DATA_HAS_CHANGED in pending and sense.POWER_ON_OCCURRED not in pending
    assert other.write_through
    assert run(other, "5e000000000000001000", 16).data[8:] == KEY.to_bytes(8, "big")
    assert run(other, write10(0, 1), out=bytes(512), initiator=3).status == 0x18
    assert run(other, "3c0200000000000004" + "00", 4).data == b"kept"
    assert run(other, "3c0a00000000000004" + "00", 4).data == b"echo"
    assert int.from_bytes(run(other, "a30f000000000000000c0000", 12).data[4:10], "big") == 5_001_000
    assert other.locked_by == {7}
    assert len(other.self_tests) == 1
    assert other.copy_results == {(7, 9): (True, 3)}


def test_a_stopped_disk_stays_stopped() -> None:
    unit = disk()
    assert run(unit, "1b0000000000").status == 0
    other = moved(unit, fresh)
    assert run(other, read10(0, 1), 512).condition == sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED


def test_a_drive_with_its_tray_open() -> None:
    def drive() -> Cdrom:
        return Cdrom(MemoryBackend(1000 * 2048), Identity(), VirtualClock())

    unit = drive()
    settle(unit)
    assert run(unit, "1b0000000200").status == 0  # ejected by the guest
    unit.power_state = 3
    other = moved(unit, drive)
    assert isinstance(other, Cdrom)
    assert other.tray_open and other.power_state == 3
    assert run(other, TUR).condition == sense.NOT_READY_TRAY_OPEN
    assert run(other, "4a010000100000000800", 8).data[4] == 3  # MediaRemoval is still to be told


def test_the_lamps_of_an_enclosure() -> None:
    def enclosure() -> Enclosure:
        return Enclosure(Identity(), VirtualClock())

    unit = enclosure()
    unit.identify, unit.fault, unit.identify_enclosure = {1, 5}, {2}, True
    other = moved(unit, enclosure)
    assert isinstance(other, Enclosure)
    assert (other.identify, other.fault, other.identify_enclosure) == ({1, 5}, {2}, True)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (Cdrom(MemoryBackend(1 << 20), Identity(), VirtualClock()), "another type"),
        (Disk(MemoryBackend(1 << 20), Identity(serial="other"), VirtualClock()), "serial"),
        (disk(2 << 20), "same storage"),
        (disk(block_size=4096), "same storage"),
    ],
)
def test_the_state_of_another_unit_is_refused_with_the_cause(there: DeviceServer, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fresh().check_saved(there.save())


def test_a_page_that_no_mode_select_could_have_made() -> None:
    """Bits that cannot be changed are as they are here, whatever the state says."""
    unit = disk()
    state = unit.save()
    assert state.mode_pages["0a/00"]
    state.mode_pages["0a/00"] = b"\xff" * len(state.mode_pages["0a/00"])
    unit.restore(state)
    changeable = run(unit, "1a084a00ff00", 255).data[6:]
    current, default = run(unit, "1a080a00ff00", 255).data[6:], run(unit, "1a088a00ff00", 255).data[6:]
    assert all(not (now ^ was) & ~may & 0xFF for now, was, may in zip(current, default, changeable, strict=True))
    state.mode_pages["0a/00"] = b""
    with pytest.raises(ValueError, match="mode page"):
        unit.check_saved(state)
    del state.mode_pages["0a/00"]
    with pytest.raises(ValueError, match="one side only"):
        unit.check_saved(state)


@pytest.mark.parametrize(
    "change",
    [
        {"attentions": {"7": [1 << 24]}},
        {"attentions": {"256": []}},
        {"reservations": {"type": 2}},
        {"reservations": {"keys": {"7": 1 << 64}}},
        {"reservations": {"type": 3, "holder": 9}},
        {"deferred": {"condition": 1, "information": 1 << 64, "specific": ""}},
        {"self_tests": ["AA=="]},
        {"unknown": 1},
    ],
)
def test_fields_hold_what_they_may(change: dict[str, object]) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(disk().save()))
    for key, value in change.items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) and plain.get(key) else value
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(plain), type=AnyUnitState)


def test_a_unit_at_work_says_so() -> None:
    unit = disk(backend=Deferred(1 << 20))
    assert unit.idle
    unit.execute([make_task(write10(0, 1), out=bytes(512))])
    assert not unit.idle
    store = unit.backend
    assert isinstance(store, Deferred)
    store.finish_all()
    assert unit.idle and unit.unstable
    ended: list[object] = []
    unit.make_stable_now(ended.append)
    store.finish_all()
    assert ended == [None] and not unit.unstable


def test_what_goes_with_its_process_is_said_to() -> None:
    assert not disk().lasting
    assert disk(backend=Deferred(1 << 20)).lasting
    assert not disk(backend=Deferred(1 << 20), protection=True).lasting  # its tags are in memory
    assert Disk(None, Identity(), VirtualClock(), DiskOptions(removable=True)).lasting
