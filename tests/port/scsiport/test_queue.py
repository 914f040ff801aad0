"""Q: sort, freeze, lock, flush, tags."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.port.request import Request
from hba.port.scsiport.queue import SortedQueue
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_COMMAND_TERMINATED,
    SP_UNTAGGED,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_FLUSH_QUEUE,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_COMMAND_TIMEOUT,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_PARITY_ERROR,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_REQUEST_FLUSHED,
    SRB_STATUS_SUCCESS,
    SRB_STATUS_TIMEOUT,
    Srb,
)
from tests.port.fakes import Rig

Make = Callable[..., Rig]
CHECK = SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID
TAGGED_FLAG = SRB_FLAGS_QUEUE_ACTION_ENABLE


def freeze(r: Rig, lun: int = 0) -> Srb:
    """Freeze a unit by a CHECK CONDITION."""
    srb = r.command(lun=lun)
    r.finish(srb, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert srb.srb_status & SRB_STATUS_QUEUE_FROZEN
    return srb


def test_Q_01_each_unit_has_its_own_sorted_queue(rig: Make) -> None:
    r = rig(next="next")
    first = r.command(lun=0, key=50)
    for key in (70, 60, 80):
        r.command(lun=0, key=key)
    other = r.command(lun=1, key=1)
    assert r.started(first) and r.started(other)  # idle units start at once
    for _ in range(4):
        r.finish(next(srb for srb in map(r.real, r.miniport.held) if srb.lun == 0))
    assert [key for key in r.sort_keys() if key != 1] == [50, 60, 70, 80]


def test_Q_02_elevator_goes_one_way(rig: Make) -> None:
    r = rig(next="next")
    r.command(key=50)
    for key in (10, 60, 40, 70, 60):
        r.command(key=key)
    for _ in range(6):
        r.finish()
    assert r.sort_keys() == [50, 60, 70, 10, 40, 60]


@given(st.lists(st.integers(0, 20), max_size=40), st.data())
def test_Q_02_within_a_sweep_keys_never_decrease(keys: list[int], data: st.DataObject) -> None:
    queue = SortedQueue()
    served: list[int] = []
    waiting: list[tuple[int, int]] = []
    for number, key in enumerate(keys):
        srb = Srb()
        srb.queue_sort_key = key
        request = Request(srb)
        request.number = number
        queue.insert(request)
        waiting.append((key, number))
        while queue and data.draw(st.booleans()):
            last = queue.last_key
            popped = queue.pop()
            served.append(popped.number)
            ahead = [entry for entry in waiting if entry[0] > last]
            assert (popped.srb.queue_sort_key, popped.number) == min(ahead or waiting)  # equal keys: first come
            waiting.remove((popped.srb.queue_sort_key, popped.number))
    assert len(served) + len(queue) == len(keys)


def test_Q_03_the_reason_is_told(rig: Make) -> None:
    r = rig(next="next", tagged=False)
    r.command()
    r.command()
    unit = r.port.snapshot()["units"][0]
    assert unit["blocked"] == ["1 of 1 requests outstanding"]
    r.submit(SRB_FUNCTION_LOCK_QUEUE)
    assert "locked" in r.port.snapshot()["units"][0]["blocked"]


def test_Q_04_frozen_and_locked_are_independent(rig: Make) -> None:
    r = rig()
    freeze(r)
    r.submit(SRB_FUNCTION_LOCK_QUEUE)
    waiting = r.command()
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    unit = r.port.snapshot()["units"][0]
    assert (unit["frozen"], unit["locked"]) == (False, True)
    assert not r.started(waiting)
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert r.started(waiting)


@pytest.mark.parametrize(
    ("status", "scsi_status"),
    [
        (CHECK, SCSISTAT_CHECK_CONDITION),
        (SRB_STATUS_ERROR, SCSISTAT_COMMAND_TERMINATED),
        (SRB_STATUS_TIMEOUT, 0),
        (SRB_STATUS_COMMAND_TIMEOUT, 0),
        (SRB_STATUS_BUS_RESET, 0),
        (SRB_STATUS_ABORTED, 0),
    ],
)
def test_Q_05_what_freezes(rig: Make, status: int, scsi_status: int) -> None:
    r = rig()
    failed = r.command()
    r.finish(failed, status, scsi_status=scsi_status)
    assert failed.srb_status == status | SRB_STATUS_QUEUE_FROZEN
    assert r.port.snapshot()["units"][0]["frozen"]
    assert not r.started(r.command())


@pytest.mark.parametrize("any_error", [False, True])
def test_Q_05_other_errors_freeze_only_as_reactos_does(rig: Make, any_error: bool) -> None:
    r = rig(options={"freeze_on_any_error": any_error})
    failed = r.command()
    r.finish(failed, SRB_STATUS_PARITY_ERROR)
    assert bool(failed.srb_status & SRB_STATUS_QUEUE_FROZEN) == any_error


def test_Q_06_no_queue_freeze_is_for_this_srb_only(rig: Make) -> None:
    r = rig()
    failed = r.command(srb_flags=SRB_FLAGS_NO_QUEUE_FREEZE)
    r.finish(failed, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert not failed.srb_status & SRB_STATUS_QUEUE_FROZEN
    assert r.started(r.command())
    r.finish(status=CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.port.snapshot()["units"][0]["frozen"]


def test_Q_06_the_unit_waits_for_sense_data_all_the_same(rig: Make) -> None:
    r = rig(auto_request_sense=False)
    failed = r.command(srb_flags=SRB_FLAGS_NO_QUEUE_FREEZE)
    r.finish(failed, SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    waiting = r.command()
    assert not r.started(waiting)
    r.finish()  # the REQUEST SENSE
    assert not failed.srb_status & SRB_STATUS_QUEUE_FROZEN
    assert r.started(waiting)


def test_Q_07_only_bypassing_requests_pass(rig: Make) -> None:
    r = rig()
    freeze(r)
    waiting = r.command()
    passing = r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    assert r.started(passing) and not r.started(waiting)


def test_Q_07_power_passes_a_frozen_queue_but_no_lock(rig: Make) -> None:
    r = rig()
    freeze(r)
    waiting = r.command()
    power = r.submit(SRB_FUNCTION_POWER)
    assert power in r.done and not r.started(waiting)
    r.submit(SRB_FUNCTION_LOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    held = r.submit(SRB_FUNCTION_POWER)
    passing = r.submit(SRB_FUNCTION_POWER, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert passing in r.done and held not in r.done


def test_Q_07_what_was_on_its_way_to_the_adapter_goes_back(rig: Make) -> None:
    r = rig(next="")
    first, second = r.command(lun=0, key=1), r.command(lun=1)
    held = r.held(first)
    r.hardware(lambda: r.miniport.port.notification(2, 0, 0, 0))
    third = r.command(lun=0, key=2)  # in the adapter queue behind the second, which is started now
    assert r.started(second) and not r.started(third)
    r.hardware(lambda: r.miniport.finish(held, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION))
    r.next()
    assert not r.started(third)
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert r.started(third)


@pytest.mark.parametrize("flushes", [False, True])
def test_Q_08_a_bypass_flushes_only_if_told(rig: Make, flushes: bool) -> None:
    r = rig(options={"bypass_flushes": flushes})
    freeze(r)
    waiting = r.command()
    passing = r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_FROZEN_QUEUE)
    assert r.started(passing)
    assert (waiting.srb_status == SRB_STATUS_REQUEST_FLUSHED) == flushes


def test_Q_09_release(rig: Make) -> None:
    r = rig(options={"stuck_after": 10})
    idle = r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert idle.srb_status == SRB_STATUS_SUCCESS  # ignored
    freeze(r)
    waiting = r.command()
    r.seconds(12)
    assert r.rules == ["Q-09"]
    message = r.verifier.findings[0].message
    assert message.startswith("LU 0:0:0 frozen since") and "never released; 1 requests wait" in message
    assert r.port.snapshot()["stuck"] == [message]
    r.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert r.started(waiting)
    assert r.port.snapshot()["stuck"] == []


def test_Q_09_the_upper_edge_releases_for_guests(rig: Make) -> None:
    r = rig(options={"auto_release": True})
    first = r.command()
    second = r.command(lun=0)
    r.finish(first, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert first.srb_status & SRB_STATUS_QUEUE_FROZEN
    assert r.started(second) and r.started(r.command())


def test_Q_10_flush_queue(rig: Make) -> None:
    r = rig()
    refused = r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    assert refused.srb_status == SRB_STATUS_INVALID_REQUEST
    assert r.rules == ["Q-10"]
    freeze(r)
    waiting = [r.command(key=key) for key in range(3)]
    flushed = r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    assert flushed.srb_status == SRB_STATUS_SUCCESS
    assert [srb.srb_status for srb in waiting] == [SRB_STATUS_REQUEST_FLUSHED] * 3
    assert not any(r.started(srb) for srb in waiting)
    assert r.started(r.command())


def test_Q_10_what_waits_for_the_adapter_is_flushed_too_and_the_unit_goes_on(rig: Make) -> None:
    r = rig()
    failing = r.command(lun=1)
    r.miniport.next = ""
    r.command(lun=0)  # has the adapter
    waiting = r.command(lun=1)
    r.finish(failing, CHECK, scsi_status=SCSISTAT_CHECK_CONDITION)
    r.submit(SRB_FUNCTION_FLUSH_QUEUE, lun=1)
    assert waiting.srb_status == SRB_STATUS_REQUEST_FLUSHED
    later = r.command(lun=1)
    r.next()
    assert r.started(later) and not r.started(waiting)


def test_Q_10_the_adapters_cache_is_flushed_first(rig: Make) -> None:
    r = rig(caches_data=True)
    freeze(r)
    waiting = r.command()
    flushed = r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    flush = r.real(r.miniport.started[-1])
    assert flush.function == SRB_FUNCTION_FLUSH
    assert flushed not in r.done and waiting not in r.done
    r.finish(flush)
    assert waiting.srb_status == SRB_STATUS_REQUEST_FLUSHED and flushed.srb_status == SRB_STATUS_SUCCESS
    assert r.started(r.command())


def test_Q_10_an_unfrozen_queue_is_flushed_if_told(rig: Make) -> None:
    r = rig(next="", options={"flush_unfrozen": "flush"})
    running = r.command(lun=1)
    waiting = r.command()
    flushed = r.submit(SRB_FUNCTION_FLUSH_QUEUE)
    assert waiting.srb_status == SRB_STATUS_REQUEST_FLUSHED and flushed.srb_status == SRB_STATUS_SUCCESS
    assert r.rules == ["Q-10"] and running not in r.done
    later = r.command()
    r.next()
    assert r.started(later) and not r.started(waiting)
    assert r.done == [waiting, flushed] and r.rules == ["Q-10"]


def test_Q_11_lock_and_unlock(rig: Make) -> None:
    r = rig(options={"stuck_after": 10})
    r.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="power")
    waiting = r.command()
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_LOCKED_QUEUE, original_request="power")
    assert len(r.miniport.started) == 1 and r.rules == []
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_BYPASS_LOCKED_QUEUE, original_request="another driver")
    assert r.rules == ["Q-11"]
    stuck = r.submit(SRB_FUNCTION_UNLOCK_QUEUE)  # without the flag: behind its own lock
    assert r.rules == ["Q-11"] * 2
    assert stuck not in r.done and not r.started(waiting)
    r.seconds(12)
    assert "LU 0:0:0 locked since" in r.verifier.findings[-1].message
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert r.started(waiting)
    assert stuck.srb_status == SRB_STATUS_SUCCESS


def test_Q_12_lock_power_unlock(rig: Make) -> None:
    r = rig()
    r.submit(SRB_FUNCTION_LOCK_QUEUE)
    waiting = r.command()
    power = r.submit(SRB_FUNCTION_POWER, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert power.srb_status == SRB_STATUS_SUCCESS
    assert not r.started(waiting)
    r.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert r.started(waiting)


def test_Q_13_queue_frozen_from_the_miniport(rig: Make) -> None:
    r = rig()
    srb = r.command()
    r.finish(srb, SRB_STATUS_SUCCESS | SRB_STATUS_QUEUE_FROZEN)
    assert srb.srb_status == SRB_STATUS_SUCCESS
    assert r.rules == ["Q-13"]
    assert r.started(r.command())


def test_Q_14_live_tags_are_unique_and_never_0(rig: Make) -> None:
    r = rig()
    for _ in range(20):
        r.command()
    tags = [srb.queue_tag for srb in r.miniport.held]
    assert len(set(tags)) == 20 and 0 not in tags and SP_UNTAGGED not in tags
    r.finish()
    r.command()
    assert r.miniport.held[-1].queue_tag == tags[0]


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_Q_14_untagged_waits_until_the_tagged_ones_are_done(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    tagged = [r.command(), r.command()]
    untagged = r.command(srb_flags=0)
    later = r.command()
    assert not r.started(untagged) and not r.started(later)
    r.finish(tagged[0])
    assert not r.started(untagged)
    r.finish(tagged[1])
    assert r.started(untagged) and untagged.queue_tag == SP_UNTAGGED
    r.finish(untagged)
    assert r.started(later)


def test_Q_14_untagged_waits_for_an_abort_as_well(rig: Make) -> None:
    r = rig()
    victim = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    untagged = r.command(srb_flags=0)
    r.finish(victim)
    assert not r.started(untagged)
    r.finish(abort)
    assert r.started(untagged)


def test_SP_13_an_abort_counts_until_it_is_done(rig: Make) -> None:
    r = rig(next="next", tagged=False)
    victim = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    waiting = r.command()
    r.finish(victim)
    r.finish(abort)
    assert r.started(waiting)


def test_Q_14_disable_disconnect_is_never_tagged(rig: Make) -> None:
    r = rig()
    r.command(srb_flags=TAGGED_FLAG | SRB_FLAGS_DISABLE_DISCONNECT)
    assert r.miniport.held[0].queue_tag == SP_UNTAGGED


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_Q_14_no_free_tag_waits_for_a_completion(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    srbs = [r.command(key=key) for key in range(34)]
    assert len(r.miniport.started) == 32
    assert r.port.snapshot()["adapter"]["blocked"] == ["no free tag"]
    r.finish(srbs[0])
    r.finish(srbs[1])
    assert len(r.miniport.started) == 34
    while r.miniport.held:
        r.finish()
    assert len(r.done) == 34


@pytest.mark.parametrize(("option", "tags"), [(16, 32), (100, 200), (512, 254)])
def test_Q_15_size_of_the_pool(rig: Make, option: int, tags: int) -> None:
    r = rig(options={"number_of_requests": option, "requests_per_unit": 1000})
    for _ in range(300):
        r.command()
    assert len(r.miniport.held) == tags


@pytest.mark.parametrize("function", [SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN])
@pytest.mark.parametrize("caches", [False, True])
def test_Q_16_flush_and_shutdown(rig: Make, function: int, caches: bool) -> None:
    r = rig(caches_data=caches)
    srb = r.submit(function)
    assert r.started(srb) == caches
    if caches:
        r.finish(srb)
    assert srb.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize(("target", "lun"), [(64, 0), (0, 8), (300, 0)])
def test_Q_17_addresses_the_adapter_cannot_have(rig: Make, target: int, lun: int) -> None:
    r = rig()
    srb = r.submit(0, target, lun, cdb=bytes(6))
    assert srb.srb_status == SRB_STATUS_NO_DEVICE
    assert r.done == [srb] and r.miniport.started == []


def test_Q_17_another_path(rig: Make) -> None:
    r = rig()
    srb = r.srb()
    srb.path_id = 1
    r.port.submit(srb)
    assert srb.srb_status == SRB_STATUS_NO_DEVICE
