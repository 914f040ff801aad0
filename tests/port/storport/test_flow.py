"""QD: depths, pause, busy, queue full, link; RS-09, RS-10."""

from __future__ import annotations

import pytest

from hba.clock import MS, S
from hba.miniport.services import LINK_DOWN, LINK_UP, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL
from hba.scsi.task import DATA_IN, Task
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RELEASE_QUEUE,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_BUS_RESET,
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


# -- gates, exactly --------------------------------------------------------------------------------------------------


def started(rig: Rig) -> list[Srb]:
    """What the miniport was told to start, as it was submitted, in order."""
    return [call[1]._port.srb if call[1]._port else call[1] for call in rig.scripted.calls if call[0] == "start"]


def unit_of(rig: Rig, lun: int = 0) -> dict[str, object]:
    """Of the snapshot."""
    units = rig.port.snapshot()["units"]
    assert isinstance(units, list)
    (unit,) = (unit for unit in units if unit["address"] == f"0:0:{lun}")
    return unit  # type: ignore[no-any-return]


@pytest.mark.parametrize("number", [0, -1])
def test_QD_05_no_time_and_QD_06_no_completions_are_refused(rig: Rig, number: int) -> None:
    port = rig.scripted.port
    rig.inquire()
    assert [port.pause(number), port.pause_device(0, 0, 0, number)] == [False, False]
    assert [port.busy(number), port.device_busy(0, 0, 0, number)] == [False, False]
    assert unit_of(rig)["blocked_by"] == []
    rig.submit()
    assert len(rig.scripted.started) == 1


def test_QD_06_ready_is_true_whether_or_not_it_was_busy(rig: Rig) -> None:
    rig.inquire()
    assert rig.scripted.port.ready() and rig.scripted.port.device_ready(0, 0, 0)
    rig.submit()
    assert rig.scripted.port.busy(1) and rig.scripted.port.device_busy(0, 0, 0, 1)
    assert unit_of(rig)["blocked_by"] == ["busy (StorPortBusy)"]
    assert rig.scripted.port.ready() and rig.scripted.port.device_ready(0, 0, 0)
    assert unit_of(rig)["blocked_by"] == []


def test_queue_control_of_a_unit_nobody_has_addressed(rig: Rig) -> None:
    port = rig.scripted.port
    rig.inquire()
    answers = [
        port.pause_device(0, 0, 1, 1),
        port.resume_device(0, 0, 1),
        port.device_busy(0, 0, 1, 1),
        port.device_ready(0, 0, 1),
    ]
    assert answers == [False] * 4


@pytest.mark.parametrize(
    ("depth", "worked", "message"),
    [
        (-1, False, "StorPortSetDeviceQueueDepth with depth -1"),
        (0, False, "StorPortSetDeviceQueueDepth with depth 0"),
        (1, True, None),
        (30, True, None),
        (31, False, "queue depth 31 of 0:0:0 is above MaxIOsPerLun (30)"),
    ],
)
def test_QD_04_depths_up_to_the_limit(make_rig: MakeRig, depth: int, worked: bool, message: str | None) -> None:
    rig = make_rig(max_ios_per_lun=30)
    rig.inquire()
    assert rig.scripted.port.set_device_queue_depth(0, 0, 0, depth) is worked
    for _ in range(40):
        rig.submit()
    assert len(rig.scripted.started) == (depth if worked else 20)
    assert rig.messages("QD-04") == ([message] if message else [])


def test_QD_05_a_pause_is_replaced_by_a_later_one(rig: Rig) -> None:
    """Neither the time of the first one nor a pause that was resumed ends the next."""
    rig.inquire()
    port = rig.scripted.port
    for pause, resume in (
        (lambda seconds: port.pause(seconds), lambda: port.resume()),
        (lambda seconds: port.pause_device(0, 0, 0, seconds), lambda: port.resume_device(0, 0, 0)),
    ):
        assert pause(2)
        rig.advance(S)
        assert pause(2)
        srb = rig.submit()
        rig.advance(2 * S - 1)
        assert rig.scripted.started == []
        rig.advance(1)
        rig.complete(srb)
        assert pause(2) and resume()


