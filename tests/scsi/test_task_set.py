"""The order of tasks, aborting and resetting them, and unit attentions."""

from __future__ import annotations

import os

import pytest

from hba.scsi import sense
from hba.scsi.bus import REPORT_LUNS_WELL_KNOWN, ScsiBus
from hba.scsi.disk.disk import Disk
from hba.scsi.medium import SETTLE
from hba.scsi.task import (
    ACA,
    HEAD_OF_QUEUE,
    ORDERED,
    RESPONSE_ABORTED,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    SIMPLE,
    Task,
)
from hba.storage.memory import MemoryBackend
from tests.scsi.util import Deferred, disk, make_task, read10, run, settle, write10

TUR = "000000000000"


class Started:
    """Tasks at a unit whose back end answers when told."""

    def __init__(self) -> None:
        self.backend = Deferred(1 << 20)
        self.unit: Disk = disk(backend=self.backend)
        self.ended: list[Task] = []

    def start(self, cdb: str, attribute: int = SIMPLE, out: bytes | None = None, room: int = 512) -> Task:
        task = make_task(cdb, 0 if out is not None else room, out, attribute=attribute)
        task.done = self.ended.append
        if self.unit.execute([task]):
            self.ended.append(task)
        return task

    @property
    def at_store(self) -> list[int]:
        """LBAs of the calls the back end has been given, so far."""
        return [call[1] // 512 for call in self.backend.calls]


@pytest.fixture
def tasks() -> Started:
    return Started()


def test_simple_tasks_run_together(tasks: Started) -> None:
    for lba in range(3):
        tasks.start(read10(lba, 1))
    assert tasks.at_store == [0, 1, 2]


def test_an_ordered_task_waits_for_the_older_and_stops_the_younger(tasks: Started) -> None:
    tasks.start(read10(0, 1))
    tasks.start(read10(1, 1), ORDERED)
    tasks.start(read10(2, 1))
    tasks.start(read10(3, 1))
    assert tasks.at_store == [0]
    tasks.backend.finish()
    assert tasks.at_store == [0, 1]
    tasks.backend.finish()
    assert tasks.at_store == [0, 1, 2, 3]
    tasks.backend.finish_all()
    assert len(tasks.ended) == 4
    assert not tasks.unit._special


def test_two_ordered_tasks_keep_their_order(tasks: Started) -> None:
    for lba in range(3):
        tasks.start(read10(lba, 1), ORDERED)
    for count in range(1, 4):
        assert tasks.at_store == list(range(count))
        tasks.backend.finish()


def test_head_of_queue_passes_what_waits(tasks: Started) -> None:
    tasks.start(read10(0, 1))
    tasks.start(read10(1, 1), ORDERED)
    tasks.start(read10(2, 1), HEAD_OF_QUEUE)
    assert tasks.at_store == [0, 2]


def test_aca_is_refused(tasks: Started) -> None:
    task = tasks.start(read10(0, 1), ACA)
    assert sense.condition_of(task.sense) == sense.INVALID_MESSAGE_ERROR


def test_compare_and_write_lets_nothing_in_between(tasks: Started) -> None:
    tasks.start(read10(9, 1))
    caw = tasks.start("8900" + "00" * 8 + "00000001" + "0000", out=bytes(512) + b"n" * 512)
    other = tasks.start(write10(0, 1), out=b"o" * 512)
    assert [call[0] for call in tasks.backend.calls] == ["read"]
    tasks.backend.finish()
    assert [call[0] for call in tasks.backend.calls] == ["read", "read"]
    tasks.backend.finish()
    assert [call[0] for call in tasks.backend.calls] == ["read", "read", "write"]
    tasks.backend.finish()
    assert caw in tasks.ended and other not in tasks.ended
    tasks.backend.finish()
    assert other in tasks.ended
    assert os.pread(tasks.backend.memory._fd, 512, 0) == b"o" * 512


def test_abort_ends_a_task_once(tasks: Started) -> None:
    task = tasks.start(read10(0, 1))
    assert tasks.unit.abort(task)
    assert tasks.ended == [task]
    assert (task.response, task.transferred, task.aborted) == (RESPONSE_ABORTED, 0, True)
    assert not tasks.unit.abort(task)
    tasks.backend.finish_all()
    assert tasks.ended == [task]


def test_aborting_a_barrier_lets_the_others_go(tasks: Started) -> None:
    tasks.start(read10(0, 1))
    ordered = tasks.start(read10(1, 1), ORDERED)
    tasks.start(read10(2, 1))
    assert tasks.unit.abort(ordered)
    assert tasks.at_store == [0, 2]


def test_aborting_between_the_steps_of_a_command_stops_it(tasks: Started) -> None:
    task = tasks.start("8900" + "00" * 8 + "00000001" + "0000", out=bytes(512) + b"n" * 512)
    assert tasks.unit.abort(task)
    tasks.backend.finish_all()
    assert [call[0] for call in tasks.backend.calls] == ["read"]
    assert tasks.ended == [task]


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        ("bus", sense.BUS_RESET_OCCURRED),
        ("target", sense.BUS_DEVICE_RESET_OCCURRED),
        ("lun", sense.BUS_DEVICE_RESET_OCCURRED),
        ("power-on", sense.POWER_ON_OCCURRED),
    ],
)
def test_a_reset_ends_all_tasks_and_is_an_attention(tasks: Started, kind: str, condition: int) -> None:
    running = tasks.start(read10(0, 1))
    waiting = tasks.start(read10(1, 1), ORDERED)
    tasks.unit.reset(kind)
    assert set(tasks.ended) == {running, waiting}
    assert {task.response for task in tasks.ended} == {RESPONSE_RESET}
    assert run(tasks.unit, TUR).condition == condition
    assert run(tasks.unit, TUR).status == 0


