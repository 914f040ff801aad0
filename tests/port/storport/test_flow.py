"""QD: depths, pause, busy, queue full, link; RS-09, RS-10."""

from __future__ import annotations

import pytest

from hba.clock import MS, S
from hba.miniport.services import LINK_DOWN, LINK_UP, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_BUSY,
    SRB_STATUS_ERROR,
    SRB_STATUS_LINK_DOWN,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import INQUIRY, Rig, Scripted

LEVELS = [None, "report"]


def submit_power(rig: Rig, state: int) -> Srb:
    srb = rig.srb(function=SRB_FUNCTION_POWER)
    srb.device_power_state = state
    rig.port.submit(srb)
    return srb


@pytest.mark.parametrize("level", LEVELS)
def test_QD_01_the_rest_waits_in_the_units_queue_in_order(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level, initial_lun_queue_depth=4)
    rig.inquire()
    rig.inquire(lun=1)
    srbs = [rig.submit() for _ in range(10)]
    other = rig.submit(lun=1)
    assert len(rig.scripted.started) == 5
    rig.complete(srbs[2])
    assert len(rig.scripted.started) == 5 and rig.port.outstanding == 5
    rig.complete(other)
    while rig.scripted.started:
        assert len(rig.unit().active) <= 4
        rig.finish_all()
    assert rig.done == [srbs[2], other, *(srb for srb in srbs if srb is not srbs[2])]


def test_QD_01_255_without_extended_srbs(make_rig: MakeRig) -> None:
    rig = make_rig(max_ios_per_lun=400, initial_lun_queue_depth=400)
    assert rig.port.info.max_ios_per_lun == 255
    rig.submit()
    assert rig.unit().depth == 255


def test_QD_02_documented_depths(make_rig: MakeRig) -> None:
    rig = make_rig()
    for _ in range(30):
        rig.submit()
    assert len(rig.scripted.started) == 20
    assert rig.port.info.max_ios_per_lun == 255
    assert make_rig(Scripted(virtual_device=True)).port.info.initial_lun_queue_depth == 250
    assert make_rig(Scripted(max_ios_per_lun=300)).found == {"QD-02"}
    few = make_rig(Scripted(max_number_of_io=100, max_ios_per_lun=200))
    assert few.found == {"QD-02"} and few.port.info.max_ios_per_lun == 100


@pytest.mark.parametrize("level", LEVELS)
def test_QD_03_the_adapters_limit_and_turns(make_rig: MakeRig, level: str | None) -> None:
    assert make_rig().port.gates.max_io == 1000
    rig = make_rig(level=level, max_number_of_io=3, initial_lun_queue_depth=3)
    for lun in (0, 1):
        rig.inquire(lun=lun)
    zeros = [rig.submit(lun=0) for _ in range(6)]
    ones = [rig.submit(lun=1) for _ in range(6)]
    assert rig.port.outstanding == 3
    for _ in range(12):
        rig.in_interrupt(lambda: rig.scripted.complete(rig.scripted.started[0]))
        assert rig.port.outstanding <= 3
    assert sorted(map(id, rig.done)) == sorted(map(id, zeros + ones))
    # Neither unit starves: the second one's first is among the first half of the completions.
    assert rig.done.index(ones[0]) < 7


def test_QD_04_set_device_queue_depth(rig: Rig) -> None:
    port = rig.scripted.port
    assert not port.set_device_queue_depth(0, 0, 0, 5)
    assert rig.found == {"QD-04"}
    results: list[bool] = []

    def start(srb: Srb) -> bool:
        results.append(port.set_device_queue_depth(0, 0, 0, 30))
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    rig.submit(INQUIRY, 36)
    assert results == [True] and rig.unit().depth == 30
    assert not port.set_device_queue_depth(0, 0, 0, 0)
    assert not port.set_device_queue_depth(0, 0, 0, 256)
    assert len(rig.messages("QD-04")) == 3
    assert rig.verifier is not None and {finding.severity for finding in rig.verifier.findings} == {"note"}


