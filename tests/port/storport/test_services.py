"""StorPortNotification by type, and the routines that decide something themselves: what each does, counts and says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, S
from hba.miniport import services as n
from hba.miniport.config import DUMP_MODE_CRASH
from hba.miniport.services import (
    DPC_LOCK,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
    Dpc,
)
from hba.port.dump import Dump
from hba.port.library.documented import STORPORT_ROUTINES
from hba.port.storport.services import UNCACHED_LIMIT, WMI_EVENT_LIMIT
from hba.srb import SRB_STATUS_BUS_RESET, Srb
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted


def nothing(*arguments: object) -> None:
    pass


@pytest.mark.parametrize(
    ("notification", "arguments", "counted", "found"),
    [
        (n.NEXT_REQUEST, (), "ignored next", [("ST-02", "NextRequest means nothing to Storport")]),
        (n.NEXT_LU_REQUEST, (0, 0, 0), "ignored next", [("ST-02", "NextLuRequest means nothing to Storport")]),
        (n.BUS_CHANGE_DETECTED, (), "bus changes", []),
        (n.BUS_CHANGE_DETECTED, (1,), "bus changes", []),
        (n.WMI_EVENT, (), "WMI events", []),
        (n.WMI_EVENT, (bytes(WMI_EVENT_LIMIT),), "WMI events", []),
        (
            n.WMI_EVENT,
            (bytes(WMI_EVENT_LIMIT + 1),),
            "WMI events dropped",
            [("RS-10", "WMI event of 129 bytes was dropped; at most 128")],
        ),
        (n.WMI_REREGISTER, (), "WMI reregistrations", []),
        (n.BUFFER_OVERRUN_DETECTED, (None,), "buffer overruns", []),
        (n.TRACE_NOTIFICATION, ("detail",), "trace notifications", []),
        (4, (), None, [("ST-02", "notification type 0x4 is not one of Storport's")]),
        (5, (), None, [("ST-02", "notification type 0x5 is not one of Storport's")]),
        (16, (), None, [("ST-02", "notification type 0x10 is not one of Storport's")]),
        (0x1005, (), None, [("ST-02", "notification type 0x1005 is not one of Storport's")]),
    ],
)
def test_a_notification_is_counted_and_in_the_trace(
    make_rig: MakeRig,
    notification: int,
    arguments: tuple[Any, ...],
    counted: str | None,
    found: list[tuple[str, str]],
) -> None:
    rig = make_rig(trace=True)
    rig.inquire()
    assert rig.verifier is not None and rig.recorder is not None
    before, traced = dict(rig.port.counters), len(rig.recorder.events)
    rig.in_interrupt(lambda: rig.scripted.port.notification(notification, *arguments))
    counters = {name: count for name, count in rig.port.counters.items() if before.get(name) != count}
    assert counters == ({counted: 1} if counted else {})
    assert [(finding.rule, finding.message) for finding in rig.verifier.findings] == found
    name = n.NOTIFICATION_NAMES.get(notification, f"{notification:#x}")
    told = [event.detail for event in list(rig.recorder.events)[traced:] if event.kind == "notification"]
    assert told == [[name, *arguments] if notification == n.NEXT_LU_REQUEST else name]
    rig.complete(rig.submit())  # nothing is held


@pytest.mark.parametrize("path", [None, 0, 1])
def test_who_is_above_hears_of_a_bus_change(rig: Rig, path: int | None) -> None:
    heard: list[int] = []
    rig.port.on_bus_change = heard.append
    arguments = () if path is None else (path,)
    rig.in_interrupt(lambda: rig.scripted.port.notification(n.BUS_CHANGE_DETECTED, *arguments))
    assert heard == []  # not from inside the miniport
    rig.turn()
    assert heard == [path or 0]


@pytest.mark.parametrize("path", [None, 0, 1])
def test_ER_14_a_reset_without_a_path_is_one_of_the_first_bus(make_rig: MakeRig, path: int | None) -> None:
    rig = make_rig(Scripted(number_of_buses=2))
    rig.inquire()
    srb = rig.submit()
    arguments = () if path is None else (path,)
    rig.in_interrupt(lambda: rig.scripted.port.notification(n.RESET_DETECTED, *arguments))
    waiting = rig.submit()
    assert not rig.started(waiting)
    rig.advance(S)
    assert rig.started(waiting) and (srb in rig.done) is (path != 1)


@pytest.mark.parametrize(
    ("resolution", "at", "ticks"), [(10, 1, 0), (10, 10 * MS - 1, 0), (10, 10 * MS, 1), (1, 7 * MS, 7)]
)
def test_the_tick_count_is_that_of_the_interval_timer(make_rig: MakeRig, resolution: int, at: int, ticks: int) -> None:
    rig = make_rig(timer_resolution=resolution)
    rig.clock.advance(at - rig.clock.now())
    assert rig.scripted.port.notification(n.QUERY_TICK_COUNT) == ticks


def test_IN_06_a_timer_call_without_a_routine_ends_the_one_before(rig: Rig) -> None:
    called: list[str] = []
    port = rig.scripted.port
    rig.in_interrupt(lambda: port.notification(n.REQUEST_TIMER_CALL, lambda: called.append("timer"), 20_000))
    rig.in_interrupt(lambda: port.notification(n.REQUEST_TIMER_CALL, None, 20_000))
    rig.advance(S)
    assert called == [] and rig.messages("IN-06") == ["RequestTimerCall without a HwTimer routine"]


def test_the_extended_functions_are_those_there_are(rig: Rig) -> None:
    names = rig.scripted.port.notification(n.GET_EXTENDED_FUNCTION_TABLE)
    assert names == tuple(routine.documented for routine in STORPORT_ROUTINES if not routine.why_not)
    assert "StorPortAllocatePool" in names and len(names) < len(STORPORT_ROUTINES)


def test_routines_by_their_notification_type(make_rig: MakeRig) -> None:
    """As StorPortNotification has them in storport.h, where each routine is an inline function around a type."""
    miniport = Scripted()
    got: list[Any] = []

    def passive() -> bool:
        got.append("passive")
        return True

    miniport.initialize = lambda: miniport.port.notification(n.ENABLE_PASSIVE_INITIALIZATION, passive)
    rig = make_rig(miniport)
    port = miniport.port
    dpc = port.notification(n.INITIALIZE_DPC, lambda dpc, one, two: got.append((one, two)))
    assert isinstance(dpc, Dpc)
    rig.in_interrupt(lambda: got.append(port.notification(n.ISSUE_DPC, dpc, 1, 2)))

    def build(srb: Srb) -> bool:
        handle = port.notification(n.ACQUIRE_SPIN_LOCK, DPC_LOCK, dpc)
        got.append(handle.held)
        port.notification(n.RELEASE_SPIN_LOCK, handle)
        got.append(handle.held)
        return True

    miniport.build = build
    rig.submit()
    assert got == ["passive", True, (1, 2), True, False] and rig.found == set()


@pytest.mark.parametrize(
    ("size", "given"),
    [(-1, False), (0, False), (1, True), (4096, True), (UNCACHED_LIMIT, True), (UNCACHED_LIMIT + 1, False)],
)
def test_MB_16_sizes_of_an_uncached_extension(make_rig: MakeRig, size: int, given: bool) -> None:
    miniport = Scripted()
    got: list[Any] = []

    def find(config: Any) -> None:
        got.append(miniport.port.get_uncached_extension(config, size))

    miniport.find = find
    rig = make_rig(miniport)
    assert [view is not None for view in got] == [given] and rig.found == set()
    if given:
        assert len(got[0]) == size


def test_MB_16_where_there_is_none(make_rig: MakeRig) -> None:
    miniport = Scripted()
    got: list[Any] = []

    def find(config: Any) -> None:
        config.master = False
        got.append(miniport.port.get_uncached_extension(config, 64))
        config.master = True

    miniport.find = find
    rig = make_rig(miniport)
    rig.in_interrupt(lambda: got.append(miniport.port.get_uncached_extension(rig.port.info, 64)))
    assert got == [None, None]
    assert rig.messages("MB-16") == [
        "StorPortGetUncachedExtension for an adapter that is no bus master",
        "StorPortGetUncachedExtension from hw_interrupt",
    ]


@pytest.mark.parametrize(("where", "found"), [("build", []), ("start", [("ST-08", "warning")])])
def test_ST_08_a_stall_in_start_io(rig: Rig, where: str, found: list[tuple[str, str]]) -> None:
    def stall(srb: Srb) -> bool:
        rig.scripted.port.stall_execution(10)
        return True

    setattr(rig.scripted, where, stall)
    rig.submit()
    assert rig.verifier is not None and rig.port.counters["stalls"] == 1
    assert [(finding.rule, finding.severity) for finding in rig.verifier.findings] == found
    assert rig.messages("ST-08") == ["stall of 10 us in hw_start_io"] * len(found)


@pytest.mark.parametrize(
    "call",
    [
        lambda port, srb: port.stall_execution(1),
        lambda port, srb: port.get_scatter_gather_list(srb),
        lambda port, srb: port.release_spin_lock(port.acquire_spin_lock(n.INTERRUPT_LOCK)),
    ],
)
def test_ST_04_other_processors_have_their_turn_at_services(
    make_rig: MakeRig, call: Callable[[Any, Srb], object]
) -> None:
    rig = make_rig(interleave=1)
    inside: list[str] = []

    def build(srb: Srb) -> bool:
        rig.scripted.build = None
        call(rig.scripted.port, srb)
        inside.extend(rig.scripted.names())
        return True

    rig.inquire()
    rig.scripted.port.pause(1)
    for _ in range(2):
        rig.submit()
    rig.scripted.build = build
    rig.scripted.port.resume()
    assert inside[:2] == ["build", "build"] and len(rig.scripted.started) == 2


@pytest.mark.parametrize("messages", [False, True])
def test_ST_04_both_ends_of_a_lock_are_such_a_call(make_rig: MakeRig, messages: bool) -> None:
    rig = make_rig(Scripted(interrupt_synchronization_mode=2), interleave=2)
    port = rig.scripted.port
    inside: list[str] = []

    def build(srb: Srb) -> bool:
        rig.scripted.build = None
        if messages:
            port.release_msi_spin_lock(port.acquire_msi_spin_lock(0))
        else:
            port.release_spin_lock(port.acquire_spin_lock(n.INTERRUPT_LOCK))
        inside.extend(rig.scripted.names())
        return True

    rig.inquire()
    port.pause(1)
    for _ in range(2):
        rig.submit()
    rig.scripted.build = build
    port.resume()
    assert inside.count("build") == 2 and rig.found == set()


def test_a_unit_has_all_of_its_address(make_rig: MakeRig) -> None:
    """What is said of one unit holds none that has another bus, target or LUN."""
    rig = make_rig(Scripted(number_of_buses=3), default_timeout=100)
    addresses = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 1), (0, 0, 2), (2, 1, 3), (2, 3, 1)]
    for address in addresses:
        rig.port.unit_at(*address)
    for address in addresses:
        assert rig.scripted.port.pause_device(*address, 10)
        for other in addresses:
            srb = rig.srb(function=0, length=0)
            srb.path_id, srb.target_id, srb.lun = other
            rig.port.submit(srb)
            assert rig.started(srb) is (other != address)
            if other == address:
                assert rig.scripted.port.resume_device(*address)
            rig.complete(srb)
    assert not rig.scripted.port.pause_device(1, 1, 1, 10)


def test_ER_15_complete_request_ends_what_it_names(rig: Rig) -> None:
    srbs = {lun: rig.submit(lun=lun) for lun in range(3)}
    other = rig.submit(target=1)
    rig.in_interrupt(lambda: rig.scripted.port.complete_request(0, 0, 1, SRB_STATUS_BUS_RESET))
    assert rig.done == [srbs[1]] and srbs[1].srb_status == SRB_STATUS_BUS_RESET
    rig.in_interrupt(lambda: rig.scripted.port.complete_request(0, 0, 0xFF, SRB_STATUS_BUS_RESET))
    assert rig.done == [srbs[1], srbs[0], srbs[2]]
    rig.in_interrupt(lambda: rig.scripted.port.complete_request(0xFF, 0xFF, 0xFF, SRB_STATUS_BUS_RESET))
    assert rig.done[3:] == [other] and rig.port.outstanding == 0
    assert rig.messages("ER-15")[0] == "StorPortCompleteRequest must not be used; complete each SRB"


@pytest.mark.parametrize(
    ("io", "per_unit", "status"),
    [
        (7, 5, STOR_STATUS_SUCCESS),
        (5, 5, STOR_STATUS_SUCCESS),
        (1, 1, STOR_STATUS_SUCCESS),
        (5, 6, STOR_STATUS_INVALID_PARAMETER),
        (5, 0, STOR_STATUS_INVALID_PARAMETER),
        (5, -1, STOR_STATUS_INVALID_PARAMETER),
    ],
)
def test_QD_12_the_limits_while_it_initialises(make_rig: MakeRig, io: int, per_unit: int, status: int) -> None:
    """Also when it does so again with units that are there: none keeps a depth above the new limit."""
    rig = make_rig()
    rig.inquire()
    got: list[int] = []

    def initialize() -> bool:
        got.append(rig.scripted.port.update_port_config_max_io_info(io, per_unit))
        return True

    rig.scripted.initialize = initialize
    rig.port.reset_adapter()
    assert got == [status] and rig.found == set()
    info = rig.port.info
    limits = (io, per_unit) if status == STOR_STATUS_SUCCESS else (1000, 255)
    assert (info.max_number_of_io, info.max_ios_per_lun) == limits
    for _ in range(25):
        rig.submit()
    assert len(rig.scripted.started) == min(20, *limits)
    assert rig.unit().depth == min(20, limits[1])


def test_QD_12_in_passive_initialisation_and_nowhere_else(make_rig: MakeRig) -> None:
    miniport = Scripted()
    got: list[int] = []

    def update() -> bool:
        got.append(miniport.port.update_port_config_max_io_info(7, 5))
        return True

    miniport.find = lambda config: update() and None
    miniport.initialize = lambda: miniport.port.enable_passive_initialization(update)
    rig = make_rig(miniport)
    update()
    assert got == [STOR_STATUS_UNSUCCESSFUL, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL]
    assert rig.messages("QD-12") == [
        f"StorPortUpdatePortConfigMaxIOInfo from {where}" for where in ("hw_find_adapter", "no callback")
    ]


def test_PF_04_dpcs_run_in_order_and_one_that_is_cancelled_does_not(rig: Rig) -> None:
    port = rig.scripted.port
    ran: list[object] = []
    results: list[object] = []
    dpcs = [port.initialize_dpc(lambda dpc, one, two: ran.append((one, two))) for _ in range(3)]

    def isr() -> None:
        for number, dpc in enumerate(dpcs):
            results.append(port.issue_dpc(dpc, number, number + 10))
        results.append(port.issue_dpc(dpcs[1], "again", ""))
        results.append(port.cancel_dpc(dpcs[1]))
        results.append(port.cancel_dpc(dpcs[1]))

    rig.in_interrupt(isr)
    assert results == [True] * 3 + [False, (STOR_STATUS_SUCCESS, True), (STOR_STATUS_SUCCESS, False)]
    assert ran == [(0, 10), (2, 12)]
    rig.in_interrupt(lambda: results.append(port.issue_dpc(dpcs[1])))
    assert ran[2:] == [(None, None)] and results[-1] is True
    assert port.cancel_dpc(None) == (STOR_STATUS_INVALID_PARAMETER, False)
    assert port.cancel_dpc(dpcs[0]) == (STOR_STATUS_SUCCESS, False)


def test_PF_04_a_dpc_may_issue_itself(rig: Rig) -> None:
    """It is no longer queued when it runs, and runs again before the port is idle."""
    port = rig.scripted.port
    ran: list[int] = []

    def routine(dpc: Dpc, left: int, two: object) -> None:
        ran.append(left)
        if left:
            assert port.issue_dpc(dpc, left - 1)

    dpc = port.initialize_dpc(routine)
    rig.in_interrupt(lambda: port.issue_dpc(dpc, 2))
    assert ran == [2, 1, 0] and rig.found == set()


def test_an_adapter_reset_forgets_dpcs(rig: Rig) -> None:
    """What the miniport issues in hw_reset_bus runs; what is left of before does not."""
    port = rig.scripted.port
    ran: list[str] = []
    dpc = port.initialize_dpc(lambda dpc, one, two: ran.append(str(one)))

    def ended(srb: Srb) -> None:
        rig.port.reset_adapter()

    srb = rig.srb()
    srb.completion = ended
    rig.port.submit(srb)

    def isr() -> None:
        rig.scripted.complete(rig.scripted.started[0])

    rig.scripted.reset = lambda path: port.issue_dpc(dpc, "reset")
    rig.in_interrupt(isr)
    assert ran == []


def test_PF_01_passive_initialisation_only_from_hw_initialize(make_rig: MakeRig) -> None:
    miniport = Scripted()
    called: list[str] = []
    results: list[bool] = []

    def enable() -> bool:
        results.append(miniport.port.enable_passive_initialization(lambda: bool(called.append("passive"))))
        return True

    miniport.find = lambda config: enable() and None
    rig = make_rig(miniport)
    enable()
    assert results == [False, False] and called == []
    assert rig.messages("PF-01") == [
        f"StorPortEnablePassiveInitialization from {where}" for where in ("hw_find_adapter", "no callback")
    ]


def test_DM_01_what_there_is_not_in_dump_mode(make_rig: MakeRig) -> None:
    miniport = Scripted()
    got: list[object] = []

    def find(config: Any) -> None:
        got.append(len(miniport.port.get_uncached_extension(config, 40 << 10) or b""))

    def initialize() -> bool:
        got.append(miniport.port.enable_passive_initialization(lambda: bool(got.append("passive"))))
        got.append(isinstance(miniport.port.initialize_dpc(nothing), Dpc))
        return True

    miniport.find, miniport.initialize = find, initialize
    rig = make_rig(miniport, start=False)
    rig.port.dump = Dump(DUMP_MODE_CRASH)
    rig.port.start()
    assert got == [40 << 10, False, True]
    assert rig.messages("DM-02") == [
        "StorPortGetUncachedExtension of 40960 bytes makes 40960 in dump mode; 32768 at most"
    ]
    assert rig.messages("DM-03") == ["StorPortInitializeDpc in dump mode"]


def test_LK_06_what_the_synchronised_routine_returns_and_gets(rig: Rig) -> None:
    got: list[object] = []

    def routine(context: object) -> bool:
        got.append(context)
        return context is not None

    def build(srb: Srb) -> bool:
        got.append(rig.scripted.port.synchronize_access(routine, "mine"))
        got.append(rig.scripted.port.synchronize_access(routine))
        return True

    rig.scripted.build = build
    rig.submit()
    assert got == ["mine", True, None, False] and rig.found == set()


def test_a_synchronised_routine_that_raises_has_failed(rig: Rig) -> None:
    got: list[object] = []

    def build(srb: Srb) -> bool:
        got.append(rig.scripted.port.synchronize_access(lambda context: bool(1 // 0)))
        return True

    rig.scripted.build = build
    rig.submit()
    assert got == [False] and rig.found == {"BC-01"}