@pytest.mark.parametrize("options", [{}, {"protection": True}])
@pytest.mark.parametrize(("kind", "forgets"), [("power-on", True), ("bus", False), ("lun", False)])
def test_only_power_on_makes_the_store_forget_what_was_lost(kind: str, forgets: bool, options: dict[str, bool]) -> None:
    store = MemoryBackend(1 << 20)
    unit = disk(backend=store, **options)
    store._lost = True
    unit.reset(kind)
    assert store._lost is not forgets


# -- unit attentions ------------------------------------------------------------------------------------------------


def test_power_on_is_reported_once_to_every_initiator() -> None:
    unit = disk(attentions=True)
    assert run(unit, TUR).condition == sense.POWER_ON_OCCURRED
    assert run(unit, TUR).status == 0
    assert run(unit, TUR, initiator=3).condition == sense.POWER_ON_OCCURRED
    assert run(unit, TUR, initiator=3).status == 0


def test_inquiry_and_report_luns_run_and_leave_it_pending() -> None:
    unit = disk(attentions=True)
    assert run(unit, "120000002400", 36).status == 0
    assert run(unit, "a0" + "00" * 5 + "000000100000", 16).status == 0
    assert run(unit, TUR).condition == sense.POWER_ON_OCCURRED


def test_request_sense_takes_it() -> None:
    unit = disk(attentions=True)
    assert sense.condition_of(run(unit, "030000001200", 18).data) == sense.POWER_ON_OCCURRED
    assert sense.condition_of(run(unit, "030000001200", 18).data) == 0
    assert run(unit, "030100001200", 18).data[0] == 0x72


def test_several_are_queued_and_resets_come_first() -> None:
    unit = disk()
    unit.attention(sense.CAPACITY_DATA_HAS_CHANGED)
    unit.attention(sense.CAPACITY_DATA_HAS_CHANGED)
    unit.attention(sense.BUS_RESET_OCCURRED)
    found = [run(unit, TUR).condition for _ in range(3)]
    assert found == [sense.BUS_RESET_OCCURRED, sense.CAPACITY_DATA_HAS_CHANGED, 0]


def test_an_attention_takes_the_fast_path_away_and_gives_it_back() -> None:
    unit = disk()
    unit.attention(sense.CAPACITY_DATA_HAS_CHANGED)
    assert run(unit, read10(0, 1), 512).condition == sense.CAPACITY_DATA_HAS_CHANGED
    assert run(unit, read10(0, 1), 512).status == 0
    assert not unit._special


# -- the bus --------------------------------------------------------------------------------------------------------


