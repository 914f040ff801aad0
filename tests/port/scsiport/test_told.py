"""What SCSI Port says of itself, exactly: findings, notes in the trace, counters, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, S
from hba.errors import ConfigError
from hba.miniport.base import Miniport
from hba.miniport.services import (
    BUS_CHANGE_DETECTED,
    CALL_DISABLE_INTERRUPTS,
    CALL_ENABLE_INTERRUPTS,
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_TIMER_CALL,
    RESET_DETECTED,
    WMI_EVENT,
    WMI_REREGISTER,
)
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH_QUEUE,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUSY,
    SRB_STATUS_ERROR,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_REQUEST_FLUSHED,
    SRB_STATUS_REQUEST_SENSE_FAILED,
    SRB_STATUS_SUCCESS,
)
from tests.port.fakes import FakeMiniport, Rig

Make = Callable[..., Rig]
CHECK = SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID
TAGGED_FLAG = SRB_FLAGS_QUEUE_ACTION_ENABLE


def messages(r: Rig, rule: str) -> list[str]:
    return [finding.message for finding in r.verifier.findings if finding.rule == rule]


def noted(r: Rig, kind: str) -> list[tuple[int, Any]]:
    """(number of the request or 0, detail) of each event of a kind in the trace."""
    return [(event.srb, event.detail) for event in r.trace.events if event.kind == kind]


def freeze(r: Rig) -> None:
    srb = r.command()
    r.finish(srb, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)


# -- configuration ----------------------------------------------------------------------------------------------------


def test_CF_12_every_routine_that_is_missing_is_named(rig: Make) -> None:
    class Incomplete(FakeMiniport):
        hw_start_io = Miniport.hw_start_io
        hw_reset_bus = Miniport.hw_reset_bus
        hw_interrupt = None  # type: ignore[assignment]

    r = rig(miniport=Incomplete(), start=False)
    missing = "hw_interrupt, hw_start_io, hw_reset_bus"
    with pytest.raises(ConfigError, match=f"the miniport Incomplete has no {missing}; SCSI Port needs hw_find_adapter"):
        r.port.start()
    assert messages(r, "CF-12") == [f"the miniport has no {missing}"]


@pytest.mark.parametrize(("mask", "findings"), [(0, 0), (1, 0), (3, 0), (7, 0), (15, 1), (2, None), (-1, None)])
def test_CF_07_each_mask(rig: Make, mask: int, findings: int | None) -> None:
    if findings is None:
        with pytest.raises(ConfigError, match=f"FakeMiniport sets AlignmentMask {mask:#x}; expected 0, 1, 3 or 7"):
            rig(alignment_mask=mask)
    else:
        assert messages(rig(alignment_mask=mask), "CF-07") == ["AlignmentMask 0xf is none of 0, 1, 3, 7"] * findings


@pytest.mark.parametrize(
    ("option", "seen", "said", "mapped"),
    [(None, 0, 0, False), (None, 0, 2, True), (True, 1, 0, True), (False, 0, 1, False)],
)
def test_CF_01_who_decides_whether_buffers_are_mapped(
    rig: Make, option: bool | None, seen: int, said: int, mapped: bool
) -> None:
    """The miniport sees the option as a preset; its own word counts without one."""
    r = rig(start=False, options={"map_buffers": option}, map_buffers=said)
    miniport = r.miniport
    found: list[int] = []
    miniport.info = {}

    def find(config: Any) -> None:
        found.append(config.map_buffers)
        config.map_buffers = said

    miniport.on_find = find
    r.port.start()
    assert found == [seen]
    assert r.port.snapshot()["adapter"]["map_buffers"] == mapped
    assert r.port.info.map_buffers == (said if option is None else int(option))


@pytest.mark.parametrize(("preset", "said", "kept"), [(0, 0, 0), (0, 1, 0), (17, 17, 17), (17, 18, 17)])
def test_CF_06_the_preset_of_breaks(rig: Make, preset: int, said: int, kept: int) -> None:
    r = rig(start=False, options={"maximum_sg_list": preset})
    seen: list[int] = []

    def find(config: Any) -> None:
        seen.append(config.number_of_physical_breaks)
        config.number_of_physical_breaks = said

    r.miniport.on_find = find
    r.port.start()
    assert seen == [preset] and r.port.info.number_of_physical_breaks == kept
    raised = f"NumberOfPhysicalBreaks raised from the preset {preset} to {said}; set back"
    assert messages(r, "CF-06") == ([raised] if said > kept else [])


@pytest.mark.parametrize(
    ("member", "value"), [("auto_request_sense", False), ("dma64_bit_addresses", 0x80), ("srb_extension_size", 9)]
)
def test_CF_09_each_member_that_changes_too_late(rig: Make, member: str, value: int) -> None:
    r = rig(start=False, dma64_bit_addresses=0x81, srb_extension_size=8)

    def find(config: Any) -> None:
        assert r.miniport.port.get_uncached_extension(config, 1) is not None
        setattr(config, member, value)

    r.miniport.on_find = find
    r.port.start()
    before = {"auto_request_sense": True, "dma64_bit_addresses": 0x81, "srb_extension_size": 8}
    now = {**before, member: value}
    assert messages(r, "CF-09") == [
        "AutoRequestSense, Dma64BitAddresses or SrbExtensionSize changed after get_uncached_extension: "
        f"{tuple(before.values())} became {tuple(now.values())}"
    ]
    assert r.port.stop() is None
    r.miniport.on_find = None
    r.miniport.info["srb_extension_size"] = 16
    r.port.start()  # what an earlier one asked for fixes nothing
    assert len(r.rules) == 1


def test_CF_09_an_uncached_extension_of_nothing(rig: Make) -> None:
    r = rig(start=False)
    got: list[Any] = []

    def find(config: Any) -> None:
        got.extend(r.miniport.port.get_uncached_extension(config, size) for size in (-1, 0, 1))

    r.miniport.on_find = find
    r.port.start()
    assert got[:2] == [None, None] and len(got[2]) == 1
    assert r.miniport.port.get_uncached_extension(r.port.info, 64) is None
    assert messages(r, "CF-09") == [
        "get_uncached_extension(-1) in hw_find_adapter",
        "get_uncached_extension(0) in hw_find_adapter",
        "get_uncached_extension(64) in no callback",
    ]


@pytest.mark.parametrize(("option", "flag"), [("disable_disconnects", 0x4), ("disable_synchronous_transfers", 0x8)])
def test_CF_13_each_flag_alone(rig: Make, option: str, flag: int) -> None:
    r = rig(next="next", options={option: True})
    flags = r.held(r.command()).srb_flags
    assert flags & 0xC == flag


# -- what stands still ------------------------------------------------------------------------------------------------


def test_Q_09_a_frozen_unit_is_told_of_when_its_time_is_over_and_each_time_again(rig: Make) -> None:
    r = rig(traced=True, options={"stuck_after": 5})
    r.clock.advance(1500 * MS)
    freeze(r)
    r.command()
    r.command()
    r.clock.advance(5 * S - 1)
    assert r.port.snapshot()["stuck"] == []
    r.clock.advance(1)
    told = "LU 0:0:0 frozen since 1.500 s by #1 (CHECK CONDITION), never released; 2 requests wait"
    assert r.port.snapshot()["stuck"] == [told]
    r.seconds(3)
    assert messages(r, "Q-09") == [told]
    assert r.clock.next_deadline() is None  # it was said: nothing more to watch
    unit = r.port.snapshot()["units"][0]
    assert (unit["frozen"], unit["frozen_by"], unit["frozen_ms"]) == (True, "#1 (CHECK CONDITION)", 8000)
    assert noted(r, "freeze") == [(1, "0:0:0: CHECK CONDITION")]
    release = r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert noted(r, "release_queue") == [(0, f"0:0:0: by #{4}")] and release in r.done
    unit = r.port.snapshot()["units"][0]
    assert (unit["frozen"], unit["frozen_by"], unit["frozen_ms"]) == (False, "", None)
    r.finish()
    r.finish()
    freeze(r)
    r.seconds(6)
    assert len(messages(r, "Q-09")) == 2


def test_Q_11_a_locked_unit_is_told_of_when_its_time_is_over_and_each_time_again(rig: Make) -> None:
    r = rig(traced=True, options={"stuck_after": 5})
    r.clock.advance(2 * S)
    r.submit(SRB_FUNCTION_LOCK_QUEUE)
    r.command()
    r.clock.advance(5 * S - 1)
    assert r.port.snapshot()["stuck"] == []
    r.clock.advance(1)
    told = "LU 0:0:0 locked since 2.000 s, never unlocked; 1 requests wait"
    assert r.port.snapshot()["stuck"] == [told]
    r.seconds(3)
    assert messages(r, "Q-11") == [told] and r.clock.next_deadline() is None
    for _ in range(2):
        r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
        r.finish()
        r.submit(SRB_FUNCTION_LOCK_QUEUE)
        r.command()
        r.seconds(6)
    assert len(messages(r, "Q-11")) == 3
    assert noted(r, "lock_queue") == [(1, "0:0:0"), (4, "0:0:0"), (7, "0:0:0")]
    assert noted(r, "unlock_queue") == [(3, "0:0:0"), (6, "0:0:0")]


def test_SP_07_no_next_is_told_of_only_while_something_waits(rig: Make) -> None:
    r = rig(next="", options={"stuck_after": 3})
    r.command(time_out_value=100)
    r.seconds(4)
    assert r.port.snapshot()["stuck"] == []
    r.command(lun=1, time_out_value=100)
    r.command(lun=2, time_out_value=100)
    told = "no NextRequest since #1 was started 4 s ago; 2 requests wait"
    assert r.port.snapshot()["stuck"] == [told]
    r.next()
    assert r.port.snapshot()["stuck"] == []
    r.seconds(2)
    assert r.rules == [] and r.port.snapshot()["stuck"] == []
    r.seconds(1)
    assert messages(r, "SP-07") == ["no NextRequest since #2 was started 3 s ago; 1 requests wait"]


def test_why_an_adapter_starts_nothing(rig: Make) -> None:
    r = rig(next="", number_of_buses=2)

    def blocked() -> Any:
        adapter = r.port.snapshot()["adapter"]
        assert adapter["state"] == ("BUSY" if r.port.slot.busy else "READY")
        return adapter["blocked"]

    assert blocked() == []
    owner = r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_DISABLE_DISCONNECT)
    assert blocked() == ["BUSY: no NextRequest since #1", "#1 holds the bus (DISABLE_DISCONNECT)"]
    r.next()
    assert blocked() == ["#1 holds the bus (DISABLE_DISCONNECT)"]
    r.finish(owner)
    assert blocked() == []
    adapter = r.port.snapshot()["adapter"]
    assert (adapter["free_tags"], adapter["overlap"], adapter["queue"]) == (32, True, [])
    r.command()
    r.next()
    assert r.port.snapshot()["adapter"]["free_tags"] == 31
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 1))
    assert blocked() == ["reset hold (ResetDetected)"]
    r.seconds(5)
    r.chip.interrupts_enabled = False
    r.port.interrupts_held = True
    assert blocked() == ["interrupts deferred"]


def test_why_a_unit_starts_nothing(rig: Make) -> None:
    r = rig(options={"requests_per_unit": 2})

    def unit() -> Any:
        return r.port.snapshot()["units"][0]

    first, second = r.command(key=5), r.command(key=7)
    waiting = r.command(key=9)
    assert unit()["blocked"] == ["2 of 2 requests outstanding"]
    assert [one["number"] for one in unit()["queued"]] == [3]
    assert (unit()["depth"], unit()["last_key"], unit()["retrying"]) == (2, 7, "")
    r.finish(first, SRB_STATUS_ERROR, scsi_status=SCSISTAT_QUEUE_FULL)
    assert unit()["blocked"] == ["waits to retry a busy request", "queue full"]
    assert unit()["retrying"] == "#1"
    r.finish(second)
    assert unit()["blocked"] == ["waits to retry a busy request"] and not r.started(waiting)
    r.seconds(1)
    assert unit()["retrying"] == "" and r.started(first) and r.started(waiting)
    r.finish(first)
    untagged = r.command(srb_flags=0)
    assert unit()["blocked"] == [
        "tagged and untagged requests wait for each other to end",
        "waits for NextLuRequest or a completion",
    ]
    r.finish(waiting)
    assert r.started(untagged)


def test_QUEUE_FULL_holds_a_unit_until_one_of_its_requests_completes(rig: Make) -> None:
    """The one that was refused is tried again on the tick all the same, and nothing else is started before."""
    r = rig()
    first, second, full = r.command(), r.command(), r.command()
    r.finish(full, SRB_STATUS_ERROR, scsi_status=SCSISTAT_QUEUE_FULL)
    waiting = r.command()
    r.seconds(1)
    assert r.port.snapshot()["units"][0]["blocked"] == ["queue full"]
    assert r.held(full) and not r.started(waiting)
    r.finish(second)
    assert r.started(waiting) and r.port.snapshot()["units"][0]["blocked"] == []
    # Alone on its unit there is nothing to wait for.
    for srb in (first, full, waiting):
        r.finish(srb)
    alone = r.command()
    r.finish(alone, SRB_STATUS_ERROR, scsi_status=SCSISTAT_QUEUE_FULL)
    assert r.port.snapshot()["units"][0]["blocked"] == ["waits to retry a busy request"]


# -- locks, flushes, aborts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "flags",
    [
        0,
        SRB_FLAGS_BYPASS_FROZEN_QUEUE,
        SRB_FLAGS_BYPASS_LOCKED_QUEUE,
        SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    ],
)
def test_Q_07_which_flag_passes_what(rig: Make, frozen: bool, locked: bool, flags: int) -> None:
    """Each hold needs its own flag; on a queue without holds BYPASS_LOCKED_QUEUE means nothing."""
    r = rig(options={"requests_per_unit": 1})
    if frozen:
        freeze(r)
    if locked:
        r.submit(SRB_FUNCTION_LOCK_QUEUE)
    if not frozen and not locked:
        r.command()  # the unit has all it may have
    bypasses_frozen = bool(flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    bypasses_locked = bool(flags & SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    passes = (bypasses_frozen or not frozen) and (bypasses_locked or not locked)
    if not frozen and not locked:
        passes = bypasses_frozen
    srb = r.command(srb_flags=TAGGED_FLAG | flags)
    assert r.started(srb) == passes
    assert r.rules == []
    # What does not pass waits.
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    while r.miniport.held:
        r.finish()
    assert r.started(srb) and srb in r.done


def test_Q_11_whose_lock_it_is(rig: Make) -> None:
    r = rig()
    r.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="power")
    r.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="somebody")  # who has locked it first keeps it
    flags = TAGGED_FLAG | SRB_FLAGS_BYPASS_LOCKED_QUEUE
    r.command(srb_flags=flags, original_request="power")
    r.command(srb_flags=flags)  # nobody says who
    assert r.rules == []
    r.command(srb_flags=flags, original_request="somebody")
    waits = r.submit(SRB_FUNCTION_UNLOCK_QUEUE, original_request="power")
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE, original_request="somebody")
    assert [(f.rule, f.message, f.srb.split(" ")[0]) for f in r.verifier.findings] == [
        ("Q-11", "a request bypasses the lock another driver holds on 0:0:0", "#5"),
        ("Q-11", "UNLOCK_QUEUE for 0:0:0 without BYPASS_LOCKED_QUEUE waits for itself", "#6"),
        ("Q-11", "0:0:0 is unlocked by somebody who did not lock it", "#7"),
    ]
    assert waits.srb_status == SRB_STATUS_SUCCESS and not r.started(waits)
    assert r.submit(SRB_FUNCTION_UNLOCK_QUEUE, original_request="x").srb_status == SRB_STATUS_SUCCESS
    while r.miniport.held:
        r.finish()
    assert {r.real(srb).function for srb in r.miniport.started} == {0}
    assert messages(r, "Q-11")[3:] == [] and r.done.count(waits) == 1


def test_Q_10_what_is_said_of_a_flush(rig: Make) -> None:
    r = rig(traced=True)
    r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    running = r.command()
    r.finish(r.command(), CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    assert [(f.severity, f.message, f.srb.split(" ")[0]) for f in r.verifier.findings if f.rule == "Q-10"] == [
        ("violation", "FLUSH_QUEUE although the queue of 0:0:0 is not frozen", "#1"),
        ("note", "FLUSH_QUEUE while 1 requests are active on 0:0:0", "#4"),
    ]
    assert noted(r, "release_queue") == [(0, "0:0:0: flushed by #4")]
    assert running not in r.done


def test_Q_10_a_flush_of_the_cache_that_fails_is_told_above(rig: Make) -> None:
    r = rig(caches_data=True)
    freeze(r)
    flush = r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    assert r.miniport.held[0].function == 0x08 and (r.miniport.held[0].target_id, r.miniport.held[0].lun) == (0, 0)
    r.finish(status=SRB_STATUS_ABORT_FAILED)
    assert flush.srb_status == SRB_STATUS_ABORT_FAILED


def test_ER_08_an_abort_that_comes_too_late_is_counted(rig: Make) -> None:
    r = rig(next="next")
    victim = r.command()
    r.finish(victim)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=None)
    assert r.port.counters["aborts of completed requests"] == 2


def test_ER_08_the_part_that_is_under_way_is_aborted(rig: Make) -> None:
    """Of a transfer in parts the miniport has never seen the whole."""
    r = rig(next="next", maximum_transfer_length=1024, verifier="off", traced=False)
    whole = r.command(cdb=bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 4, 0)), size=2048)
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=whole)
    part = r.miniport.held[0]
    assert part is not whole and r.held(abort).next_srb is part


def test_ER_08_a_request_that_waits_to_be_tried_again_is_aborted(rig: Make) -> None:
    r = rig()
    busy = r.command()
    r.finish(busy, SRB_STATUS_BUSY)
    waiting = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=busy)
    assert (busy.srb_status, abort.srb_status) == (SRB_STATUS_ABORTED, SRB_STATUS_SUCCESS)
    assert r.started(waiting)  # which nothing holds up any more
    r.seconds(3)
    assert len(r.miniport.started) == 2


def test_ER_08_an_untagged_request_that_waits_is_aborted(rig: Make) -> None:
    """What waited for it goes on, once no other one of its kind is there."""
    r = rig()
    tagged = r.command()
    first = r.command(srb_flags=0)
    second = r.command(srb_flags=SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    later = r.command()
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=first)
    assert first.srb_status == SRB_STATUS_ABORTED and not r.started(later)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=second)
    assert second.srb_status == SRB_STATUS_ABORTED and r.started(later)
    r.finish(tagged)
    r.finish(later)
    assert not r.started(first) and not r.started(second) and r.port.outstanding == 0


def test_ER_08_a_request_that_waits_for_the_adapter_is_aborted(rig: Make) -> None:
    r = rig(next="")
    r.command(lun=0)
    victim, later = r.command(lun=1), r.command(lun=1)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert victim.srb_status == SRB_STATUS_ABORTED
    r.next()
    assert r.started(later) and not r.started(victim)


def test_ER_08_a_request_that_waits_for_a_tag_is_aborted(rig: Make) -> None:
    """Who needs none need not wait for one."""
    r = rig()
    for _ in range(32):
        r.command()
    victim = r.command()
    untagged = r.command(lun=1, srb_flags=0)
    assert r.port.snapshot()["adapter"]["blocked"] == ["no free tag"] and not r.started(untagged)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert victim.srb_status == SRB_STATUS_ABORTED and r.started(untagged)


def test_Q_10_only_what_waits_for_the_unit_is_flushed(rig: Make) -> None:
    """Not what waits for the adapter for another unit, or past the unit's queue."""
    r = rig()
    failing = r.command(lun=1)
    r.miniport.next = ""
    r.command(lun=0)  # has the adapter
    other, mine = r.command(lun=2), r.command(lun=1)
    r.finish(failing, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    passing = r.command(lun=1, srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    r.submit(SRB_FUNCTION_FLUSH_QUEUE, lun=1)
    assert mine.srb_status == SRB_STATUS_REQUEST_FLUSHED and other not in r.done and passing not in r.done
    for _ in range(4):
        r.next()
    assert r.started(other) and r.started(passing) and not r.started(mine)


def test_Q_07_power_that_passes_is_answered_once(rig: Make) -> None:
    r = rig()
    freeze(r)
    r.submit(SRB_FUNCTION_POWER)
    assert len(r.done) == 2
    r.submit(SRB_FUNCTION_LOCK_QUEUE)
    r.submit(SRB_FUNCTION_POWER)  # frozen and locked
    assert len(r.done) == 3
    passing = r.submit(SRB_FUNCTION_POWER, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert r.done[3:] == [passing]
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert len(r.done) == 7 and len({id(srb) for srb in r.done}) == 7


def test_CF_08_what_is_said_of_a_controlled_buffer(rig: Make) -> None:
    r = rig(options={"map_buffers": True}, buffer_access_scsi_port_controlled=True)
    r.held(r.command()).data_buffer.read()
    assert messages(r, "CF-08") == ["read of a data buffer although BufferAccessScsiPortControlled promises not to"]
    r = rig(options={"map_buffers": True})
    r.held(r.command()).data_buffer.read()
    assert r.rules == []


# -- busy, sense data -------------------------------------------------------------------------------------------------


def test_ER_06_retries_are_noted_and_the_last_one_freezes(rig: Make) -> None:
    r = rig(traced=True, options={"busy_retries": 2})
    srb = r.command()
    for _ in range(2):
        r.finish(srb, SRB_STATUS_BUSY)
        r.seconds(1)
    r.finish(srb, SRB_STATUS_BUSY)
    assert r.done == [srb]
    assert noted(r, "busy") == [(1, "retry 1"), (1, "retry 2")]
    assert noted(r, "freeze") == [(1, "0:0:0: busy after 2 retries")]
    assert r.port.snapshot()["units"][0]["frozen_by"] == "#1 (busy after 2 retries)"


def test_Q_05_any_error_by_its_status(rig: Make) -> None:
    r = rig(options={"freeze_on_any_error": True})
    r.finish(r.command(), 0x0F)
    assert r.port.snapshot()["units"][0]["frozen_by"] == "#1 (status 0x0f)"


@pytest.mark.parametrize(("length", "size"), [(1, 1), (17, 17), (18, 18), (19, 18), (255, 18)])
def test_ER_03_as_much_sense_data_as_there_is_room_for(rig: Make, length: int, size: int) -> None:
    """18 bytes at most; a short answer is what it is."""
    r = rig(next="next", auto_request_sense=False)
    for moved in (size, 1):
        failed = r.command(sense_info_buffer_length=length)
        r.finish(failed, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
        sense = r.miniport.held[0]
        mdl = r.real(sense).mdl
        assert mdl is not None and mdl.length == size
        assert (sense.cdb, sense.cdb_length, sense.data_transfer_length) == (bytes((3, 0, 0, 0, size, 0)), 6, size)
        mdl.write(b"\x70" * moved)
        r.finish(status=0x12, data_transfer_length=moved)  # DATA_OVERRUN
        assert failed.sense_info_buffer == b"\x70" * moved and failed.sense_info_buffer_length == moved
        assert failed.srb_status & SRB_STATUS_AUTOSENSE_VALID
        r.submit(SRB_FUNCTION_RELEASE_QUEUE)


# -- resets and time-outs ---------------------------------------------------------------------------------------------


def test_ER_11_ER_13_what_a_reset_left_is_told_by_number(rig: Make) -> None:
    """The first eight of them, and again at the end of the hold."""
    r = rig(traced=True, options={"abort_first": False, "reclaim_lost": True, "bus_reset_hold_time": 2})
    r.miniport.reset_completes = r.miniport.reset_returns = False
    for lun in range(5):
        for _ in range(2):
            r.command(lun=lun, time_out_value=50)
    r.submit(SRB_FUNCTION_RESET_LOGICAL_UNIT, lun=3)
    first = "#1, #2, #3, #4, #5, #6, #7, #8"
    assert messages(r, "ER-11") == [
        "hw_reset_bus(0) returned False: the bus was not reset (reset of 0:0:3 #11)",
        f"hw_reset_bus(0) returned with 10 requests outstanding ({first})",
    ]
    assert noted(r, "reset_bus") == [(0, "path 0: reset of 0:0:3 #11")]
    assert noted(r, "reset_hold.begin") == [(0, "reset of 0:0:3 #11")]
    assert r.done[0].srb_status == SRB_STATUS_ERROR and r.port.counters["bus resets"] == 1
    r.clock.advance(2 * S - 1)
    assert len(r.done) == 1
    r.clock.advance(1)
    assert messages(r, "ER-13") == [
        f"#{number} is still outstanding at the end of the reset hold (reset of 0:0:3 #11)" for number in range(1, 11)
    ]
    assert noted(r, "reset_hold.end") == [(0, "reset of 0:0:3 #11")] and len(r.done) == 11


@pytest.mark.parametrize(
    ("function", "lun", "ended"),
    [
        (SRB_FUNCTION_RESET_LOGICAL_UNIT, 1, [(0, 0, 1)]),
        (SRB_FUNCTION_RESET_DEVICE, 1, [(0, 0, 0), (0, 0, 1)]),
        (SRB_FUNCTION_RESET_BUS, 0, [(0, 0, 0), (0, 0, 1), (0, 1, 1)]),
        (None, 0, []),
    ],
)
def test_ER_10_what_waits_ends_with_the_reset_it_is_in_the_scope_of(
    rig: Make, function: int | None, lun: int, ended: list[tuple[int, int, int]]
) -> None:
    """And with no other; without `reset_flushes_queue` none of it does."""
    wanted = function if function is not None else SRB_FUNCTION_RESET_BUS
    r = rig(next="", number_of_buses=2, options={"reset_flushes_queue": function is not None})
    r.miniport.reset_completes = r.miniport.reset_next = False
    r.command(lun=7)  # has the adapter
    waiting = {}
    for path, target, unit in ((0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)):
        srb = r.prepared(lun=unit)
        srb.path_id, srb.target_id = path, target
        waiting[path, target, unit] = srb
        r.port.submit(srb)
    r.submit(wanted, lun=lun)
    assert [where for where, srb in waiting.items() if srb in r.done] == ended
    assert {srb.srb_status for where, srb in waiting.items() if where in ended} <= {0x0E}


def test_ER_09_what_is_said_of_an_adapter_that_is_not_ready(rig: Make) -> None:
    """Every bus is reset, with the reason."""
    r = rig(next="", traced=True, number_of_buses=2, options={"stuck_after": 100})
    r.command(time_out_value=3)
    r.command(lun=1)
    r.command(lun=2)
    r.seconds(2)
    assert r.rules == []
    r.seconds(1)
    assert [(f.message, f.srb.split(" ")[0]) for f in r.verifier.findings] == [
        ("no NextRequest or NextLuRequest within 3 s since #1 was started; 2 requests wait for the adapter", "#1")
    ]
    assert noted(r, "reset_bus") == [(0, f"path {path}: no NextRequest since #1") for path in (0, 1)]
    assert r.port.counters["time-outs of the adapter"] == 1 and "time-outs of requests" not in r.port.counters


@pytest.mark.parametrize(
    ("answer", "why", "seconds"),
    [
        (None, "the abort on 0:0:0 timed out", 3),
        (SRB_STATUS_ABORT_FAILED, "the abort of #1 failed", 0),
        (SRB_STATUS_SUCCESS, "the abort of #1 failed", 0),  # although the request is there still
    ],
)
def test_ER_10_why_the_bus_is_reset(rig: Make, answer: int | None, why: str, seconds: int) -> None:
    r = rig(traced=True, options={"abort_timeout": 3})
    r.command(time_out_value=5)
    r.seconds(5)
    assert messages(r, "ER-09") == ["#1 on 0:0:0 was not completed within 5 s"]
    assert noted(r, "timeout") == [(1, None)] and r.port.counters["time-outs of requests"] == 1
    abort = r.miniport.held[-1]
    assert abort.function == SRB_FUNCTION_ABORT_COMMAND and abort.time_out_value == 3
    if answer is None:
        r.seconds(seconds - 1)
        assert noted(r, "reset_bus") == []
        r.seconds(1)
        assert noted(r, "abort") == [(2, "timed out")]
    else:
        r.hardware(lambda: r.miniport.finish(abort, answer))
    assert noted(r, "reset_bus") == [(0, f"path 0: {why}")]


def test_ER_10_an_abort_from_above_that_times_out_is_not_aborted(rig: Make) -> None:
    r = rig(next="next", traced=True)
    victim = r.command(lun=1, time_out_value=100)
    r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim, time_out_value=4)
    r.seconds(3)
    assert noted(r, "reset_bus") == []
    r.seconds(1)
    assert noted(r, "reset_bus") == [(0, "path 0: #2 timed out")]


def test_ER_10_a_second_time_out_while_the_first_is_being_aborted(rig: Make) -> None:
    r = rig(traced=True, options={"abort_timeout": 9})
    first = r.command(time_out_value=3)
    r.command(time_out_value=2)
    r.seconds(3)
    assert r.miniport.held[-1].function == SRB_FUNCTION_ABORT_COMMAND
    r.finish(first)
    r.seconds(1)
    assert noted(r, "reset_bus") == []
    r.seconds(1)
    # Once: that the reset ended the abort as well is no reason for another one.
    assert noted(r, "reset_bus") == [(0, "path 0: #2 timed out")] and r.port.outstanding == 0


def test_ER_10_the_shortest_time_an_abort_may_have(rig: Make) -> None:
    r = rig(options={"abort_timeout": 1})
    victim = r.command(time_out_value=2)
    r.seconds(2)
    assert r.miniport.held[-1].function == SRB_FUNCTION_ABORT_COMMAND and "reset_bus" not in r.miniport.log
    r.seconds(1)
    assert "reset_bus" in r.miniport.log and victim in r.done


# -- notifications ----------------------------------------------------------------------------------------------------


def test_rare_notifications_are_counted(rig: Make) -> None:
    r = rig(number_of_buses=3)
    paths: list[int] = []
    r.port.on_bus_change = paths.append
    port = r.miniport.port
    r.hardware(lambda: port.notification(BUS_CHANGE_DETECTED, 2))
    r.hardware(lambda: port.notification(BUS_CHANGE_DETECTED))
    r.hardware(lambda: port.notification(WMI_EVENT, b""))
    r.hardware(lambda: port.notification(WMI_REREGISTER))
    r.hardware(lambda: port.notification(99))
    r.hardware(lambda: port.notification(RESET_DETECTED, None))
    r.loop.run_once(0)
    assert paths == [2, 0]
    counters = r.port.snapshot()["counters"]
    assert (counters["unknown notifications"], counters["resets detected"]) == (1, 1)
    assert [counters[name] for name in ("BusChangeDetected", "WMIEvent", "WMIReregister")] == [2, 1, 1]
    assert messages(r, "SP-09") == ["notification type 99 does not exist in SCSI Port"]


def test_IN_04_what_is_said_of_deferred_interrupts(rig: Make) -> None:
    r = rig()
    port = r.miniport.port
    r.hardware(lambda: port.notification(CALL_ENABLE_INTERRUPTS, lambda: None))
    assert messages(r, "IN-04") == [
        "CallEnableInterrupts while the adapter's interrupts are not disabled",
        "the CallEnableInterrupts routine returned without CallDisableInterrupts",
    ]


def test_IN_04_an_earlier_routine_is_not_called(rig: Make) -> None:
    """What was named before the deferral began is forgotten."""
    r = rig()
    port, called = r.miniport.port, []

    def interrupt() -> None:
        r.chip.interrupts_enabled = False
        port.notification(CALL_DISABLE_INTERRUPTS, lambda: called.append("early"))
        port.notification(CALL_ENABLE_INTERRUPTS, lambda: called.append("deferred"))

    r.hardware(interrupt)
    assert called == ["deferred"]
    assert messages(r, "IN-04")[-1] == "the CallEnableInterrupts routine returned without CallDisableInterrupts"


def test_SP_11_SP_12_what_is_said_of_next_lu(rig: Make) -> None:
    r = rig(next="", tagged=False)
    r.command()
    r.hardware(lambda: r.miniport.port.notification(NEXT_LU_REQUEST, 0, 0, 0))
    assert messages(r, "SP-11") == ["NextLuRequest without TaggedQueuing or MultipleRequestPerLu"]
    assert messages(r, "SP-12") == ["NextLuRequest for 0:0:0 while an untagged request is active there"]


@pytest.mark.parametrize(("returned", "kept"), [(False, False), (None, True), (1, True), ("", True)])
def test_SP_06_what_start_io_may_return(rig: Make, returned: object, kept: bool) -> None:
    """Anything but True is told of; only False fails the request."""
    r = rig(next="")
    r.miniport.returns = returned
    srb = r.command()
    assert messages(r, "SP-06") == [f"hw_start_io returned {returned!r} instead of True"]
    assert (srb not in r.done) == kept and r.port.slot.busy == kept


def test_IN_07_a_polled_adapter_is_told_of_by_request(rig: Make) -> None:
    r = rig(bus_interrupt_level=0)
    r.command()
    assert [(f.message, f.srb.split(" ")[0]) for f in r.verifier.findings] == [
        ("hw_start_io of a polled adapter returned with a request outstanding and no timer", "#1")
    ]
    r.miniport.instantly = SRB_STATUS_SUCCESS
    r.command(lun=1)
    assert len(r.rules) == 1


def test_tags_that_run_out_are_counted(rig: Make) -> None:
    r = rig()
    for _ in range(33):
        r.command()
    assert r.port.counters["waits for a tag"] == 1
    r.next()
    assert r.port.counters["waits for a tag"] == 1 and r.port.counters["spurious next"] == 1


def test_get_srb_by_its_whole_address(rig: Make) -> None:
    r = rig(number_of_buses=2)
    port = r.miniport.port
    srbs = {}
    for path, target, lun in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 3)):
        srb = r.prepared(lun=lun)
        srb.path_id, srb.target_id = path, target
        r.port.submit(srb)
        srbs[path, target, lun] = r.held(srb)
    for where, held in srbs.items():
        assert port.get_srb(*where, held.queue_tag) is held
        assert port.get_srb(*where, held.queue_tag + 1) is None and port.get_srb(*where, 0xFF) is None
    assert port.get_srb(1, 2, 2, 1) is None
    r.hardware(lambda: r.miniport.port.notification(NEXT_LU_REQUEST, 1, 2, 3))
    assert r.rules == []


def test_ER_15_what_complete_request_says(rig: Make) -> None:
    r = rig(traced=True)
    r.command()
    r.command(lun=1)
    r.hardware(lambda: r.miniport.port.complete_request(0, 0, 1, 0x0E))
    assert (2, "CompleteRequest 0x0e") in noted(r, "notification")
    assert len(r.done) == 1 and r.done[0].lun == 1
    # From no callback it is acted on in the next turn.
    r.miniport.port.complete_request(0, 0, 0, 0x0E)
    assert len(r.done) == 1
    r.loop.run_once(0)
    assert len(r.done) == 2


def test_next_of_nobody_is_a_next_too_many(rig: Make) -> None:
    r = rig(next="")
    r.hardware(lambda: r.miniport.port.notification(NEXT_REQUEST))
    r.command()
    r.next()
    r.next()
    assert r.port.counters["spurious next"] == 2


# -- the way through the port -----------------------------------------------------------------------------------------


def test_ER_06_busy_requests_of_one_unit_are_all_sent_again(rig: Make) -> None:
    """The first is parked, the others go back into the queue; so they do while it is frozen."""
    r = rig()
    srbs = [r.command(key=key) for key in range(3)]
    for srb in srbs:
        r.finish(srb, SRB_STATUS_BUSY)
    assert r.done == [] and r.port.outstanding == 0
    r.seconds(1)
    assert all(r.held(srb) for srb in srbs)
    r.finish(srbs[0], CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.finish(srbs[1], SRB_STATUS_BUSY)
    r.seconds(3)
    assert r.real(r.miniport.held[0]) is srbs[2] and len(r.miniport.held) == 1
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert len(r.miniport.held) == 2 and r.held(srbs[1])


def test_ER_06_a_retry_is_its_units_one_request_at_the_adapter(rig: Make) -> None:
    r = rig()
    busy = r.command(key=1)
    r.finish(busy, SRB_STATUS_BUSY)
    waiting = r.command(key=2)
    r.miniport.next = ""
    other = r.command(lun=1)
    r.seconds(1)
    assert r.port.snapshot()["adapter"]["queue"] == [1] and r.started(other)
    r.next()
    assert r.held(busy) and not r.started(waiting)
    r.next()
    assert not r.started(waiting)
    r.finish(busy)
    assert r.started(waiting)


def test_ER_06_what_a_busy_request_held_up_goes_on(rig: Make) -> None:
    """Its tag is free, and it is no longer active: who waited for either has what it waited for."""
    r = rig()
    srbs = [r.command() for _ in range(32)]
    waits = r.command(lun=1)
    assert not r.started(waits)
    r.finish(srbs[0], SRB_STATUS_BUSY)
    assert r.started(waits)
    r = rig()
    busy, untagged = r.command(), r.command(srb_flags=0)
    assert not r.started(untagged)
    r.finish(busy, SRB_STATUS_BUSY)
    assert r.started(untagged)


def test_ER_06_what_is_on_its_way_to_the_adapter_passes_a_parked_request(rig: Make) -> None:
    r = rig(next="")
    first = r.command(key=1)
    r.command(lun=1)
    r.hardware(lambda: r.miniport.port.notification(NEXT_LU_REQUEST, 0, 0, 0))
    second = r.command(key=2)
    assert not r.started(second)
    r.finish(first, SRB_STATUS_BUSY)
    r.next()
    assert r.started(second)


@pytest.mark.parametrize("status", [SRB_STATUS_BUSY, 0x02])
def test_other_functions_are_neither_sent_again_nor_freeze(rig: Make, status: int) -> None:
    r = rig(next="next")
    srb = r.submit(SRB_FUNCTION_IO_CONTROL)
    r.finish(srb, status)
    assert r.done == [srb] and srb.srb_status == status
    assert not r.port.snapshot()["units"][0]["frozen"]


def test_ER_03_sense_data_of_sense_data_is_not_fetched(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command()
    r.finish(failed, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.finish(status=SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.done == [failed] and r.miniport.held == []
    assert failed.srb_status & 0x3F == SRB_STATUS_REQUEST_SENSE_FAILED


def test_success_with_sense_data_is_success(rig: Make) -> None:
    r = rig(options={"freeze_on_any_error": True})
    srb = r.command()
    r.finish(srb, SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID)
    assert r.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID
    assert r.started(r.command())


def test_Q_11_what_was_on_its_way_when_its_unit_was_locked_goes_back(rig: Make) -> None:
    r = rig(next="")
    r.command()
    waits = r.command(lun=1)
    r.submit(SRB_FUNCTION_LOCK_QUEUE, lun=1)
    r.next()
    assert not r.started(waits)
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, lun=1, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert r.started(waits)


def test_Q_12_what_waits_behind_power_is_started(rig: Make) -> None:
    r = rig(next="")
    r.command(lun=1)
    power = r.submit(SRB_FUNCTION_POWER)
    behind = r.command()
    r.next()
    assert power in r.done and r.started(behind)


def test_SP_11_next_lu_by_its_whole_address_and_once(rig: Make) -> None:
    r = rig(next="", number_of_buses=2)
    addresses = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 2, 3)]

    def submit(path: int, target: int, lun: int) -> Any:
        srb = r.prepared(lun=lun)
        srb.path_id, srb.target_id = path, target
        r.port.submit(srb)
        return srb

    for where in addresses:
        first, second, third = [submit(*where) for _ in range(3)]
        assert r.started(first) and not r.started(second)
        r.hardware(lambda where=where: r.miniport.port.notification(NEXT_LU_REQUEST, *where))  # type: ignore[misc]
        assert r.started(second)
        r.next()  # for the adapter, not for the unit
        assert not r.started(third)


def test_ER_14_which_path_was_reset(rig: Make) -> None:
    r = rig(number_of_buses=2, traced=True)
    here, there = r.prepared(), r.prepared()
    there.path_id = 1
    r.port.submit(here)
    r.port.submit(there)
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 1))
    r.seconds(5)
    assert r.done == [there] and len(messages(r, "ER-13")) == 1
    fired: list[int] = []
    r.hardware(lambda: r.miniport.port.notification(REQUEST_TIMER_CALL, lambda: fired.append(1), 10_000))
    r.clock.advance(S)
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    r.clock.advance(S)
    # Each is acted on once.
    assert noted(r, "reset_hold.begin") == [(0, "ResetDetected")] * 2 and fired == [1]


def test_ER_12_a_hold_that_is_over_while_something_runs(rig: Make) -> None:
    """It ends after that: while completions go up, and inside the miniport's timer routine."""
    r = rig(traced=True)
    seen: list[list[str]] = []

    def time_passes(_: Any = None) -> None:
        r.clock.advance(10 * S)
        seen.append(r.kinds("reset_hold.end"))

    srb = r.command(completion=time_passes, time_out_value=100)
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    r.finish(srb)
    r.loop.run_once(0)
    assert seen == [[]] and r.kinds("reset_hold.end") == ["reset_hold.end"]
    r.hardware(lambda: r.miniport.port.notification(REQUEST_TIMER_CALL, time_passes, 10_000))
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, 0))
    r.clock.advance(10 * MS)
    assert seen[1] == ["reset_hold.end"]
    r.loop.run_once(0)
    assert len(r.kinds("reset_hold.end")) == 2


