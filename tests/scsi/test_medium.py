"""Media that come and go, grow and shrink, are locked and protected: by the guest and by the host."""

from __future__ import annotations

import pytest

from hba.scsi import sense
from hba.scsi.medium import MediumUnit
from hba.scsi.task import RESPONSE_ABORTED, Task
from hba.storage.memory import MemoryBackend
from tests.scsi.util import Deferred, disk, make_task, read10, run, settle, write10

TUR = "000000000000"
EJECT, LOAD, STOP, START = "1b0000000200", "1b0000000300", "1b0000000000", "1b0000000100"
LOCK, UNLOCK = "1e0000000100", "1e0000000000"


def test_the_guest_ejects_and_loads() -> None:
    unit = disk(removable=True)
    run(unit, write10(0, 1), out=b"m" * 512)
    settle(unit, 3)
    assert run(unit, EJECT).status == 0
    for cdb, room in ((TUR, 0), (read10(0, 1), 512), ("25", 8), ("35000000000000000000", 0)):
        assert run(unit, cdb, room).condition == sense.NOT_READY_TRAY_OPEN
    assert run(unit, "1a003f00ff00", 255).status == 0
    assert run(unit, LOAD).status == 0
    assert run(unit, read10(0, 1), 512).data == b"m" * 512
    assert run(unit, TUR, initiator=3).condition == sense.NOT_READY_TO_READY_CHANGE


def test_a_locked_medium_stays() -> None:
    unit = disk(removable=True)
    settle(unit, 7, 3)
    assert run(unit, LOCK).status == 0
    assert run(unit, LOCK, initiator=3).status == 0
    assert run(unit, EJECT).condition == sense.MEDIUM_REMOVAL_PREVENTED
    assert run(unit, UNLOCK).status == 0
    assert run(unit, EJECT).condition == sense.MEDIUM_REMOVAL_PREVENTED
    assert run(unit, UNLOCK, initiator=3).status == 0
    assert run(unit, EJECT).status == 0


def test_a_reset_unlocks() -> None:
    unit = disk(removable=True)
    run(unit, LOCK)
    unit.reset("lun")
    settle(unit)
    assert run(unit, EJECT).status == 0


def test_a_fixed_disk_stops_and_starts_but_does_not_eject() -> None:
    unit = disk()
    assert run(unit, EJECT).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, STOP).status == 0
    assert run(unit, TUR).condition == sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED
    assert run(unit, read10(0, 1), 512).condition == sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED
    assert run(unit, START).status == 0
    assert run(unit, read10(0, 1), 512).status == 0
    assert unit.starts == 2


def test_a_removable_one_answers_after_a_stop() -> None:
    unit = disk(removable=True)
    assert run(unit, STOP).status == 0
    assert run(unit, TUR).status == 0


# POWER CONDITION and the last of its modifiers (SBC-4, table of the START STOP UNIT command)
POWER = {0x1: 0, 0x2: 2, 0x3: 1, 0x7: 0, 0xA: 2, 0xB: 1}


@pytest.mark.parametrize("condition", range(1, 16))
def test_power_conditions_make_no_difference_and_reserved_ones_are_refused(condition: int) -> None:
    unit = disk(removable=True)
    for modifier in range(16):
        result = run(unit, f"1b0000{modifier:02x}{condition << 4 | 2:02x}00")
        if condition not in POWER:
            assert (result.condition, result.sense[15:18]) == (sense.INVALID_FIELD_IN_CDB, bytes((0xCF, 0, 4)))
        elif modifier > POWER[condition]:
            assert (result.condition, result.sense[15:18]) == (sense.INVALID_FIELD_IN_CDB, bytes((0xCB, 0, 3)))
        else:
            assert result.status == 0
    assert run(unit, TUR).status == 0


@pytest.mark.parametrize(("no_flush", "calls"), [(0, ["flush"]), (4, [])])
def test_stopping_flushes(no_flush: int, calls: list[str]) -> None:
    backend = Deferred(1 << 20, deferred=False)
    backend.unflushed = True
    unit = disk(backend=backend)
    run(unit, f"1b000000{no_flush:02x}00")
    assert [call[0] for call in backend.calls] == calls


def test_the_host_ejects_and_inserts() -> None:
    first, second = MemoryBackend(1 << 20), MemoryBackend(1 << 21)
    unit = disk(backend=first, removable=True)
    assert unit.eject() is first
    assert first.on_event is None
    assert run(unit, TUR).condition == sense.NOT_READY_TRAY_OPEN
    assert run(unit, LOAD).condition == sense.NOT_READY_MEDIUM_NOT_PRESENT
    assert run(unit, TUR).condition == sense.NOT_READY_MEDIUM_NOT_PRESENT
    unit.insert(second)
    assert run(unit, TUR).condition == sense.NOT_READY_TO_READY_CHANGE
    assert run(unit, "25", 8).data[:4] == bytes.fromhex("00000fff")
    with pytest.raises(ValueError, match="eject it first"):
        unit.insert(first)


def test_the_host_asks_for_a_locked_medium() -> None:
    unit = disk(removable=True)
    run(unit, LOCK)
    with pytest.raises(ValueError, match="locked"):
        unit.eject()
    assert run(unit, TUR).condition == sense.OPERATOR_MEDIUM_REMOVAL_REQUEST
    assert unit.eject(force=True) is not None
    assert not unit.locked_by


def pending(unit: MediumUnit) -> list[int]:
    return unit.attentions.pending(7)