def test_QD_04_a_larger_depth_starts_what_waits(rig: Rig) -> None:
    rig.inquire()
    for _ in range(30):
        rig.submit()
    assert len(rig.scripted.started) == 20
    rig.scripted.port.set_device_queue_depth(0, 0, 0, 25)
    assert len(rig.scripted.started) == 25
    rig.scripted.port.set_device_queue_depth(0, 0, 0, 10)
    rig.complete(rig.scripted.started[0]._port.srb)
    assert len(rig.scripted.started) == 24


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ends", ["expiry", "resume"])
def test_QD_05_pause_holds_the_adapter(make_rig: MakeRig, level: str | None, ends: str) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    assert rig.scripted.port.pause(3)
    srb = rig.submit()
    rig.advance(3 * S - 1)
    assert rig.scripted.names() == []
    if ends == "expiry":
        rig.advance(1)
    else:
        assert rig.scripted.port.resume()
        assert not rig.scripted.port.resume()
    assert rig.scripted.names() == ["build", "start"]
    rig.complete(srb)
    assert rig.done == [srb]


@pytest.mark.parametrize("ends", ["expiry", "resume"])
def test_QD_05_pause_device_holds_only_its_unit(rig: Rig, ends: str) -> None:
    rig.inquire(lun=0)
    rig.inquire(lun=1)
    assert rig.scripted.port.pause_device(0, 0, 1, 2)
    rig.submit(lun=0)
    held = rig.submit(lun=1)
    assert len(rig.scripted.started) == 1
    if ends == "expiry":
        rig.advance(2 * S)
    else:
        assert rig.scripted.port.resume_device(0, 0, 1)
    assert len(rig.scripted.started) == 2
    assert not rig.scripted.port.pause_device(0, 9, 9, 1)
    rig.complete(held)