def test_ER_11_a_bus_reset_that_crashes(rig: Make) -> None:
    r = rig()
    r.miniport.hw_reset_bus = lambda path_id: 1 // 0  # type: ignore[method-assign]
    reset = r.submit(SRB_FUNCTION_RESET_DEVICE)
    assert reset.srb_status == SRB_STATUS_ERROR and "BC-01" in r.rules
    assert messages(r, "ER-11") == ["hw_reset_bus(0) returned False: the bus was not reset (reset of 0:0:0 #1)"]


def test_IN_04_no_interrupt_between_the_notification_and_its_routine(rig: Make) -> None:
    r = rig()
    port, log = r.miniport.port, r.miniport.log
    r.miniport.dismisses = False

    def deferred() -> None:
        log.append("deferred")
        r.chip.acknowledge()
        port.notification(CALL_DISABLE_INTERRUPTS, lambda: log.append("disable"))

    r.hardware(lambda: port.notification(CALL_ENABLE_INTERRUPTS, deferred))
    assert log[2:] == ["isr", "deferred", "disable", "isr"]  # the last for what was raised meanwhile


def test_what_an_srb_brings_along_counts_for_nothing(rig: Make) -> None:
    """Members the port fills in for the miniport."""
    r = rig(next="next", verifier="off", traced=False)
    srb = r.prepared(size=0, srb_flags=0)
    srb.data_buffer, srb.queue_tag = "somebody's", 5  # type: ignore[assignment]
    r.port.submit(srb)
    assert (r.miniport.held[0].data_buffer, r.miniport.held[0].queue_tag) == (None, 0xFF)