def test_unit_attentions_about_a_medium_go_with_it() -> None:
    unit = disk(removable=True)
    run(unit, LOCK)
    with pytest.raises(ValueError, match="locked"):
        unit.eject()
    unit.resize(1 << 19)
    unit.set_read_only(True)
    assert pending(unit) == [
        sense.OPERATOR_MEDIUM_REMOVAL_REQUEST,
        sense.CAPACITY_DATA_HAS_CHANGED,
        sense.MODE_PARAMETERS_CHANGED,
    ]
    unit.eject(force=True)
    assert pending(unit) == [sense.MODE_PARAMETERS_CHANGED]  # which is about the unit
    unit.insert(MemoryBackend(1 << 21))
    assert pending(unit) == [sense.MODE_PARAMETERS_CHANGED, sense.NOT_READY_TO_READY_CHANGE]
    unit.eject()
    assert pending(unit) == [sense.MODE_PARAMETERS_CHANGED]


def test_a_wish_for_an_empty_unit_is_not_about_the_medium_that_comes() -> None:
    unit = disk(absent=True, removable=True)
    assert run(unit, LOCK).status == 0
    with pytest.raises(ValueError, match="locked"):
        unit.eject()
    unit.insert(MemoryBackend(1 << 20))
    assert pending(unit) == [sense.NOT_READY_TO_READY_CHANGE]


def test_a_guest_that_ejects_has_done_as_it_was_asked() -> None:
    unit = disk(removable=True)
    settle(unit, 3)
    run(unit, LOCK)
    with pytest.raises(ValueError, match="locked"):
        unit.eject()
    assert run(unit, TUR).condition == sense.OPERATOR_MEDIUM_REMOVAL_REQUEST
    run(unit, UNLOCK)
    assert run(unit, EJECT).status == 0
    assert unit.attentions.pending(3) == []


def test_ejecting_ends_what_runs() -> None:
    backend = Deferred(1 << 20)
    unit = disk(backend=backend, removable=True)
    task = make_task(read10(0, 1), 512)
    ended: list[Task] = []
    task.done = ended.append
    assert not unit.execute([task])
    unit.eject()
    assert ended == [task] and task.response == RESPONSE_ABORTED
    backend.finish_all()
    assert ended == [task]


def test_only_removable_media_move() -> None:
    unit = disk()
    with pytest.raises(ValueError, match="not removable"):
        unit.eject()
    with pytest.raises(ValueError, match="not removable"):
        unit.insert(MemoryBackend(512))


def test_starting_without_a_medium() -> None:
    unit = disk(absent=True, removable=True)
    assert run(unit, TUR).condition == sense.NOT_READY_MEDIUM_NOT_PRESENT
    assert run(unit, "1a003f00ff00", 255).status == 0
    assert run(unit, write10(0, 1), out=bytes(512)).condition == sense.NOT_READY_MEDIUM_NOT_PRESENT


@pytest.mark.parametrize("size", [1 << 19, 1 << 21])
def test_resizing(size: int) -> None:
    unit = disk()
    unit.resize(size)
    assert run(unit, TUR).condition == sense.CAPACITY_DATA_HAS_CHANGED
    assert int.from_bytes(run(unit, "25", 8).data[:4], "big") == size // 512 - 1
    assert run(unit, read10(size // 512 - 1, 1), 512).status == 0
    assert run(unit, read10(size // 512, 1), 512).condition == sense.LBA_OUT_OF_RANGE
    with pytest.raises(ValueError, match="multiple"):
        unit.resize(513)


def test_a_store_that_changes_by_itself() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    assert backend.on_event is not None
    backend.resize(1 << 21)
    backend.on_event("resized")
    assert run(unit, TUR).condition == sense.CAPACITY_DATA_HAS_CHANGED
    backend.on_event("gone")
    assert run(unit, read10(0, 1), 512).condition == sense.NOT_READY_CAUSE_NOT_REPORTABLE
    backend.on_event("back")
    assert run(unit, TUR).condition == sense.NOT_READY_TO_READY_CHANGE
    assert run(unit, read10(4095, 1), 512).status == 0


def test_write_protecting_a_running_disk() -> None:
    unit = disk()
    unit.set_read_only(True)
    assert run(unit, TUR).condition == sense.MODE_PARAMETERS_CHANGED
    assert run(unit, write10(0, 1), out=bytes(512)).condition == sense.WRITE_PROTECTED
    assert run(unit, "1a003f00ff00", 255).data[2] & 0x80
    unit.set_read_only(True)
    assert run(unit, TUR).status == 0
    unit.set_read_only(False)
    settle(unit)
    assert run(unit, write10(0, 1), out=bytes(512)).status == 0


def test_a_read_only_store_protects_the_disk() -> None:
    unit = disk(backend=MemoryBackend(1 << 20, read_only=True))
    assert run(unit, write10(0, 1), out=bytes(512)).condition == sense.WRITE_PROTECTED


def test_closing_closes_the_store() -> None:
    backend = Deferred(1 << 20)
    unit = disk(backend=backend)
    unit.close()
    assert backend.closed


@pytest.mark.parametrize("removable", [True, False])
def test_describe_is_plain(removable: bool) -> None:
    import json

    unit = disk(removable=removable)
    text = json.dumps(unit.describe())
    assert '"medium": "ready"' in text
    if removable:
        unit.eject()
        assert unit.describe()["medium"] == "ejected"