@pytest.mark.parametrize("level", LEVELS)
def test_QD_06_busy_counts_completions(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    srbs = [rig.submit() for _ in range(4)]
    assert rig.scripted.port.busy(2)
    held = rig.submit()
    rig.complete(srbs[0])
    assert len(rig.scripted.started) == 3
    rig.complete(srbs[1])
    assert len(rig.scripted.started) == 3  # one more came back, the held one went out
    rig.finish_all()
    assert held in rig.done


def test_QD_06_more_than_outstanding_means_all_of_them(rig: Rig) -> None:
    rig.inquire()
    first, second = rig.submit(), rig.submit()
    rig.scripted.port.busy(99)
    rig.submit()
    rig.complete(first)
    assert len(rig.scripted.started) == 1
    rig.complete(second)
    assert len(rig.scripted.started) == 1 and rig.scripted.names().count("start") == 3


def test_QD_06_with_nothing_outstanding_it_ends_at_once_and_ready_ends_it(rig: Rig) -> None:
    rig.inquire()
    rig.scripted.port.busy(5)
    rig.submit()
    assert len(rig.scripted.started) == 1
    rig.scripted.port.busy(1)
    rig.submit()
    assert len(rig.scripted.started) == 1
    rig.scripted.port.ready()
    assert len(rig.scripted.started) == 2


def test_QD_06_device_busy_and_device_ready(rig: Rig) -> None:
    rig.inquire(lun=0)
    rig.inquire(lun=1)
    first = rig.submit(lun=1)
    assert rig.scripted.port.device_busy(0, 0, 1, 1)
    rig.submit(lun=1)
    rig.submit(lun=0)
    assert len(rig.scripted.started) == 2
    rig.complete(first)
    assert len(rig.scripted.started) == 2  # the held one of unit 1 replaced it
    rig.scripted.port.device_busy(0, 0, 1, 1)
    rig.submit(lun=1)
    assert len(rig.scripted.started) == 2
    rig.scripted.port.device_ready(0, 0, 1)
    assert len(rig.scripted.started) == 3


@pytest.mark.parametrize("level", LEVELS)
def test_QD_07_nothing_is_sent_while_held_not_even_between_build_and_start(
    make_rig: MakeRig, level: str | None
) -> None:
    rig = make_rig(level=level)
    rig.inquire()

    def build(srb: Srb) -> bool:
        rig.scripted.port.pause(1)
        return True

    rig.scripted.build = build
    srb = rig.submit()
    assert rig.scripted.names() == ["build"]
    rig.scripted.build = None
    rig.advance(1 * S)
    assert rig.scripted.names() == ["build", "start"]
    rig.complete(srb)
    assert rig.done == [srb]


def test_QD_07_power_waits_for_what_holds_the_unit_but_goes_first(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.inquire()
    rig.scripted.port.pause_device(0, 0, 0, 1)
    rig.submit()
    power = submit_power(rig, 1)
    assert rig.scripted.started == []
    rig.advance(1 * S)
    assert rig.scripted.started[0].function == SRB_FUNCTION_POWER
    assert power not in rig.done
    rig.finish_all()


def test_QD_07_a_powered_down_unit_is_not_woken_while_it_is_held(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.inquire()
    down = submit_power(rig, 4)
    rig.complete(down)
    rig.scripted.port.pause_device(0, 0, 0, 1)
    rig.submit()
    assert rig.scripted.started == []
    rig.advance(1 * S)
    assert SRB_FUNCTION_POWER in [srb.function for srb in rig.scripted.started]
    rig.finish_all()
    assert not rig.found


def test_QD_07_a_queue_held_for_too_long_is_diagnosed_by_its_gate(make_rig: MakeRig) -> None:
    rig = make_rig(stuck_after=5)
    rig.inquire()
    rig.scripted.port.pause_device(0, 0, 0, 1000)
    rig.submit()
    rig.advance(20 * S)
    assert rig.found == {"QD-07"}
    assert "StorPortPause" in rig.messages("QD-07")[0]
    assert rig.port.snapshot()["stuck"]


def test_QD_07_a_hold_counts_from_its_beginning_and_a_request_from_its_arrival(make_rig: MakeRig) -> None:
    rig = make_rig(stuck_after=5)
    rig.inquire()
    rig.advance(20 * S)
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    srb = rig.submit()
    rig.advance(4 * S)
    assert not rig.port.stuck()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_UP))
    rig.finish_all()
    assert srb in rig.done
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    rig.advance(20 * S)  # held, but nobody waits
    rig.submit()
    rig.advance(4 * S)
    assert not rig.port.stuck() and not rig.found
    for _ in range(2):
        rig.advance(S)
    assert rig.found == {"QD-07"}  # a diagnosis, no broken rule of the link (QD-10)
    assert [finding.severity for finding in rig.verifier.findings] == ["warning"]  # type: ignore[union-attr]
    assert "link down" in rig.messages("QD-07")[0]


@pytest.mark.parametrize("level", LEVELS)
def test_QD_08_busy_rests_250_ms_and_is_tried_20_times(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    srb = rig.submit()
    later = rig.submit()
    for attempt in range(20):
        rig.complete(srb, SRB_STATUS_BUSY)
        held = rig.submit(lun=0) if attempt == 0 else None
        starts = rig.scripted.names().count("start")
        rig.advance(249 * MS)
        assert rig.scripted.names().count("start") == starts
        rig.advance(1 * MS)
        assert rig.scripted.names().count("start") > starts
        assert held is None or held not in rig.done
    rig.complete(srb, SRB_STATUS_BUSY)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_BUSY
    rig.complete(later)


def test_QD_08_without_end_when_asked(make_rig: MakeRig) -> None:
    rig = make_rig(busy_retry="inf", busy_pause_time=10)
    srb = rig.submit()
    for _ in range(40):
        rig.complete(srb, SRB_STATUS_BUSY)
        rig.advance(10 * MS)
    assert rig.done == []
    rig.complete(srb)
    assert rig.done == [srb]


@pytest.mark.parametrize("choice", ["retry", "pass"])
def test_QD_08_scsi_status_busy(make_rig: MakeRig, choice: str) -> None:
    rig = make_rig(scsi_busy=choice)
    srb = rig.submit()
    rig.complete(srb, SRB_STATUS_ERROR, SCSISTAT_BUSY)
    assert (rig.done == [srb]) is (choice == "pass")


def test_QD_08_what_is_retried_keeps_its_place(rig: Rig) -> None:
    rig.inquire()
    srbs = [rig.submit() for _ in range(3)]
    for srb in reversed(srbs):
        rig.complete(srb, SRB_STATUS_BUSY)
    last = rig.submit()
    rig.advance(250 * MS)
    order = [guard._port.srb for guard in rig.scripted.started]
    assert order == [*srbs, last]


@pytest.mark.parametrize("level", LEVELS)
def test_QD_09_queue_full_waits_for_a_quarter(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    rig.inquire()
    srbs = [rig.submit() for _ in range(9)]
    rig.complete(srbs[8], SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL)
    starts = rig.scripted.names().count("start")
    rig.complete(srbs[0])
    assert rig.scripted.names().count("start") == starts  # 25 % of 8 are 2
    rig.complete(srbs[1])
    assert rig.scripted.names().count("start") == starts + 1
    rig.complete(srbs[8])
    assert rig.done == [srbs[0], srbs[1], srbs[8]]
    assert srbs[8].srb_status == SRB_STATUS_SUCCESS and srbs[8].scsi_status == 0


def test_QD_09_alone_it_rests_like_a_busy_one(rig: Rig) -> None:
    srb = rig.submit()
    rig.complete(srb, SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL)
    assert len(rig.scripted.started) == 0
    rig.advance(250 * MS)
    assert len(rig.scripted.started) == 1


def test_QD_10_link_down_holds_link_up_lets_go(rig: Rig) -> None:
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    srb = rig.submit()
    assert rig.scripted.started == []
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_UP))
    assert len(rig.scripted.started) == 1
    assert rig.found == set()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_UP))
    assert rig.found == {"QD-10"}
    rig.complete(srb)


