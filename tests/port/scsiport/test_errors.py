"""ER: sense data, busy, abort, time-outs, resets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.clock import S
from hba.miniport.services import NEXT_REQUEST, RESET_DETECTED
from hba.port.scsiport.slot import HOLD
from hba.port.scsiport.status import (
    STATUS_BUFFER_OVERFLOW,
    STATUS_DEVICE_DOES_NOT_EXIST,
    STATUS_DEVICE_NOT_CONNECTED,
    STATUS_INVALID_DEVICE_REQUEST,
    STATUS_IO_DEVICE_ERROR,
    STATUS_IO_TIMEOUT,
    STATUS_SUCCESS,
    ntstatus,
)
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_BUSY,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_PARITY_ERROR,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_REQUEST_SENSE_FAILED,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import Rig

Make = Callable[..., Rig]
TAGGED_FLAG = SRB_FLAGS_QUEUE_ACTION_ENABLE


def check(r: Rig, srb: Srb) -> None:
    r.finish(srb, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)


def test_ER_01_a_nonspecific_error(rig: Make) -> None:
    r = rig()
    r.command()
    r.finish(status=SRB_STATUS_ERROR)
    assert r.rules == ["ER-01"]


def test_ER_02_errors_that_are_always_logged(rig: Make) -> None:
    r = rig()
    r.command()
    r.finish(status=SRB_STATUS_SELECTION_TIMEOUT)
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("ER-02", "note")]
    held = r.held(r.command())

    def work() -> None:
        r.miniport.port.log_error(held, 0, 0, 0, 1, 1)
        r.miniport.finish(held, SRB_STATUS_PARITY_ERROR)

    r.hardware(work)
    assert len(r.rules) == 1


def test_ER_02_an_overrun_is_logged_an_underrun_is_not(rig: Make) -> None:
    r = rig()
    for short in (True, False):
        held = r.held(r.command())
        if short:
            held.data_transfer_length = 100
        r.hardware(lambda held=held: r.miniport.finish(held, SRB_STATUS_DATA_OVERRUN))  # type: ignore[misc]
        assert r.rules == ([] if short else ["ER-02"])


def test_ER_02_selection_time_outs_need_not_be_logged(rig: Make) -> None:
    r = rig(options={"selection_timeouts_logged": False})
    r.command()
    r.finish(status=SRB_STATUS_SELECTION_TIMEOUT)
    assert r.rules == []


def test_ER_03_the_port_fetches_sense_data(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command()
    waiting = r.command()
    check(r, failed)
    assert r.done == []
    sense = r.miniport.held[0]
    assert sense.cdb == bytes((3, 0, 0, 0, 18, 0))
    assert sense.time_out_value == 2
    wanted = SRB_FLAGS_DATA_IN | SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_DISABLE_DISCONNECT
    assert sense.srb_flags & wanted == wanted
    assert not r.started(waiting)
    mdl = r.real(sense).mdl
    assert mdl is not None
    mdl.write(b"\x70\x00\x05" + bytes(15))
    r.finish()
    assert r.done == [failed]
    assert failed.srb_status == SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN
    assert failed.sense_info_buffer == b"\x70\x00\x05" + bytes(15)
    assert not r.started(waiting)
    assert r.rules == []


def test_ER_03_sense_waits_for_the_units_other_requests(rig: Make) -> None:
    r = rig(auto_request_sense=False)
    failed, other = r.command(), r.command()
    check(r, failed)
    assert r.real(r.miniport.started[-1]) is other
    check(r, other)  # a second CHECK CONDITION meanwhile
    assert other.srb_status & SRB_STATUS_MASK == SRB_STATUS_REQUEST_SENSE_FAILED
    r.miniport.next = "next"
    assert r.miniport.held[0].cdb[0] == 3
    r.finish()
    assert failed.srb_status & SRB_STATUS_AUTOSENSE_VALID


def test_ER_03_a_request_sense_that_fails(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command()
    check(r, failed)
    r.finish(status=SRB_STATUS_PARITY_ERROR)
    assert failed.srb_status & SRB_STATUS_MASK == SRB_STATUS_REQUEST_SENSE_FAILED


@pytest.mark.parametrize(("length", "flags"), [(0, 0), (18, SRB_FLAGS_DISABLE_AUTOSENSE)])
def test_ER_03_no_sense_data_wanted(rig: Make, length: int, flags: int) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command(sense_info_buffer_length=length, srb_flags=TAGGED_FLAG | flags)
    check(r, failed)
    assert r.done == [failed] and r.miniport.held == []


def test_ER_04_who_may_say_autosense(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    r.command()
    r.finish(status=SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.command(lun=1)
    r.finish(status=SRB_STATUS_REQUEST_SENSE_FAILED, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.rules == ["ER-04", "ER-04"]


def test_ER_04_disable_autosense(rig: Make) -> None:
    r = rig()
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_DISABLE_AUTOSENSE)
    r.finish(status=SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.rules == ["ER-04"]


@pytest.mark.parametrize(("option", "length", "off"), [(True, 19, True), (True, 18, False), (False, 96, False)])
def test_ER_05_large_sense_buffers(rig: Make, option: bool, length: int, off: bool) -> None:
    r = rig(options={"small_sense_only": option})
    r.command(sense_info_buffer_length=length)
    assert bool(r.miniport.held[0].srb_flags & SRB_FLAGS_DISABLE_AUTOSENSE) == off


@pytest.mark.parametrize(
    ("status", "scsi_status"),
    [(SRB_STATUS_BUSY, 0), (SRB_STATUS_ERROR, SCSISTAT_BUSY), (SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL)],
)
def test_ER_06_busy_requests_are_sent_again(rig: Make, status: int, scsi_status: int) -> None:
    r = rig(options={"busy_retries": 3})
    srb = r.command(size=512)
    for retry in range(3):
        r.finish(srb, status, scsi_status=scsi_status)
        assert r.done == [] and r.miniport.held == []
        assert "waits to retry a busy request" in r.port.snapshot()["units"][0]["blocked"]
        r.seconds(1)
        assert len(r.miniport.held) == 1, retry
    r.finish(srb, status, scsi_status=scsi_status)
    assert r.done == [srb]
    assert srb.srb_status == status | SRB_STATUS_QUEUE_FROZEN


def test_ER_06_success_after_a_retry(rig: Make) -> None:
    r = rig()
    srb, waiting = r.command(key=1), r.command(key=2)
    r.finish(srb, SRB_STATUS_BUSY)
    r.finish(waiting)
    r.seconds(1)
    r.finish(srb)
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, 512)
    assert r.rules == []


def test_ER_06_a_unit_that_waits_to_retry_is_looked_after_though_nothing_is_outstanding(rig: Make) -> None:
    r = rig()
    srb = r.command()
    assert r.port.needs_tick()
    r.finish(srb, SRB_STATUS_BUSY)
    assert r.port.outstanding == 0 and r.port.needs_tick()
    r.seconds(1)
    r.finish(srb)
    assert r.done == [srb] and not r.port.needs_tick()


def test_ER_06_bypassing_requests_are_not_sent_again(rig: Make) -> None:
    r = rig()
    srb = r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    r.finish(srb, SRB_STATUS_BUSY)
    assert r.done == [srb] and srb.srb_status == SRB_STATUS_BUSY


def test_ER_07_busy_in_start_io(rig: Make) -> None:
    r = rig(next="")
    r.miniport.on_start = lambda srb: r.miniport.finish(srb, SRB_STATUS_BUSY)
    r.command(lun=0)
    other = r.command(lun=1)
    assert r.done == [] and not r.started(other)  # no Next: the adapter takes nothing else
    r.miniport.on_start = None
    r.next()
    assert r.started(other)
    assert r.rules == []


def test_ER_08_abort_of_an_active_request(rig: Make) -> None:
    r = rig()
    victim = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    held = r.held(abort)
    assert held.next_srb is r.held(victim)

    def work() -> None:
        r.miniport.finish(held.next_srb, SRB_STATUS_ABORTED)
        r.miniport.finish(held)

    r.hardware(work)
    assert victim.srb_status & SRB_STATUS_MASK == SRB_STATUS_ABORTED
    assert abort.srb_status == SRB_STATUS_SUCCESS


def test_ER_08_abort_of_a_queued_request(rig: Make) -> None:
    r = rig(tagged=False, next="next")
    active, victim = r.command(), r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert victim.srb_status == SRB_STATUS_ABORTED
    assert abort.srb_status == SRB_STATUS_SUCCESS
    assert not r.started(victim) and r.started(active)


@pytest.mark.parametrize(
    ("option", "status"), [("success", SRB_STATUS_SUCCESS), ("abort_failed", SRB_STATUS_ABORT_FAILED)]
)
def test_ER_08_abort_loses_the_race(rig: Make, option: str, status: int) -> None:
    r = rig(next="", options={"abort_of_completed": option})
    victim = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)  # waits for the adapter
    r.finish(victim)
    r.next()
    assert victim.srb_status == SRB_STATUS_SUCCESS
    assert abort.srb_status == status
    assert not r.started(abort)
    late = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert late.srb_status == status


def test_ER_09_the_two_diagnoses(rig: Make) -> None:
    r = rig(options={"abort_first": False})
    r.command(time_out_value=5)
    r.seconds(4)
    assert r.rules == []
    r.seconds(1)
    assert r.rules == ["ER-09"]
    assert "#1 on 0:0:0 was not completed within 5 s" in r.verifier.findings[0].message

    r = rig(next="", options={"stuck_after": 100})
    r.command(time_out_value=5)
    r.seconds(5)
    assert r.rules == ["SP-07"]
    assert "no NextRequest or NextLuRequest within 5 s since #1 was started" in r.verifier.findings[0].message
    assert "reset_bus" in r.miniport.log


def test_ER_09_the_oldest_request_counts(rig: Make) -> None:
    r = rig(options={"abort_first": False})
    first = r.command(time_out_value=5)
    second = r.command(time_out_value=5)
    r.seconds(4)
    r.finish(first)
    r.seconds(4)
    assert "reset_bus" not in r.miniport.log
    r.seconds(1)
    assert "reset_bus" in r.miniport.log
    assert second.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET


def test_ER_09_default_time_out_and_no_tick_when_idle(rig: Make) -> None:
    r = rig(options={"default_timeout": 7, "abort_first": False})
    r.command()
    r.seconds(6)
    assert "reset_bus" not in r.miniport.log
    r.seconds(1)
    assert "reset_bus" in r.miniport.log
    r.seconds(10)
    assert r.clock.next_deadline() is None


def test_ER_10_abort_first(rig: Make) -> None:
    r = rig()
    victim = r.command(time_out_value=5)
    r.seconds(5)
    abort = r.miniport.started[-1]
    assert abort.function == SRB_FUNCTION_ABORT_COMMAND
    assert abort.next_srb is r.held(victim)

    def work() -> None:
        r.miniport.finish(r.held(victim), SRB_STATUS_ABORTED)
        r.miniport.finish(abort)

    r.hardware(work)
    assert r.done == [victim]
    r.seconds(30)
    assert "reset_bus" not in r.miniport.log


def test_ER_10_an_abort_whose_turn_never_comes(rig: Make) -> None:
    """The bus is reset, and the next time-out on the unit begins with an abort again."""
    r = rig(options={"abort_timeout": 3, "stuck_after": 100})
    victim = r.command(lun=1, time_out_value=5)
    told, r.miniport.next = r.miniport.next, ""
    has_the_adapter = r.command(lun=0, time_out_value=60)
    r.seconds(7)
    assert r.done == [] and r.real(r.miniport.started[-1]) is has_the_adapter
    r.seconds(1)
    assert {srb.srb_status & SRB_STATUS_MASK for srb in (victim, has_the_adapter)} == {SRB_STATUS_BUS_RESET}
    r.miniport.next = told
    r.seconds(5)  # of hold
    r.submit(SRB_FUNCTION_RELEASE_QUEUE, lun=1)
    again = r.command(lun=1, time_out_value=5)
    assert r.real(r.miniport.started[-1]) is again
    r.seconds(5)
    assert r.miniport.started[-1].function == SRB_FUNCTION_ABORT_COMMAND


@pytest.mark.parametrize("answer", ["none", "failed", "lies"])
def test_ER_10_then_the_bus(rig: Make, answer: str) -> None:
    r = rig(options={"abort_timeout": 3})
    victim = r.command(time_out_value=5)
    r.seconds(5)
    abort = r.miniport.started[-1]
    if answer == "none":
        assert "reset_bus" not in r.miniport.log
        r.seconds(3)
    else:
        r.hardware(
            lambda: r.miniport.finish(abort, SRB_STATUS_SUCCESS if answer == "lies" else SRB_STATUS_ABORT_FAILED)
        )
    assert r.miniport.log.count("reset_bus") == 1
    assert victim.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET


def test_ER_10_srb_reset_bus_comes_only_from_above(rig: Make) -> None:
    r = rig(next="next")
    reset = r.submit(SRB_FUNCTION_RESET_BUS)
    assert r.started(reset) and "reset_bus" not in r.miniport.log
    r.finish(reset)
    assert r.port.slot.gate & HOLD
    assert not any(r.real(srb).function == SRB_FUNCTION_RESET_BUS for srb in r.miniport.started[1:])


def test_ER_10_a_miniport_without_reset_in_start_io(rig: Make) -> None:
    r = rig(next="next", instantly=SRB_STATUS_INVALID_REQUEST)
    reset = r.submit(SRB_FUNCTION_RESET_BUS)
    assert reset.srb_status == SRB_STATUS_SUCCESS
    assert "reset_bus" in r.miniport.log


def test_ER_10_reset_while_the_adapter_is_busy(rig: Make) -> None:
    r = rig(next="")
    active, queued = r.command(lun=0), r.command(lun=1)
    reset = r.submit(SRB_FUNCTION_RESET_BUS)
    assert reset.srb_status == SRB_STATUS_SUCCESS
    assert "reset_bus" in r.miniport.log
    assert {active.srb_status & SRB_STATUS_MASK, queued.srb_status} == {SRB_STATUS_BUS_RESET}
    assert not r.started(queued)


@pytest.mark.parametrize("function", [SRB_FUNCTION_RESET_DEVICE, SRB_FUNCTION_RESET_LOGICAL_UNIT])
def test_ER_10_smaller_resets_are_bus_resets(rig: Make, function: int) -> None:
    r = rig()
    active = r.command()
    reset = r.submit(function)
    assert reset.srb_status == SRB_STATUS_SUCCESS
    assert active.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET
    assert not r.started(reset)


def test_ER_11_reset_bus_completes_everything(rig: Make) -> None:
    r = rig(options={"abort_first": False})
    srbs = [r.command(lun=lun, time_out_value=5) for lun in range(3)]
    r.seconds(5)
    assert {srb.srb_status & SRB_STATUS_MASK for srb in srbs} == {SRB_STATUS_BUS_RESET}
    assert "ER-11" not in r.rules


def test_ER_11_what_it_leaves_and_what_it_returns(rig: Make) -> None:
    r = rig(options={"abort_first": False})
    r.miniport.reset_completes = False
    r.miniport.reset_returns = False
    r.command(time_out_value=5)
    r.seconds(5)
    assert [(f.rule, f.severity) for f in r.verifier.findings if f.rule == "ER-11"] == [
        ("ER-11", "violation"),
        ("ER-11", "warning"),
    ]


def test_ER_12_no_start_io_during_the_hold(rig: Make) -> None:
    r = rig()
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    waiting = r.command()
    r.seconds(3.9)
    assert not r.started(waiting)
    assert "reset hold (ResetDetected)" in r.port.snapshot()["adapter"]["blocked"]
    r.seconds(0.2)
    assert r.started(waiting)


def test_ER_12_a_guests_adapter_reset_has_no_hold(rig: Make) -> None:
    r = rig(next="")
    active, queued = r.command(lun=0), r.command(lun=1)
    r.port.reset_adapter()
    assert r.statuses() == [SRB_STATUS_BUS_RESET] * 2
    assert {id(srb) for srb in r.done} == {id(active), id(queued)}
    assert r.miniport.log.count("initialize") == 2
    assert r.started(r.command())


def test_ER_12_an_adapter_reset_ends_a_bus_reset_that_has_not_begun(rig: Make) -> None:
    r = rig()
    reset = r.srb(SRB_FUNCTION_RESET_LOGICAL_UNIT)

    def ended(srb: Srb) -> None:
        r.done.append(srb)
        r.port.submit(reset)
        r.port.reset_adapter()

    first = r.command(completion=ended)
    r.finish(first)
    assert r.done == [first, reset] and reset.srb_status == SRB_STATUS_BUS_RESET
    r.seconds(5)
    assert "reset_bus" not in r.miniport.log and r.started(r.command())


@pytest.mark.parametrize("reclaim", [True, False])
def test_ER_13_leftovers_at_the_end_of_the_hold(rig: Make, reclaim: bool) -> None:
    r = rig(options={"abort_first": False, "reclaim_lost": reclaim})
    r.miniport.reset_completes = False
    srb = r.command(time_out_value=5)
    held = r.held(srb)
    r.seconds(10)
    assert r.rules.count("ER-13") == 1
    finding = next(f for f in r.verifier.findings if f.rule == "ER-13")
    assert finding.srb.startswith("#1 ")
    assert (r.done == [srb]) == reclaim
    if reclaim:
        assert srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET
        r.hardware(lambda: r.miniport.finish(held))  # it comes back after all
        assert r.done == [srb] and "OW-02" in r.rules


@pytest.mark.parametrize("reset", [False, True])
def test_ER_13_a_hold_that_is_over_in_the_middle_of_a_callback(rig: Make, reset: bool) -> None:
    """It ends after that, unless the adapter was reset meanwhile: then there is none any more."""
    r = rig(traced=True)
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    r.hardware(lambda: r.clock.advance(10 * S))
    if reset:
        r.port.reset_adapter()
    r.loop.run_once(0)
    assert r.kinds("reset_hold.begin", "reset_hold.end") == ["reset_hold.begin", *["reset_hold.end"] * (not reset)]


def test_ER_14_reset_detected(rig: Make) -> None:
    r = rig()
    srb = r.command()
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    assert r.done == []
    r.seconds(5)
    assert "ER-13" in r.rules
    assert srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_BUS_RESET


def test_ER_14_from_the_wrong_callback(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: r.miniport.port.notification(RESET_DETECTED, 0)
    r.port.start()
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("ER-14", "warning")]


def test_ER_15_complete_request(rig: Make) -> None:
    r = rig()
    srbs = [r.command(lun=lun) for lun in (0, 0, 1)]
    held = r.held(srbs[0])

    def work() -> None:
        r.miniport.port.complete_request(0, 0, 0, SRB_STATUS_BUS_RESET)
        r.miniport.port.notification(0, held)

    r.hardware(work)
    assert r.done == srbs[:2]
    assert r.rules == ["OW-02"]
    r.hardware(lambda: r.miniport.port.complete_request(0xFF, 0xFF, 0xFF, SRB_STATUS_BUS_RESET))
    assert r.done == srbs


def test_ER_15_the_one_being_processed_is_completed_too(rig: Make) -> None:
    r = rig()
    r.miniport.on_start = lambda srb: r.miniport.port.complete_request(0, 0, 0, SRB_STATUS_SELECTION_TIMEOUT)
    assert r.command().srb_status == SRB_STATUS_SELECTION_TIMEOUT


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x01, STATUS_SUCCESS),
        (0x81, STATUS_SUCCESS),
        (0x09, STATUS_IO_TIMEOUT),
        (0x0B, STATUS_IO_TIMEOUT),
        (0x15, STATUS_INVALID_DEVICE_REQUEST),
        (0x22, STATUS_INVALID_DEVICE_REQUEST),
        (0x08, STATUS_DEVICE_DOES_NOT_EXIST),
        (0x20, STATUS_DEVICE_DOES_NOT_EXIST),
        (0x21, STATUS_DEVICE_DOES_NOT_EXIST),
        (0x11, STATUS_DEVICE_DOES_NOT_EXIST),
        (0x12, STATUS_BUFFER_OVERFLOW),
        (0x0A, STATUS_DEVICE_NOT_CONNECTED),
        (0x44, STATUS_IO_DEVICE_ERROR),
        (0x0F, STATUS_IO_DEVICE_ERROR),
    ],
)
def test_ER_16_ntstatus(status: int, expected: int) -> None:
    assert ntstatus(status) == expected


def test_ER_16_is_in_the_trace(rig: Make) -> None:
    r = rig(traced=True, instantly=SRB_STATUS_SELECTION_TIMEOUT)
    r.command()
    complete = next(event for event in r.trace.events if event.kind == "complete")
    assert str(complete.detail).endswith("STATUS_DEVICE_NOT_CONNECTED")


@pytest.mark.parametrize("function", [0x01, 0x17, 0x28, 0x99])
def test_ER_17_unknown_functions_are_completed(rig: Make, function: int) -> None:
    r = rig()
    srb = r.submit(function)
    assert srb.srb_status == SRB_STATUS_INVALID_REQUEST
    assert r.done == [srb] and r.miniport.started == []


def test_nothing_gets_through_after_stop(rig: Make) -> None:
    r = rig()
    srb = r.command()
    r.port.stop()
    assert srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_ABORTED
    late = r.command()
    assert late.srb_status == 0x11  # no HBA
    assert r.clock.next_deadline() is None
    r.port.start()
    assert r.started(r.command())


def test_next_after_the_reset_is_missing(rig: Make) -> None:
    r = rig(next="", options={"stuck_after": 100})
    r.miniport.reset_next = False
    r.command(lun=0, time_out_value=5)
    waiting = r.command(lun=1)
    r.seconds(10)
    assert r.rules == ["SP-07", "SP-07"]
    assert "no NextRequest after the bus reset" in r.verifier.findings[1].message
    assert r.started(waiting)
    r.hardware(lambda: r.miniport.port.notification(NEXT_REQUEST))
