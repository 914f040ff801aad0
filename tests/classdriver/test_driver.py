"""The class driver above a port of each model, with a miniport the test scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hba.classdriver import commands
from hba.classdriver.driver import START_UNIT, ClassDriver
from hba.classdriver.errors import NO_DISCONNECT_AFTER, UNTAGGED_AFTER
from hba.classdriver.options import ClassDriverOptions
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.scsi.sense import (
    CAPACITY_DATA_HAS_CHANGED,
    NOT_READY_BECOMING_READY,
    NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    POWER_ON_OCCURRED,
    UNRECOVERED_READ_ERROR,
    fixed_sense,
)
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SRB_FLAGS_ADAPTER_CACHE_ENABLE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_ERROR,
    SRB_STATUS_PARITY_ERROR,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    SRB_STATUS_TIMEOUT,
    Srb,
)
from tests.port.fakes import READ, TAGGED, TEST_UNIT_READY, WRITE, FakeMiniport, Rig

TAGGED_FLAGS = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE | SRB_FLAGS_ADAPTER_CACHE_ENABLE
Make = Callable[..., Any]


class Driven(Rig):
    """A port with a class driver on it; what `Rig` submits goes to the class driver."""

    def __init__(self, model: str, **options: Any) -> None:
        storport = model == "storport"
        config = StorPortConfig(auto_release=False) if storport else ScsiPortConfig(auto_release=False)
        info = {"synchronization_model": 1, "maximum_transfer_length": 1 << 20} if storport else {}
        super().__init__(FakeMiniport("" if storport else "lu", **TAGGED, **info), config, model)
        options.setdefault("enumerate", False)
        self.below = self.port
        self.port = self.driver = ClassDriver(self.loop, self.below, ClassDriverOptions(enabled=True, **options))

    def fail(self, condition: int, srb: Srb | None = None) -> None:
        """The hardware ends a request with CHECK CONDITION and sense data."""
        self.finish(
            srb,
            SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID,
            scsi_status=SCSISTAT_CHECK_CONDITION,
            sense_info_buffer=fixed_sense(condition),
            data_transfer_length=0,
        )
        self.loop.run_once(0)

    def started(self) -> list[Srb]:
        """Everything the miniport was given so far."""
        return [self.real(srb) for srb in self.miniport.started]


@pytest.fixture(params=["scsiport", "storport"])
def driven(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Driven] = []

    def make(**options: Any) -> Driven:
        made.append(Driven(request.param, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def test_a_read_gets_what_disk_sys_gives_it(driven: Make) -> None:
    rig = driven(time_out_value=30)
    read = bytes((0x28, 0, 0, 1, 0, 2, 0, 0, 8, 0))
    srb = rig.command(cdb=read)
    assert (srb.queue_sort_key, srb.time_out_value) == (0x10002, 30)
    assert srb.srb_flags == TAGGED_FLAGS | SRB_FLAGS_DATA_IN
    rig.finish()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS


def test_a_write_through_does_not_go_to_the_cache(driven: Make) -> None:
    rig = driven()
    srb = rig.command(cdb=bytes((0x2A, 8, 0, 0, 0, 0, 0, 0, 1, 0)))
    assert srb.srb_flags == SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE | SRB_FLAGS_DATA_OUT


def test_other_commands_are_untagged_unless_the_guest_wants_an_order(driven: Make) -> None:
    rig = driven()
    plain = rig.command(cdb=TEST_UNIT_READY, size=0)
    ordered = rig.command(cdb=TEST_UNIT_READY, size=0, queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST)
    assert plain.srb_flags == SRB_FLAGS_DISABLE_SYNCH_TRANSFER | SRB_FLAGS_NO_QUEUE_FREEZE
    assert ordered.srb_flags == plain.srb_flags | SRB_FLAGS_QUEUE_ACTION_ENABLE


@pytest.mark.parametrize(
    ("cdb", "key", "seconds"),
    [
        ("080123450100", 0x012345, 60),  # READ(6): 21 bits
        ("08ffffff0100", 0x1FFFFF, 60),
        ("88000000000100000002" + "00000001" + "0000", 0xFFFFFFFF, 60),  # beyond 32 bits
        ("2f0000000010000101" + "00", 16, 180),  # VERIFY(10) of 257 blocks: three times 128
        ("35" + "00" * 9, 0, 240),
        ("1b0000000100", 0, 240),
        ("12000000ff00", 0, 60),
    ],
)
def test_sort_keys_and_time_outs_by_command(cdb: str, key: int, seconds: int) -> None:
    data = bytes.fromhex(cdb)
    command = commands.known(data)
    assert (commands.sort_key(data, command), commands.time_out(data, command, 60)) == (key, seconds)


def test_no_cdb_at_all() -> None:
    command = commands.known(b"")
    assert (commands.sort_key(b"", command), commands.time_out(b"", command, 60)) == (0, 60)


def test_what_a_reset_did_is_settled_here(driven: Make) -> None:
    rig = driven()
    srb = rig.command()
    rig.fail(POWER_ON_OCCURRED)
    assert rig.done == [] and len(rig.started()) == 2 and rig.started()[1] is srb
    assert (srb.data_transfer_length, bytes(srb.sense_info_buffer)) == (512, b"")
    rig.finish()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("condition", [CAPACITY_DATA_HAS_CHANGED, UNRECOVERED_READ_ERROR])
def test_what_the_guest_has_to_know_goes_up(driven: Make, condition: int) -> None:
    rig = driven()
    srb = rig.command()
    rig.fail(condition)
    assert rig.done == [srb] and srb.srb_status & ~SRB_STATUS_QUEUE_FROZEN == 0x84
    assert bytes(srb.sense_info_buffer) == fixed_sense(condition)


def test_not_ready_is_tried_after_ten_seconds(driven: Make) -> None:
    rig = driven()
    rig.command()
    rig.fail(NOT_READY_BECOMING_READY)
    rig.seconds(9)
    assert len(rig.started()) == 1
    rig.seconds(1)
    assert len(rig.started()) == 2


def test_a_unit_that_wants_to_be_started_is(driven: Make) -> None:
    rig = driven()
    read = rig.command()
    rig.fail(NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    assert [srb.cdb for srb in rig.started()] == [READ, START_UNIT]
    rig.finish()
    assert rig.started()[2] is read


def test_and_is_not_when_that_is_switched_off(driven: Make) -> None:
    rig = driven(start_units=False)
    read = rig.command()
    rig.fail(NOT_READY_INITIALIZING_COMMAND_REQUIRED)
    assert rig.done == [read] and len(rig.started()) == 1


def test_a_time_out_is_tried_so_often_and_no_more(driven: Make) -> None:
    rig = driven(retries=2)
    srb = rig.command()
    for _ in range(2):
        rig.finish(status=SRB_STATUS_TIMEOUT)
        rig.loop.run_once(0)
        assert rig.done == []
        rig.seconds(1)
    rig.finish(status=SRB_STATUS_TIMEOUT)
    rig.loop.run_once(0)
    assert rig.done == [srb] and len(rig.started()) == 3
    assert rig.driver.counters["retries"] == 2 and rig.driver.counters["retries exhausted"] == 1


def test_what_the_port_has_failed_for_the_bus_is_not_tried_again(driven: Make) -> None:
    rig = driven()
    srb = rig.command()
    rig.finish(status=SRB_STATUS_PARITY_ERROR)
    rig.loop.run_once(0)
    assert rig.done == [srb] and len(rig.started()) == 1


def test_after_some_errors_less_is_asked_of_a_unit_and_frozen_queues_are_released(driven: Make) -> None:
    rig = driven(retries=NO_DISCONNECT_AFTER + 1)
    srb = rig.command()
    flags = []
    for _ in range(NO_DISCONNECT_AFTER):
        rig.finish(status=SRB_STATUS_TIMEOUT)
        rig.loop.run_once(0)
        flags.append(srb.srb_flags)
        rig.seconds(1)
    assert flags[UNTAGGED_AFTER - 2] == TAGGED_FLAGS | SRB_FLAGS_DATA_IN
    fewer = SRB_FLAGS_DISABLE_SYNCH_TRANSFER | SRB_FLAGS_ADAPTER_CACHE_ENABLE | SRB_FLAGS_DATA_IN
    assert flags[UNTAGGED_AFTER - 1] == fewer
    assert flags[NO_DISCONNECT_AFTER - 1] == fewer | SRB_FLAGS_DISABLE_DISCONNECT
    # Without NO_QUEUE_FREEZE a time-out freezes SCSI Port's queue; it goes on because it is released.
    assert len(rig.started()) == NO_DISCONNECT_AFTER + 1
    assert ("queues released" in rig.driver.counters) == (rig.below.model == "scsiport")
    for _ in range(16 * 5):  # one error is forgotten after 16 successes
        rig.finish()
        rig.loop.run_once(0)
        srb = rig.command()
    assert srb.srb_flags == TAGGED_FLAGS | SRB_FLAGS_DATA_IN


def test_the_guests_abort_ends_what_waits_for_its_next_try(driven: Make) -> None:
    rig = driven()
    victim = rig.command()
    rig.fail(NOT_READY_BECOMING_READY)
    abort = rig.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert rig.done == [victim, abort]
    assert (victim.srb_status, abort.srb_status) == (SRB_STATUS_ABORTED, SRB_STATUS_SUCCESS)
    rig.seconds(20)
    assert len(rig.started()) == 1


def test_what_the_guest_aborts_is_not_tried_again(driven: Make) -> None:
    rig = driven()
    victim = rig.command()
    rig.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    rig.finish(victim, SRB_STATUS_ABORTED)
    rig.seconds(5)
    assert victim in rig.done and [srb for srb in rig.started() if srb is victim] == [victim]


@pytest.mark.parametrize("function", [SRB_FUNCTION_RESET_BUS, SRB_FUNCTION_RESET_LOGICAL_UNIT])
def test_what_the_guest_resets_is_not_tried_again(driven: Make, function: int) -> None:
    rig = driven()
    waiting = rig.command()
    rig.fail(NOT_READY_BECOMING_READY)
    other = rig.command(lun=1)
    rig.submit(function)
    rig.loop.run_once(0)
    assert waiting in rig.done and waiting.srb_status == SRB_STATUS_BUS_RESET
    if function == SRB_FUNCTION_RESET_LOGICAL_UNIT and rig.below.model == "storport":
        assert other not in rig.done
    rig.seconds(20)
    assert sum(srb is waiting for srb in rig.started()) == 1


def test_a_reset_of_the_adapter_and_its_end_leave_nothing_behind(driven: Make) -> None:
    rig = driven()
    first = rig.command()
    rig.fail(NOT_READY_BECOMING_READY)
    second = rig.command()
    rig.driver.reset_adapter()
    assert {srb.srb_status for srb in (first, second)} == {SRB_STATUS_BUS_RESET} and len(rig.done) == 2
    third = rig.command(cdb=WRITE)
    rig.driver.stop()
    assert rig.done[2:] == [third] and third.srb_status == SRB_STATUS_ABORTED
    assert rig.driver.describe()["outstanding"] == 0


def test_what_ends_together_goes_up_together(driven: Make) -> None:
    rig = driven()
    groups: list[int] = []
    one = rig.done.append
    rig.driver.complete_together(one, lambda srbs: groups.append(len(srbs)))
    made = [rig.prepared(lun=lun) for lun in range(3)]
    for srb in made:
        srb.completion = one
    rig.driver.submit_all(made)
    rig.hardware(lambda: [rig.miniport.finish(held) for held in list(rig.miniport.held)])  # type: ignore[func-returns-value]
    assert sum(groups) + len(rig.done) == 3 and groups
