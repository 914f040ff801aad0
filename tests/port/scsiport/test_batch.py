"""Requests that the adapter hands down together (`submit_all`): every rule holds as for single ones.

The rigs are not traced, so batches take their own way through the port; "off" and "report" differ in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hba.clock import S
from hba.miniport.services import NEXT_LU_REQUEST, NEXT_REQUEST, REQUEST_COMPLETE
from hba.port.buffers import MappedBuffer, OpaqueBuffer
from hba.srb import (
    SRB_STATUS_BUSY,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import Rig

Make = Callable[..., Rig]
levels = pytest.mark.parametrize("verifier", ["off", "report"])


def submitted(r: Rig, *srbs: Srb) -> None:
    r.port.submit_all(srbs)


def numbers(r: Rig) -> list[int]:
    return [request.number for unit in r.port.units.values() for request in unit.active]


@levels
def test_all_are_started_and_end_in_one_dpc(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    srbs = [r.prepared(key=key) for key in range(5)]
    submitted(r, *srbs)
    assert r.sort_keys() == [0, 1, 2, 3, 4] and numbers(r) == [1, 2, 3, 4, 5]
    assert len({srb.queue_tag for srb in srbs}) == 5
    assert (r.port.outstanding, r.port.units[0].started, r.port.units[0].completed) == (5, 5, 0)
    held = list(r.miniport.held)
    r.hardware(lambda: [r.miniport.finish(srb) for srb in held] and None)
    assert r.done == srbs
    assert (r.port.outstanding, r.port.units[0].started, r.port.units[0].completed) == (0, 5, 5)
    assert len(r.port.slot.free_tags) == 32
    assert r.rules == []


@levels
def test_SP_02_none_is_started_before_the_miniport_says_next(rig: Make, verifier: str) -> None:
    r = rig(next="", verifier=verifier, traced=False, options={"stuck_after": 100})
    srbs = [r.prepared(lun=lun, key=lun) for lun in range(3)]
    submitted(r, *srbs)
    assert r.sort_keys() == [0]
    assert r.port.slot.busy and r.port.slot.busy_with.srb is srbs[0]
    r.next()
    assert r.sort_keys() == [0, 1]


@levels
def test_SP_10_next_request_makes_the_adapter_ready_but_no_unit(rig: Make, verifier: str) -> None:
    r = rig(next="next", verifier=verifier, traced=False)
    first, second, other = r.prepared(key=1), r.prepared(key=2), r.prepared(lun=1, key=3)
    submitted(r, first, second, other)
    assert r.sort_keys() == [1, 3]
    assert not r.port.slot.busy
    r.finish(first)
    assert r.sort_keys() == [1, 3, 2]


@levels
def test_SP_11_next_lu_request_for_another_unit(rig: Make, verifier: str) -> None:
    """READY for the adapter; the unit whose request was started waits for its own."""
    r = rig(next="", verifier=verifier, traced=False)
    r.port.submit(r.prepared(lun=1, key=9))
    r.next()
    r.miniport.on_start = lambda srb: r.miniport.port.notification(NEXT_LU_REQUEST, 0, 0, 1)
    submitted(r, r.prepared(key=1), r.prepared(key=2), r.prepared(lun=1, key=3))
    assert r.sort_keys() == [9, 1, 3]


@levels
def test_SP_15_next_twice_starts_nothing_twice(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    r.miniport.on_start = r.miniport.notify_next
    submitted(r, *[r.prepared(key=key) for key in range(4)])
    assert r.sort_keys() == [0, 1, 2, 3]
    r.miniport.on_start = lambda srb: r.miniport.port.notification(NEXT_REQUEST)
    submitted(r, *[r.prepared(key=key) for key in range(4, 8)])
    assert r.sort_keys() == list(range(8))


@levels
def test_Q_05_the_depth_of_a_unit_is_kept(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False, options={"requests_per_unit": 3})
    srbs = [r.prepared(key=key) for key in range(5)]
    submitted(r, *srbs)
    assert r.sort_keys() == [0, 1, 2]
    r.finish(srbs[0])
    assert r.sort_keys() == [0, 1, 2, 3]


@levels
def test_a_crash_ends_one_request_and_not_its_batch(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)

    def crash(srb: Srb) -> None:
        if r.real(srb).queue_sort_key == 1:
            r.miniport.held.remove(srb)
            raise RuntimeError("as told")

    r.miniport.on_start = crash
    srbs = [r.prepared(key=key) for key in range(3)]
    submitted(r, *srbs)
    assert r.done == [srbs[1]]
    assert srbs[1].srb_status & SRB_STATUS_MASK == SRB_STATUS_INTERNAL_ERROR
    r.port.submit(r.srb(0x10))  # RELEASE_QUEUE: the error froze the unit
    assert r.sort_keys() == [0, 1, 2]
    assert r.port.outstanding == 2 and r.port.callback == 0


@levels
def test_SP_06_false_from_start_io(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False, options={"auto_release": True})
    r.miniport.returns = False
    srbs = [r.prepared(key=key) for key in range(2)]
    submitted(r, *srbs)
    assert sorted(srb.queue_sort_key for srb in r.done) == [0, 1]
    assert r.rules == (["SP-06", "SP-06"] if verifier == "report" else [])


@levels
def test_ER_06_a_busy_request_is_sent_again_with_its_whole_length(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    for _ in range(2):  # the second time with request objects that were used before
        srb = r.prepared()
        submitted(r, srb, r.prepared(lun=1))
        r.finish(srb, SRB_STATUS_BUSY, data_transfer_length=0)
        r.seconds(1)
        assert srb not in r.done
        r.finish(srb)
        assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, 512)
        r.finish()
        assert len(r.miniport.held) == 0


@levels
def test_ER_09_a_unit_that_is_never_idle_does_not_time_out(rig: Make, verifier: str) -> None:
    """Request objects are used again, so the oldest one at every tick may be the same object: it is not the same
    request."""
    r = rig(verifier=verifier, traced=False, options={"default_timeout": 3, "stuck_after": 100})
    last = r.prepared()
    submitted(r, last, r.prepared(lun=1))
    r.finish(r.miniport.held[1] and r.real(r.miniport.held[1]))
    for _ in range(12):
        r.seconds(1)
        r.finish(last)
        last = r.prepared()
        submitted(r, last)
    assert "reset_bus" not in r.miniport.log and r.rules == []
    r.seconds(3)
    r.seconds(3)
    assert r.port.counters["time-outs of requests"] >= 1


def next_and_finish(r: Rig, held: Srb) -> None:
    r.miniport.port.notification(NEXT_REQUEST)
    r.miniport.finish(held)


@levels
def test_ER_09_a_new_slot_owner_in_an_old_object(rig: Make, verifier: str) -> None:
    """The same for the slot: each request is told "next" for only after its end, once a second."""
    r = rig(next="", verifier=verifier, traced=False, options={"default_timeout": 3, "stuck_after": 100})
    for _ in range(12):
        srb = r.prepared()
        submitted(r, srb)
        r.seconds(1)
        held = r.held(srb)
        r.hardware(partial(next_and_finish, r, held))
    assert len(r.done) == 12
    assert "reset_bus" not in r.miniport.log and r.rules == []


@levels
def test_what_holds_the_slot_is_not_used_again(rig: Make, verifier: str) -> None:
    """Completed, but no "next" has come: it is what the slot waits for."""
    r = rig(next="", verifier=verifier, traced=False, options={"stuck_after": 100})
    first = r.prepared()
    submitted(r, first)
    r.finish(first)
    assert r.done == [first] and r.port.slot.busy
    owner = r.port.slot.busy_with
    submitted(r, r.prepared(key=1))
    assert r.port.slot.busy_with is owner and owner.number == 1
    r.next()
    assert r.sort_keys() == [0, 1] and r.port.slot.busy_with.number == 2


@levels
@pytest.mark.parametrize(("mapped", "kind"), [(True, MappedBuffer), (False, OpaqueBuffer)])
def test_CF_01_the_buffer_of_the_configuration(rig: Make, verifier: str, mapped: bool, kind: type) -> None:
    r = rig(verifier=verifier, traced=False, map_buffers=mapped)
    seen: list[Any] = []
    r.miniport.on_start = lambda srb: seen.append(srb.data_buffer)
    for _ in range(2):
        srbs = [r.prepared(), r.prepared()]
        submitted(r, *srbs)
        assert [type(buffer) for buffer in seen] == [kind, kind]
        assert [buffer.request.srb for buffer in seen] == srbs
        seen.clear()
        for srb in srbs:
            r.finish(srb)


# -- what the verifier sees ------------------------------------------------------------------------------------------


def test_OW_01_the_srb_is_not_the_miniports_after_completion(rig: Make) -> None:
    r = rig(traced=False)
    srb = r.prepared()
    submitted(r, srb, r.prepared(key=1))
    held = r.held(srb)
    r.finish(srb)
    assert held.cdb == srb.cdb
    assert r.rules == ["OW-01"]


def test_OW_02_completed_twice(rig: Make) -> None:
    r = rig(traced=False)
    srb = r.prepared()
    submitted(r, srb, r.prepared(key=1))
    held = r.held(srb)
    r.hardware(lambda: [r.miniport.port.notification(REQUEST_COMPLETE, held) for _ in range(2)] and None)
    assert "OW-02" in r.rules
    assert r.done == [srb]


def test_IN_03_stalls_in_start_io(rig: Make) -> None:
    r = rig(traced=False)
    r.miniport.on_start = lambda srb: [r.miniport.port.stall_execution(1000) for _ in range(501)] and None
    submitted(r, r.prepared(), r.prepared())
    assert r.rules == ["IN-03", "IN-03"]
    assert "hw_start_io stalled 501.0 ms in all" in r.verifier.findings[0].message


def test_IN_03_time_on_the_clock_is_not_the_miniports(rig: Make) -> None:
    r = rig(traced=False)
    r.miniport.on_start = lambda srb: r.clock.advance(S)
    submitted(r, r.prepared(), r.prepared())
    assert r.rules == []


def test_IN_07_polled_adapter(rig: Make) -> None:
    r = rig(traced=False, bus_interrupt_level=0)
    submitted(r, r.prepared(), r.prepared())
    assert r.rules == ["IN-07", "IN-07"]


def test_the_history_of_a_request(rig: Make) -> None:
    r = rig(traced=False)
    r.seconds(1)
    srb = r.prepared()
    submitted(r, srb, r.prepared(key=1))
    r.seconds(1)
    held = r.held(srb)
    r.finish(srb)
    _ = held.cdb
    story = [line.partition(" ")[2] for line in r.verifier.findings[-1].history]
    assert story == ["submit", "start_io", "notification RequestComplete from hw_interrupt", "complete"]


@levels
def test_no_finding_is_lost_of_a_completion_with_a_bad_status(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    srb = r.prepared()
    submitted(r, srb, r.prepared(key=1))
    r.finish(srb, 0x41)  # SUCCESS with QUEUE_FROZEN, which is the port's bit
    assert srb.srb_status == SRB_STATUS_SUCCESS
    assert r.rules == (["Q-13"] if verifier == "report" else [])