def test_QD_10_after_the_time_out_the_miniport_gets_requests_again(rig: Rig) -> None:
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    waiting = rig.submit()
    rig.advance(30 * S - 1)
    assert rig.scripted.started == []
    rig.advance(1)
    assert len(rig.scripted.started) == 1 and rig.done == []
    rig.complete(waiting, SRB_STATUS_LINK_DOWN)  # what it does with them is its affair: tried again, as BUSY is
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_UP))
    rig.advance(1 * S)
    rig.finish_all()
    assert rig.done == [waiting] and waiting.srb_status == SRB_STATUS_SUCCESS and rig.found == {"QD-07"}


def test_QD_10_after_the_time_out_requests_fail_if_told(make_rig: MakeRig) -> None:
    rig = make_rig(link_down_expired="fail")
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    waiting = rig.submit()
    rig.advance(30 * S - 1)
    assert rig.done == []
    rig.advance(1)
    assert rig.done == [waiting] and waiting.srb_status == SRB_STATUS_LINK_DOWN


def test_RS_09_link_down_for_good(make_rig: MakeRig) -> None:
    rig = make_rig(link_down_expired="fail")
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    rig.advance(31 * S)
    srb = rig.submit()
    assert srb.srb_status == SRB_STATUS_LINK_DOWN and rig.scripted.started == []


def test_QD_11_io_timeout_value(make_rig: MakeRig) -> None:
    rig = make_rig(io_timeout_value=3)
    rig.submit()
    rig.advance(2 * S)
    assert "ER-09" not in rig.found
    rig.advance(2 * S)
    assert "ER-09" in rig.found