def test_units_are_found_by_address() -> None:
    bus = ScsiBus()
    bus.attach(0, 0, disk())
    bus.attach(0, 5, disk())
    task = make_task("a0" + "00" * 5 + "000001000000", 256)
    assert bus.execute(0, 5, [task])
    assert task.data is not None
    assert task.data.read(0, task.transferred) == bytes.fromhex("00000010" + "00" * 4 + "00" * 8 + "0005" + "00" * 6)
    nobody = make_task(TUR)
    assert bus.execute(1, 0, [nobody]) and nobody.response == RESPONSE_NO_TARGET


def test_a_lun_that_is_not_there() -> None:
    bus = ScsiBus()
    bus.attach(0, 0, disk())

    def ask(cdb: str, room: int = 0) -> Task:
        task = make_task(cdb, room)
        assert bus.execute(0, 3, [task])
        return task

    inquiry = ask("120000002400", 36)
    assert inquiry.data is not None and inquiry.data.read(0, 1) == b"\x7f" and inquiry.transferred == 36
    assert sense.condition_of(ask(TUR).sense) == sense.LOGICAL_UNIT_NOT_SUPPORTED
    requested = ask("030000001200", 18)
    assert requested.data is not None
    assert sense.condition_of(requested.data.read()) == sense.LOGICAL_UNIT_NOT_SUPPORTED
    luns = ask("a0" + "00" * 5 + "000001000000", 256)
    assert (luns.status, luns.transferred) == (0, 16)
    assert sense.condition_of(ask("120100002400", 36).sense) == sense.LOGICAL_UNIT_NOT_SUPPORTED


def test_report_luns_selects() -> None:
    unit = disk()
    well_known = bytes.fromhex("c101000000000000")
    assert run(unit, "a0000100000000000100", 256).data[8:] == well_known
    assert run(unit, "a0000200000000000100", 256).data[8:] == bytes(8) + well_known
    assert run(unit, "a0000300000000000100", 256).condition == sense.INVALID_FIELD_IN_CDB


def test_attach_and_detach_tell_the_other_luns_and_end_tasks() -> None:
    bus = ScsiBus()
    first, backend = disk(), Deferred(1 << 20)
    bus.attach(0, 0, first)
    changes: list[tuple[str, int, int]] = []
    bus.on_change = lambda what, target, lun, known: changes.append((what, target, lun))
    second = disk(backend=backend)
    bus.attach(0, 1, second)
    assert run(first, TUR).condition == sense.REPORTED_LUNS_DATA_HAS_CHANGED
    task = make_task(read10(0, 1), 512)
    ended: list[Task] = []
    task.done = ended.append
    assert not bus.execute(0, 1, [task])
    assert bus.detach(0, 1) is second
    assert ended == [task] and task.response == RESPONSE_NO_TARGET
    # REPORT LUNS is what the attention is about, so it takes it
    assert run(first, "a0" + "00" * 5 + "000001000000", 256).status == 0
    assert run(first, TUR).status == 0
    assert changes == [("added", 0, 1), ("removed", 0, 1)]


def test_one_report_luns_is_enough_for_all_units_of_a_target() -> None:
    """SPC-3 REPORT LUNS: it clears the unit attention of every unit of the target, for that initiator."""
    bus = ScsiBus()
    units = [disk() for _ in range(4)]
    for lun, unit in enumerate(units):
        settle(unit, 7, 3)
        bus.attach(0, lun, unit)
    bus.attach(1, 0, disk())
    other = bus.units[1][0]
    bus.attach(1, 1, disk())
    for unit in units[:3]:
        assert unit.attentions.pending(7) == [sense.REPORTED_LUNS_DATA_HAS_CHANGED]  # of several, one
    assert run(units[1], "a0" + "00" * 5 + "000001000000", 256).data[:4] == (4 * 8).to_bytes(4, "big")
    for unit in units:
        assert run(unit, TUR).status == 0
    assert run(units[0], TUR, initiator=3).condition == sense.REPORTED_LUNS_DATA_HAS_CHANGED
    assert run(other, TUR).condition == sense.REPORTED_LUNS_DATA_HAS_CHANGED  # another target's