def test_SP_09_a_next_from_no_callback_is_acted_on_in_the_next_turn(rig: Make) -> None:
    r = rig(next="")
    r.command()
    waits = r.command(lun=1)
    r.miniport.port.notification(NEXT_REQUEST)
    assert not r.started(waits)
    r.loop.run_once(0)
    assert r.started(waits)


def test_what_a_completion_asks_for_is_started_after_it(rig: Make) -> None:
    r = rig()
    after: list[bool] = []
    following = r.prepared()

    def ended(_: Any) -> None:
        r.port.submit(following)
        after.append(r.started(following))

    r.finish(r.command(completion=ended))
    assert after == [False] and r.started(following)


def test_SP_07_of_the_last_second(rig: Make) -> None:
    """What has held the adapter since less than a tick is not said to have held it for one."""
    r = rig(next="", options={"stuck_after": 1})
    r.command(time_out_value=100)
    r.command(lun=1, time_out_value=100)
    assert r.port.snapshot()["stuck"] == []
    r.seconds(1)
    assert messages(r, "SP-07") == ["no NextRequest since #1 was started 1 s ago; 1 requests wait"]


# -- resets, and what is forgotten with them --------------------------------------------------------------------------


def reset_detected(r: Rig, path: int = 0) -> None:
    r.hardware(lambda: r.miniport.port.notification(RESET_DETECTED, path))