@pytest.mark.parametrize("of_unit", [False, True])
def test_QD_05_an_adapter_reset_ends_a_pause_and_its_time(rig: Rig, of_unit: bool) -> None:
    rig.inquire()
    port = rig.scripted.port

    def pause(seconds: int) -> None:
        assert port.pause_device(0, 0, 0, seconds) if of_unit else port.pause(seconds)

    pause(5)
    rig.port.reset_adapter()
    assert unit_of(rig)["blocked_by"] == []
    rig.advance(3 * S)
    pause(4)
    rig.advance(2 * S)  # the first one would end now
    srb = rig.submit()
    assert rig.scripted.started == []
    rig.advance(2 * S)
    rig.complete(srb)
    assert rig.done == [srb]


def test_an_adapter_reset_leaves_no_timer_of_what_held(rig: Rig) -> None:
    rig.inquire()
    rig.advance(2 * S)  # no tick any more
    rig.scripted.port.pause(500)
    rig.scripted.port.pause_device(0, 0, 0, 500)
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    assert rig.clock.next_deadline() == rig.clock.now() + 30 * S
    rig.port.reset_adapter()
    assert rig.clock.next_deadline() is None
    rig.scripted.port.pause(500)
    rig.scripted.port.resume()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_UP))
    assert rig.clock.next_deadline() is None and rig.found == set()


def test_an_adapter_reset_forgets_whose_turn_it_was(make_rig: MakeRig) -> None:
    """A unit that waited for the adapter waits again like any other: neither never, nor twice. Where the bus reset ends
    what the miniport has, it has had its turn by then; here it ends nothing."""
    rig = make_rig(max_number_of_io=1, reclaim_lost=False)
    rig.scripted.reset = lambda path: True
    for lun in range(3):
        rig.inquire(lun=lun)
    rig.submit(lun=0)
    rig.submit(lun=2)  # waits
    rig.port.reset_adapter()
    rig.scripted.started.clear()
    rig.scripted.calls.clear()
    srbs = [rig.submit(lun=lun) for lun in (0, 1, 2, 2, 1)]
    for _ in srbs:
        rig.finish_all()
    assert started(rig) == [srbs[index] for index in (0, 1, 2, 4, 3)]


def test_QD_03_units_that_wait_for_the_adapter_take_turns(make_rig: MakeRig) -> None:
    rig = make_rig(max_number_of_io=1)
    for lun in range(3):
        rig.inquire(lun=lun)
    srbs = {(lun, number): rig.submit(lun=lun) for lun in range(3) for number in range(4)}
    for _ in srbs:
        rig.finish_all()
    zero, one, two = ([srbs[lun, number] for number in range(4)] for lun in range(3))
    rest = [srb for turn in zip(one, two, zero[1:], strict=False) for srb in turn]
    assert started(rig) == [zero[0], *rest, one[3], two[3]]


def test_QD_07_an_adapter_reset_leaves_nothing_of_what_was_only_built(rig: Rig) -> None:
    rig.inquire()
    rig.scripted.build = lambda srb: rig.scripted.port.pause_device(0, 0, 0, 60)
    srb = rig.submit()
    rig.scripted.build = None
    assert unit_of(rig)["queued"] == 1
    rig.port.reset_adapter()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_BUS_RESET
    assert (unit_of(rig)["queued"], unit_of(rig)["blocked_by"]) == (0, [])
    rig.submit()
    assert rig.scripted.names() == ["build", "reset_bus", "build", "start"]