def test_QD_11_io_latency_cap(make_rig: MakeRig) -> None:
    rig = make_rig(io_latency_cap=100)
    rig.inquire()
    old = rig.submit()
    rig.submit()
    assert len(rig.scripted.started) == 2
    rig.advance(101 * MS)
    rig.submit()
    assert len(rig.scripted.started) == 2
    rig.finish_all()
    assert old in rig.done and len(rig.scripted.started) == 1


def test_QD_11_io_latency_cap_holds_every_unit(make_rig: MakeRig) -> None:
    rig = make_rig(io_latency_cap=100)
    rig.inquire()
    rig.inquire(lun=1)
    old = rig.submit()
    rig.advance(101 * MS)
    other = rig.submit(lun=1)
    assert len(rig.scripted.started) == 1
    rig.complete(old)
    assert len(rig.scripted.started) == 1
    rig.complete(other)
    assert rig.done == [old, other]


def test_QD_11_total_sense_data_bytes(make_rig: MakeRig) -> None:
    rig = make_rig(total_sense_data_bytes=18)

    def start(srb: Srb) -> bool:
        srb.sense_info_buffer = bytes(64)
        srb.scsi_status = 2
        rig.scripted.complete(srb, SRB_STATUS_ERROR | 0x80)
        return True

    rig.scripted.start = start
    assert len(rig.submit().sense_info_buffer) == 18


def test_QD_12_update_port_config_only_while_initialising(make_rig: MakeRig) -> None:
    miniport = Scripted()
    results: list[int] = []

    def initialize() -> bool:
        results.append(miniport.port.update_port_config_max_io_info(7, 5))
        return True

    miniport.initialize = initialize
    rig = make_rig(miniport)
    assert results == [STOR_STATUS_SUCCESS]
    for lun in (0, 1):
        for _ in range(10):
            rig.submit(lun=lun)
    assert len(rig.scripted.started) == 7
    assert len(rig.unit().active) == 5
    rig.in_interrupt(lambda: results.append(miniport.port.update_port_config_max_io_info(9, 9)))
    assert results[1] == STOR_STATUS_UNSUCCESSFUL
    assert rig.found == {"QD-12"}


def test_Q_11_lock_bypass_unlock(rig: Rig) -> None:
    rig.inquire()
    assert rig.submit(function=SRB_FUNCTION_LOCK_QUEUE).srb_status == SRB_STATUS_SUCCESS
    held = rig.submit()
    assert rig.scripted.started == []
    rig.submit(flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert len(rig.scripted.started) == 1
    rig.submit(function=SRB_FUNCTION_UNLOCK_QUEUE, flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    assert len(rig.scripted.started) == 2
    rig.finish_all()
    assert held in rig.done
    assert rig.found == set()


def test_Q_11_unlock_without_bypass_waits_for_ever(rig: Rig) -> None:
    rig.inquire()
    rig.submit(function=SRB_FUNCTION_LOCK_QUEUE)
    unlock = rig.submit(function=SRB_FUNCTION_UNLOCK_QUEUE)
    assert unlock not in rig.done
    assert rig.found == {"Q-11"}


def test_Q_09_release_queue_is_accepted_and_ignored(rig: Rig) -> None:
    assert rig.submit(function=SRB_FUNCTION_RELEASE_QUEUE).srb_status == SRB_STATUS_SUCCESS
    assert rig.scripted.names() == []


def test_the_snapshot_names_what_blocks(rig: Rig) -> None:
    rig.inquire()
    rig.scripted.port.pause_device(0, 0, 0, 10)
    rig.submit()
    units = rig.port.snapshot()["units"]
    assert isinstance(units, list)
    assert units[0]["blocked_by"] == ["paused by the miniport (StorPortPause)"]
    assert units[0]["queued"] == 1