@pytest.mark.parametrize("adapter_reset", [False, True])
def test_ER_12_the_last_reset_counts(rig: Make, adapter_reset: bool) -> None:
    """The hold begins anew; one that an adapter reset has ended does not end the next one."""
    r = rig(traced=True, options={"bus_reset_hold_time": 4})
    reset_detected(r)
    r.clock.advance(2 * S)
    if adapter_reset:
        r.port.reset_adapter()
    reset_detected(r)
    r.clock.advance(4 * S - 1)
    r.loop.run_once(0)
    assert noted(r, "reset_hold.end") == []
    r.clock.advance(1)
    assert len(noted(r, "reset_hold.end")) == 1


def test_ER_13_only_of_the_paths_that_were_reset(rig: Make) -> None:
    r = rig(number_of_buses=2)
    reset_detected(r, 1)
    r.seconds(5)
    srb = r.prepared(time_out_value=100)
    srb.path_id = 1
    r.port.submit(srb)
    reset_detected(r, 0)
    r.seconds(5)
    assert r.rules == [] and srb not in r.done


def test_ER_10_nothing_is_started_between_the_wish_and_the_reset(rig: Make) -> None:
    r = rig()
    following = r.prepared(lun=1)

    def ended(_: Any) -> None:
        r.submit(SRB_FUNCTION_RESET_LOGICAL_UNIT)
        r.port.submit(following)

    r.finish(r.command(completion=ended))
    assert "reset_bus" in r.miniport.log and not r.started(following)
    r.seconds(5)
    assert r.started(following)