@pytest.mark.parametrize(
    ("share", "others", "needed"),
    [(25, 8, 2), (25, 9, 3), (25, 4, 1), (51, 2, 2), (50, 2, 1), (1, 1, 1), (1, 9, 1), (100, 3, 3), (34, 3, 2)],
)
def test_QD_09_the_share_is_rounded_up(make_rig: MakeRig, share: int, others: int, needed: int) -> None:
    rig = make_rig(queue_full_wait_io_percentage=share)
    rig.inquire()
    srbs = [rig.submit() for _ in range(others + 1)]
    full = srbs.pop()
    rig.complete(full, SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL)
    assert unit_of(rig)["blocked_by"] == ["waiting after QUEUE FULL"]
    for count, srb in enumerate(srbs[:needed], 1):
        assert not rig.started(full)
        rig.complete(srb)
        assert rig.started(full) is (count == needed)


def test_QD_09_one_that_was_only_built_is_not_waited_for(rig: Rig) -> None:
    """The gate holds it, so it cannot come back before the gate opens."""
    rig.inquire()
    full, other = rig.submit(), rig.submit()
    rig.scripted.build = lambda srb: rig.scripted.port.pause_device(0, 0, 0, 1)
    built = rig.submit()
    rig.scripted.build = None
    rig.complete(full, SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL)
    rig.scripted.port.resume_device(0, 0, 0)
    assert not rig.started(built)
    rig.complete(other)
    assert rig.started(built) and rig.started(full)