def test_a_unit_under_an_address_that_was_used_knows_nothing_of_the_one_before() -> None:
    bus = ScsiBus()
    first = disk(removable=True)
    bus.attach(4, 0, first)
    run(first, "1e0000000100")
    first.luns_changed()
    bus.withdraw(4, 0)
    bus.restore(4, 0)
    assert first.attentions.pending(7) == [sense.POWER_ON_OCCURRED]
    assert not first.locked_by
    bus.detach(4, 0)
    second = disk(attentions=True)
    bus.attach(4, 0, second)
    assert run(second, TUR).condition == sense.POWER_ON_OCCURRED
    assert run(second, TUR).status == 0


def test_bus_task_management() -> None:
    bus = ScsiBus()
    backend = Deferred(1 << 20)
    unit = disk(backend=backend)
    bus.attach(2, 0, unit)
    assert not bus.reset_unit(2, 1)
    assert not bus.reset_target(3)
    task = make_task(read10(0, 1), 512)
    assert not bus.execute(2, 0, [task])
    assert bus.abort(task) and not bus.abort(task)
    settle(unit)
    assert bus.reset_unit(2, 0) and bus.reset_target(2)
    bus.reset_bus()
    assert run(unit, TUR).condition == sense.BUS_RESET_OCCURRED


def test_the_report_luns_well_known_unit() -> None:
    bus = ScsiBus()
    bus.attach(0, 0, disk())

    def ask(cdb: str, room: int = 0) -> Task:
        task = make_task(cdb, room)
        assert bus.execute(0, REPORT_LUNS_WELL_KNOWN, [task])
        return task

    inquiry = ask("120000002400", 36)
    assert inquiry.data is not None and inquiry.data.read(0, 1) == b"\x1e"
    luns = ask("a0000200000000000100", 256)
    assert luns.data is not None and luns.transferred == 24
    assert ask(TUR).status == 0
    assert ask("030000001200", 18).transferred == 18
    assert sense.condition_of(ask(read10(0, 1), 512).sense) == sense.INVALID_COMMAND_OPERATION_CODE
    assert sense.condition_of(ask("120180002400", 36).sense) == sense.INVALID_FIELD_IN_CDB


COMPARE_AND_WRITE = "89" + "00" * 12 + "010000"


class Recording(Deferred):
    """Says when it is asked to settle, and whether it can."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(1 << 20)
        self.said = said
        self.hangs = False
        self.patience: list[float] = []

    def settle(self, timeout: float) -> bool:
        self.said.append("settled")
        self.patience.append(timeout)
        return not self.hangs


@pytest.mark.parametrize("how", ["abort", "reset"])
@pytest.mark.parametrize(
    "cdb", [read10(0, 1), write10(0, 1), "89" + "00" * 12 + "010000"], ids=["read", "write", "steps"]
)
def test_the_store_settles_before_an_aborted_task_ends(how: str, cdb: str) -> None:
    """The guest takes the task's memory back as soon as it has ended."""
    said: list[str] = []
    unit = disk(backend=Recording(said))
    reading = cdb.startswith("28")
    task = make_task(cdb, 512) if reading else make_task(cdb, out=bytes(1024 if cdb.startswith("89") else 512))
    task.done = lambda task: said.append("ended")
    assert not unit.execute([task])
    if how == "abort":
        assert unit.abort(task)
    else:
        unit.reset("lun")
    assert said == ["settled", "ended"]


def test_nothing_under_way_needs_no_settling() -> None:
    said: list[str] = []
    unit = disk(backend=Recording(said))
    unit.reset("lun")
    assert said == []


def test_a_store_that_hangs_is_waited_for_once_and_told() -> None:
    said: list[str] = []
    store = Recording(said)
    unit = disk(backend=store)
    store.hangs = True
    tasks = [make_task(read10(0, 1), 512) for _ in range(3)]
    for task in tasks:
        assert not unit.execute([task])
    assert unit.abort(tasks[0]) and unit.abort(tasks[1])
    assert store.patience == [SETTLE, 0]
    assert unit.describe()["storage_errors"] == 1
    assert "a call hangs" in str(unit.describe()["latest_storage_error"])
    store.hangs = False
    assert unit.abort(tasks[2])
    assert not unit.execute([tasks[2]])
    assert unit.abort(tasks[2])
    assert store.patience == [SETTLE, 0, 0, SETTLE]