def test_ER_03_a_reset_takes_away_who_waits_for_sense_data(rig: Make) -> None:
    """Once, with the REQUEST SENSE that has not begun; the unit goes on."""
    r = rig(next="", auto_request_sense=False)
    failed = r.command()
    r.next()
    r.command(lun=1)  # has the adapter
    r.finish(failed, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert "waits for sense data" in r.port.snapshot()["units"][0]["blocked"]
    r.miniport.next = "lu"
    r.submit(SRB_FUNCTION_RESET_LOGICAL_UNIT)
    assert r.done.count(failed) == 1 and failed.srb_status == 0x0E
    r.seconds(5)
    assert [srb.cdb[0] for srb in r.miniport.started if srb.cdb] == [0x28, 0x28]
    again = r.command()
    r.finish(again, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.miniport.held[-1].cdb[0] == 3


def test_ER_03_an_adapter_reset_ends_who_waits_for_sense_data(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command()
    r.finish(failed, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.miniport.held[0].cdb[0] == 3
    r.port.reset_adapter()
    assert r.done == [failed] and failed.srb_status & 0x3F == 0x0E
    again = r.command()
    r.finish(again, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.miniport.held[0].cdb[0] == 3


def test_ER_03_a_second_error_meanwhile_goes_up(rig: Make) -> None:
    r = rig(auto_request_sense=False)
    first, second = r.command(), r.command()
    r.finish(first, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.finish(second, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.done == [second]


def test_a_reset_leaves_its_unit_ready(rig: Make) -> None:
    """Whose request was on its way to the adapter."""
    r = rig(next="")
    r.miniport.reset_completes = False
    r.command()
    waiting = r.command(lun=1)
    r.submit(SRB_FUNCTION_RESET_LOGICAL_UNIT, lun=1)
    assert waiting.srb_status == 0x0E
    later = r.command(lun=1)
    r.seconds(5)
    assert r.started(later)


def test_RS_08_a_unit_that_goes_leaves_no_one_waiting_for_its_tag(rig: Make) -> None:
    r = rig()
    for _ in range(32):
        r.command()
    victim, untagged = r.command(lun=7), r.command(lun=1, srb_flags=0)
    assert not r.started(untagged)
    r.port.remove_unit(0, 0, 7, True, lambda _: None)
    assert victim.srb_status == SRB_STATUS_NO_DEVICE and r.started(untagged)


def test_an_adapter_that_has_not_started_says_so(rig: Make) -> None:
    r = rig(start=False)
    adapter = r.port.snapshot()["adapter"]
    assert {name: adapter[name] for name in ("state", "blocked", "queue", "free_tags", "map_buffers", "overlap")} == {
        "state": "READY",
        "blocked": [],
        "queue": [],
        "free_tags": 0,
        "map_buffers": False,
        "overlap": False,
    }


def test_an_adapter_reset_forgets_what_was_notified_before(rig: Make) -> None:
    """From no callback, so that it waits to be acted on."""
    r = rig(next="", traced=True, number_of_buses=2)
    port, called = r.miniport.port, []
    r.command()
    r.command(key=1)
    port.notification(NEXT_LU_REQUEST, 0, 0, 0)
    port.notification(RESET_DETECTED, 1)
    r.chip.interrupts_enabled = False
    port.notification(CALL_ENABLE_INTERRUPTS, lambda: called.append(1))
    r.port.reset_adapter()
    r.chip.interrupts_enabled = True
    first, second, other = r.command(), r.command(key=1), r.command(lun=1)
    r.loop.run_once(0)
    assert r.started(first) and not r.started(second) and not r.started(other)
    assert called == [] and noted(r, "reset_hold.begin") == []
    assert "spurious next" not in r.port.counters
    r.next()
    assert r.started(other) and not r.started(second)


def test_an_adapter_reset_gives_all_tags_back_and_opens_the_slot(rig: Make) -> None:
    r = rig(options={"stuck_after": 100})
    for _ in range(33):
        r.command()
    r.port.reset_adapter()
    r.miniport.held.clear()
    for _ in range(32):
        r.command()
    assert len(r.miniport.held) == 32
    r = rig(next="", options={"stuck_after": 100})
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_DISABLE_DISCONNECT, time_out_value=3)
    r.port.reset_adapter()
    assert r.port.snapshot()["adapter"]["blocked"] == []
    r.submit(SRB_FUNCTION_LOCK_QUEUE)  # so that there are ticks
    r.seconds(10)
    assert r.rules == []


def test_an_adapter_reset_unlocks_and_forgets_what_was_active(rig: Make) -> None:
    r = rig(next="next", options={"stuck_after": 100})
    r.command(srb_flags=0)
    r.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="power")
    r.port.reset_adapter()
    r.miniport.held.clear()
    assert r.started(r.command())
    r.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="other")
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_LOCKED_QUEUE, original_request="other")
    assert r.rules == []


@pytest.mark.parametrize("how", ["aborted", "reset"])
def test_ER_10_each_time_out_is_aborted_first(rig: Make, how: str) -> None:
    """One that went before, and ended or was forgotten, changes nothing."""
    r = rig(options={"abort_timeout": 4})
    victim = r.command(time_out_value=2)
    r.seconds(2)
    abort = r.miniport.held[-1]
    if how == "reset":
        r.port.reset_adapter()
        r.miniport.held.clear()
    else:
        r.finish(victim)
        r.hardware(lambda: r.miniport.finish(abort))
    r.command(time_out_value=2)
    r.seconds(2)
    assert r.miniport.held[-1].function == SRB_FUNCTION_ABORT_COMMAND
    r.seconds(3)
    assert "reset_bus" not in r.miniport.log
    r.seconds(1)
    assert "reset_bus" in r.miniport.log


def test_ER_10_an_abort_that_never_began_is_taken_back(rig: Make) -> None:
    r = rig(options={"abort_timeout": 3, "stuck_after": 100})
    r.command(time_out_value=5)
    r.miniport.next = ""
    r.command(lun=1, time_out_value=100)  # has the adapter
    r.seconds(7)
    assert "reset_bus" not in r.miniport.log
    r.seconds(1)
    assert "reset_bus" in r.miniport.log
    r.seconds(5)
    assert {r.real(srb).function for srb in r.miniport.started} == {0}
    assert "aborts of completed requests" not in r.port.counters


def test_ER_09_a_time_out_in_the_second_in_which_an_abort_ends(rig: Make) -> None:
    r = rig(number_of_buses=2, options={"abort_timeout": 3})
    r.command(time_out_value=2)
    other = r.prepared(time_out_value=5)
    other.path_id = 1
    r.port.submit(other)
    r.seconds(5)
    assert [message.split(" ")[0] for message in messages(r, "ER-09")] == ["#1", "#2"]


def test_ER_09_the_adapter_gets_its_time_again_after_a_reset(rig: Make) -> None:
    options = {"stuck_after": 100, "reclaim_lost": False, "bus_reset_hold_time": 1}
    r = rig(next="", options=options)
    r.miniport.reset_completes = r.miniport.reset_next = False
    r.command(time_out_value=4)
    r.seconds(4)
    assert r.port.counters["time-outs of the adapter"] == 1
    r.seconds(2)
    assert r.port.counters["time-outs of the adapter"] == 1
    r.seconds(3)
    assert r.port.counters["time-outs of the adapter"] == 2


def test_SP_07_is_told_once_of_a_slot_that_was_opened(rig: Make) -> None:
    r = rig(next="", options={"stuck_after": 100})
    r.miniport.reset_next = False
    r.command(time_out_value=5)
    r.seconds(10)
    assert r.rules == ["SP-07", "SP-07"]
    r.submit(SRB_FUNCTION_LOCK_QUEUE)  # so that there are ticks
    r.seconds(20)
    assert r.rules == ["SP-07", "SP-07"]


def test_CF_05_a_transfer_of_one_byte_is_the_least(rig: Make) -> None:
    assert rig(maximum_transfer_length=1).rules == []


def test_Q_09_a_release_of_what_is_not_frozen_is_not_noted(rig: Make) -> None:
    r = rig(traced=True)
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert noted(r, "release_queue") == []


def test_Q_06_a_request_sense_that_fails_freezes_nothing_by_itself(rig: Make) -> None:
    r = rig(next="next", auto_request_sense=False)
    failed = r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_NO_QUEUE_FREEZE)
    for _ in range(2):  # the command, and the REQUEST SENSE
        r.finish(status=SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.done == [failed] and not r.port.snapshot()["units"][0]["frozen"]


def test_IN_05_an_adapter_reset_cancels_the_timer(rig: Make) -> None:
    r = rig()
    fired: list[int] = []
    r.hardware(lambda: r.miniport.port.notification(REQUEST_TIMER_CALL, lambda: fired.append(1), 10_000))
    assert r.port.snapshot()["adapter"]["timer_armed"]
    r.port.reset_adapter()
    r.clock.advance(S)
    assert fired == [] and not r.port.snapshot()["adapter"]["timer_armed"]