@pytest.mark.parametrize("limit", [0, 2])
def test_QD_08_retries_are_counted_and_in_the_trace(make_rig: MakeRig, limit: int) -> None:
    rig = make_rig(trace=True, busy_retry=limit)
    rig.inquire()
    srb = rig.submit()
    for _ in range(limit):
        rig.complete(srb, SRB_STATUS_BUSY)
        rig.advance(250 * MS)
    rig.complete(srb, SRB_STATUS_BUSY)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_BUSY
    assert rig.port.counters.get("busy retries", 0) == limit and rig.port.counters["busy retries exhausted"] == 1
    assert rig.recorder is not None
    notes = [event.detail for event in rig.recorder.events if event.kind == "retry"]
    assert notes == [f"number {number}" for number in range(1, limit + 1)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_QD_08_whatever_comes_back_first_they_go_out_as_they_came(rig: Rig, order: tuple[int, ...]) -> None:
    rig.inquire()
    srbs = [rig.submit() for _ in range(3)]
    for index in order:
        rig.complete(srbs[index], SRB_STATUS_BUSY)
        if index == 1:
            last = rig.submit()
    rig.scripted.calls.clear()
    rig.advance(250 * MS)
    assert started(rig) == [*srbs, last]


def test_QD_10_after_an_adapter_reset_the_link_is_up_and_may_go_down_again(make_rig: MakeRig) -> None:
    rig = make_rig(link_down_expired="fail")
    rig.inquire()
    port = rig.scripted.port
    rig.in_interrupt(lambda: port.notification(LINK_DOWN))
    rig.advance(20 * S)
    rig.port.reset_adapter()
    rig.in_interrupt(lambda: port.notification(LINK_UP))
    assert rig.messages("QD-10") == ["LinkUp without a LinkDown before it"]
    rig.in_interrupt(lambda: port.notification(LINK_DOWN))
    srb = rig.submit()
    rig.advance(20 * S)  # the time of the first one is over
    rig.done.clear()
    later = rig.submit()
    assert rig.done == [] and unit_of(rig)["blocked_by"] == ["link down"]
    rig.advance(10 * S)
    assert rig.done == [srb, later]
    rig.port.reset_adapter()  # a link that was lost is up again, too
    rig.in_interrupt(lambda: port.notification(LINK_DOWN))
    rig.done.clear()
    rig.submit()
    assert rig.done == []


def test_QD_10_a_link_that_is_lost_fails_requests_when_its_time_is_over(make_rig: MakeRig) -> None:
    """At that moment: nothing else has to happen."""
    rig = make_rig(link_down_expired="fail", link_down_timeout=3)
    rig.inquire()
    rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
    rig.advance(2 * S + S // 2)
    waiting = rig.submit()
    rig.advance(S // 2)
    assert rig.done == [waiting] and waiting.srb_status == SRB_STATUS_LINK_DOWN


def test_QD_10_down_twice_is_down_once(rig: Rig) -> None:
    """The time runs from the first one."""
    rig.inquire()
    for _ in range(2):
        rig.in_interrupt(lambda: rig.scripted.port.notification(LINK_DOWN))
        rig.advance(15 * S)
    rig.submit()
    assert len(rig.scripted.started) == 1


@pytest.mark.parametrize(
    ("owner", "other", "foreign"),
    [("one", "one", False), ("one", "two", True), ("one", None, False), (None, "two", False)],
)
def test_Q_11_another_drivers_lock(rig: Rig, owner: object, other: object, foreign: bool) -> None:
    """The bypassing request goes all the same, ahead of what waits; the lock is who has locked first."""
    rig.inquire()
    bypassed = "a request bypasses the lock another driver holds on 0:0:0"
    found = [bypassed, "0:0:0 is unlocked by somebody who did not lock it"] if foreign else []

    def submit(function: int, who: object, flags: int = SRB_FLAGS_BYPASS_LOCKED_QUEUE) -> Srb:
        srb = rig.srb(function=function, flags=flags)
        srb.original_request = who
        rig.port.submit(srb)
        return srb

    submit(SRB_FUNCTION_LOCK_QUEUE, owner)
    submit(SRB_FUNCTION_LOCK_QUEUE, owner)
    assert unit_of(rig)["locked"] is True and unit_of(rig)["blocked_by"] == ["locked by LOCK_QUEUE"]
    waiting = submit(0, owner, 0)
    bypassing = submit(0, other)
    assert started(rig) == [bypassing]
    submit(SRB_FUNCTION_UNLOCK_QUEUE, other)
    assert unit_of(rig)["locked"] is False and unit_of(rig)["blocked_by"] == []
    assert started(rig) == [bypassing, waiting]
    assert rig.messages("Q-11") == found
    submit(SRB_FUNCTION_LOCK_QUEUE, "three")
    submit(0, "three")
    assert rig.messages("Q-11") == found


def test_Q_11_an_adapter_reset_opens_the_lock(rig: Rig) -> None:
    rig.inquire()
    lock = rig.srb(function=SRB_FUNCTION_LOCK_QUEUE)
    lock.original_request = "one"
    rig.port.submit(lock)
    rig.port.reset_adapter()
    assert unit_of(rig)["locked"] is False
    again = rig.srb(function=SRB_FUNCTION_LOCK_QUEUE)
    again.original_request = "two"
    rig.port.submit(again)
    bypassing = rig.srb(flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE)
    bypassing.original_request = "two"
    rig.port.submit(bypassing)
    assert rig.started(bypassing) and rig.found == set()


def test_gates_are_in_the_trace_by_name(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    rig.inquire()
    port = rig.scripted.port
    port.pause(1)
    port.resume()
    port.pause_device(0, 0, 0, 1)
    rig.advance(S)
    assert rig.recorder is not None
    assert [(event.kind, event.detail) for event in rig.recorder.events if event.kind.startswith("gate.")] == [
        ("gate.closed", "adapter: paused by the miniport (StorPortPause)"),
        ("gate.opened", "adapter: paused by the miniport (StorPortPause)"),
        ("gate.closed", "0:0:0: paused by the miniport (StorPortPause)"),
        ("gate.opened", "0:0:0: paused by the miniport (StorPortPause)"),
    ]


@pytest.mark.parametrize(
    ("of_adapter", "of_unit", "queued", "since"),
    [
        (1, None, 2, 2),  # held before the request came
        (None, 1, 2, 2),
        (3, None, 2, None),  # started at 2
        (1, 5, 2, 2),
        (5, 1, 2, 2),
        (1, 3, 2, 2),  # the adapter first: of two that hold, the longer
        (3, 1, 2, 2),
    ],
)
def test_QD_07_how_long_a_queue_has_stood_still(
    make_rig: MakeRig, of_adapter: int | None, of_unit: int | None, queued: int, since: int | None
) -> None:
    """Seconds at which the adapter and the unit are held and a request comes; when it began to wait."""
    rig = make_rig(stuck_after=10)
    rig.inquire()
    begin = rig.clock.now()
    for second in range(1, 6):
        rig.clock.advance(begin + second * S - rig.clock.now())
        if of_adapter == second:
            rig.scripted.port.pause(1000)
            rig.clock.advance(S // 2)
            rig.scripted.port.pause(1000)  # again: it is held since the first
        if of_unit == second:
            rig.scripted.port.pause_device(0, 0, 0, 1000)
            rig.clock.advance(S // 2)
            rig.scripted.port.pause_device(0, 0, 0, 1000)
        if queued == second:
            rig.submit()
    if since is None:
        rig.clock.advance(30 * S)
        assert rig.port.stuck() == []
        return
    rig.clock.advance(begin + (since + 10) * S - rig.clock.now())
    assert rig.port.stuck() == []
    rig.clock.advance(1)
    assert [(rule, where) for rule, where, _ in rig.port.stuck()] == [("QD-07", "0:0:0")]
    assert rig.port.stuck()[0][2] == "LU 0:0:0: 1 requests wait, paused by the miniport (StorPortPause)"


MOVED = "SRB_STATUS_BUSY after 4096 bytes were transferred"
CHANGED = "SRB_STATUS_BUSY with DataTransferLength changed from 4096 to 4000"


@pytest.mark.parametrize(
    ("status", "scsi_status", "moved", "changed", "found"),
    [
        (SRB_STATUS_BUSY, 0, False, False, None),
        (SRB_STATUS_BUSY, 0, True, False, MOVED),
        (SRB_STATUS_BUSY, 0, False, True, CHANGED),
        (SRB_STATUS_BUSY, 0, True, True, MOVED),
        (SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL, True, True, None),  # the unit's word, of a command that it has ended
        (SRB_STATUS_ERROR, SCSISTAT_BUSY, True, True, None),
        (SRB_STATUS_LINK_DOWN, 0, True, True, None),
    ],
)
def test_ST_13_busy_means_not_begun(
    rig: Rig, status: int, scsi_status: int, moved: bool, changed: bool, found: str | None
) -> None:
    def start(srb: Srb) -> bool:
        rig.scripted.start = None
        if moved:
            task = Task(srb.cdb, DATA_IN, srb._port.srb.mdl)
            task.owner = srb
            assert rig.chip.start(0, 0, task)
        if changed:
            srb.data_transfer_length = 4000
        rig.scripted.complete(srb, status, scsi_status)
        return True

    rig.inquire()
    rig.scripted.start = start
    srb = rig.submit()
    assert rig.done == [] and rig.messages("ST-13") == ([found] if found else [])
    rig.advance(250 * MS)
    rig.complete(srb)
    assert rig.done == [srb] and (srb.srb_status, srb.scsi_status) == (SRB_STATUS_SUCCESS, 0)
    assert srb.data_transfer_length == 4096


@pytest.mark.parametrize(
    ("cdb", "known"),
    [
        (bytes((INQUIRY, 0, 0, 0, 36, 0)), True),
        (bytes((0x28,)) + bytes(9), True),  # nobody reads from what he has not asked what it is
        (bytes(6), False),
        (bytes((0, INQUIRY, 0, 0, 0, 0)), False),
        (b"", False),
    ],
)
def test_QD_04_what_makes_a_unit_known(rig: Rig, cdb: bytes, known: bool) -> None:
    srb = rig.srb(length=0)
    srb.cdb, srb.cdb_length = cdb, len(cdb)
    rig.port.submit(srb)
    assert rig.scripted.port.set_device_queue_depth(0, 0, 0, 5) is known
    assert rig.messages("QD-04") == ([] if known else ["StorPortSetDeviceQueueDepth before the unit's first INQUIRY"])
