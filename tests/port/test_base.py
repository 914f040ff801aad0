"""What both models have in common (hba.port.base), where one step further or less would be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, S
from hba.dma import DmaBuffer
from hba.errors import ConfigError
from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
)
from hba.miniport.services import BUS_CHANGE_DETECTED, CALL_ENABLE_INTERRUPTS, REQUEST_TIMER_CALL
from hba.port.context import DIRQL, PASSIVE_LEVEL
from hba.port.memory import MOST_EXTENSION
from hba.port.watcher import Watcher
from hba.scsi.task import DATA_NONE, Task
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_QUIESCE_DEVICE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NO_HBA,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.both import BASIC, Pnped
from tests.port.fakes import Rig
from tests.port.storport.rig import Rig as StorRig

Make = Callable[..., Pnped]
MakeRig = Callable[..., Rig]


def units(rig: Rig) -> list[str]:
    return [unit["address"] for unit in rig.port.snapshot()["units"]]


# -- addresses and units ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target", "lun", "there"),
    [
        (1, 3, 2, True),
        (2, 3, 2, False),
        (1, 4, 2, False),
        (1, 3, 3, False),
        (-1, 3, 2, False),
        (1, -1, 2, False),
        (1, 3, -1, False),
    ],
)
def test_Q_17_the_last_address_and_those_beyond_it(make: Make, path: int, target: int, lun: int, there: bool) -> None:
    rig = make(number_of_buses=2, maximum_number_of_targets=4, maximum_number_of_logical_units=3)
    srb = rig.prepared(lun=lun)
    srb.path_id, srb.target_id = path, target
    rig.port.submit(srb)
    assert len(rig.miniport.started) == there
    if there:
        rig.finish()
    assert rig.done == [srb]
    assert srb.srb_status == (SRB_STATUS_SUCCESS if there else SRB_STATUS_NO_DEVICE)
    assert units(rig) == ([f"{path}:{target}:{lun}"] if there else [])


@pytest.mark.parametrize("lun", [0, 254, 255])
def test_OW_10_the_lun_that_means_all_is_no_unit(make: Make, lun: int) -> None:
    rig = make(maximum_number_of_logical_units=256)
    rig.command(lun=lun)
    assert len(rig.miniport.started) == (lun < 255)


@pytest.mark.parametrize(
    ("function", "target", "lun", "address"),
    [
        (SRB_FUNCTION_RESET_BUS, 9, 9, "0:0:0"),
        (SRB_FUNCTION_RESET_DEVICE, 0, 9, "0:0:0"),
        (SRB_FUNCTION_RESET_DEVICE, 9, 9, None),
    ],
)
def test_OW_09_what_a_reset_does_not_name_is_not_looked_at(
    make: Make, function: int, target: int, lun: int, address: str | None
) -> None:
    """A bus reset has only a path, a target reset no LUN: what lies in these members is nobody's."""
    rig = make(maximum_number_of_targets=1, maximum_number_of_logical_units=1)
    srb = rig.submit(function, target, lun)
    assert (srb.srb_status == SRB_STATUS_NO_DEVICE) is (address is None)
    assert units(rig) == ([] if address is None else [address])


def test_units_of_all_paths_are_apart(make: Make) -> None:
    rig = make(number_of_buses=2, maximum_number_of_targets=4, maximum_number_of_logical_units=4)
    addresses = [(path, target, lun) for path in (0, 1) for target in (0, 2) for lun in (0, 3)]
    for path, target, lun in addresses:
        assert not rig.port.knows(path, target, lun)
        srb = rig.prepared(lun=lun)
        srb.path_id, srb.target_id = path, target
        rig.port.submit(srb)
        rig.finish()
        assert rig.port.knows(path, target, lun)
    assert units(rig) == ["{}:{}:{}".format(*address) for address in addresses]
    for address in addresses:
        rig.steps = None
        rig.port.remove_unit(*address, False, rig.told)
        for _ in range(3):
            rig.loop.run_once(0)
        assert rig.steps is not None
        assert not rig.port.knows(*address)
    assert units(rig) == []


def test_the_extension_of_a_unit_is_there_if_it_was_asked_for(rig: MakeRig) -> None:
    for size in (0, 8):
        r = rig(specific_lu_extension_size=size)
        port = r.miniport.port
        assert port.get_logical_unit(0, 0, 1) is None  # nobody has addressed it
        r.command(lun=1)
        assert (port.get_logical_unit(0, 0, 1) is not None) is bool(size)
        if size:
            port.get_logical_unit(0, 0, 1).mine = 5
            r.command(lun=1)
            assert port.get_logical_unit(0, 0, 1).mine == 5


def test_a_new_life_begins_with_no_memory_of_the_last(rig: MakeRig) -> None:
    r = rig(start=False, need_physical_addresses=True)
    got: list[tuple[int, int]] = []

    given: list[memoryview] = []
    port = r.port.library
    r.miniport.on_find = lambda config: given.append(port.get_uncached_extension(config, 4096))
    for _ in range(2):
        r.port.start()
        got.append(port.get_physical_address(None, given[-1]))
        r.port.stop()
    assert got[0] == got[1]


def test_what_the_library_had_given_out_is_the_ports_again() -> None:
    """There is one registry buffer at a time: the next life gets its own."""
    rig = StorRig(start=False)
    got: list[object] = []
    rig.scripted.find = lambda config: got.append(rig.scripted.port.allocate_registry_buffer(64))
    for _ in range(2):
        rig.port.start()
        rig.port.stop()
    rig.close()
    assert len(got) == 2 and None not in got


def test_what_was_known_of_units_ends_with_the_adapter(make: Make) -> None:
    rig = make()
    rig.command()
    rig.port.stop()
    rig.port.start()
    assert units(rig) == []


# -- at rest or not ---------------------------------------------------------------------------------------------------


def test_idle_is_when_nothing_is_under_way(make: Make) -> None:
    """A state is saved only then (`hba.adapters.keeper`): what has ended and did not go up yet is under way, too."""
    rig = make()
    during: list[bool] = []
    assert rig.port.idle
    srb = rig.command()
    srb.completion = lambda done: during.append(rig.port.idle)
    assert not rig.port.idle
    held = rig.held(srb)
    rig.miniport.finish(held)  # from no callback: it goes up in the next turn
    assert not rig.port.idle and during == []
    rig.loop.run_once(0)
    assert rig.port.idle and during == [False]


def test_a_completion_from_no_callback_goes_up_in_the_next_turn(make: Make) -> None:
    rig = make()
    srb = rig.command()
    rig.miniport.finish(rig.held(srb))
    assert rig.done == []
    rig.loop.run_once(0)
    assert rig.done == [srb]


def test_a_completion_in_a_callback_needs_no_turn_of_its_own(make: Make) -> None:
    rig = make()
    rig.command()
    rig.finish()
    assert len(rig.done) == 1 and not rig.loop._soon


def test_what_ends_while_others_go_up_goes_up_behind_them(make: Make) -> None:
    """`run` is a loop: a completion that asks for something which ends at once does not begin another round."""
    rig = make()
    first, second, other = rig.command(), rig.command(), rig.srb(SRB_FUNCTION_QUIESCE_DEVICE, lun=1)

    def completion(srb: Srb) -> None:
        rig.done.append(srb)
        rig.port.submit(other)

    first.completion = completion
    one, two = rig.held(first), rig.held(second)

    def work() -> None:
        rig.miniport.finish(one)
        rig.miniport.finish(two)

    rig.hardware(work)
    assert rig.done == [first, second, other]


def test_who_waits_is_called_once_and_only_then(make: Make) -> None:
    rig = make()
    first = rig.command()
    second = rig.command(lun=1)
    quiet = rig.submit(SRB_FUNCTION_QUIESCE_DEVICE)
    other = rig.submit(SRB_FUNCTION_QUIESCE_DEVICE, lun=1)
    rig.finish(first)
    rig.loop.run_once(0)
    assert rig.done == [first, quiet]
    rig.finish(second)
    rig.loop.run_once(0)
    assert rig.done == [first, quiet, second, other]
    rig.command()
    rig.finish()
    rig.loop.run_once(0)
    assert len(rig.done) == 5


# -- interrupts -------------------------------------------------------------------------------------------------------


def test_IN_02_one_that_raises_itself_again_and_again(make: Make) -> None:
    rig = make()
    again = [True]

    def work() -> None:
        if again[0]:
            rig.hardware(work)

    rig.hardware(work)
    assert rig.miniport.log.count("isr") == 16 and rig.rules == ["IN-02"]
    rig.miniport.work.clear()
    rig.chip.acknowledge()
    rig.hardware(work)  # and every one that comes later may do as much
    assert rig.miniport.log.count("isr") == 32 and rig.rules == ["IN-02"] * 2
    assert rig.port.snapshot()["counters"]["interrupt storms"] == 2
    again[0] = False
    rig.command()
    rig.seconds(1)  # with something outstanding it is tried again
    assert rig.miniport.log.count("isr") == 33 and rig.rules == ["IN-02"] * 2


def test_IN_02_the_count_begins_anew_with_each_interrupt(rig: MakeRig) -> None:
    r = rig(options={"interrupt_storm_limit": 3})
    for _ in range(3):
        left = [3]

        def work(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0]:
                r.hardware(work)

        r.hardware(work)
    assert r.miniport.log.count("isr") == 9 and r.rules == []


@pytest.mark.parametrize("every", [2, 3])
def test_IN_01_how_often_another_device_interrupts(rig: MakeRig, every: int) -> None:
    r = rig(options={"shared_interrupt_every": every})
    seen = []
    for _ in range(6):
        r.hardware(lambda: None)
        seen.append(r.miniport.log.count("isr"))
    assert seen == [number + number // every for number in range(1, 7)]
    assert r.port.snapshot()["counters"]["shared interrupts injected"] == 6 // every
    assert r.rules == []


def test_IN_01_no_other_device_while_our_line_is_up(rig: MakeRig) -> None:
    r = rig(options={"shared_interrupt_every": 1, "interrupt_storm_limit": 4})
    r.miniport.dismisses = False
    r.chip.raise_interrupt()
    assert r.miniport.log.count("isr") == 4
    assert "shared interrupts injected" not in r.port.snapshot()["counters"]


def test_IN_02_an_interrupt_routine_that_raises_each_time(rig: MakeRig) -> None:
    r = rig(options={"interrupt_storm_limit": 3})

    def crash() -> bool:
        raise ValueError("oops")

    r.miniport.hw_interrupt = crash  # type: ignore[method-assign]
    r.chip.raise_interrupt()
    assert r.rules == ["BC-01"] * 3 + ["IN-02"]
    assert r.verifier.findings[-1].message == (
        "the interrupt line is still asserted after 3 calls of hw_interrupt (last returned False); left alone until it"
        " is raised again"
    )


def test_IN_01_who_raises_has_claimed_nothing(rig: MakeRig) -> None:
    r = rig(options={"shared_interrupt_every": 1})

    def crash() -> bool:
        r.chip.acknowledge()
        if r.miniport.log.pop() == "second":
            raise ValueError("oops")
        return True

    r.miniport.log += ["second", "first"]
    r.miniport.hw_interrupt = crash  # type: ignore[method-assign]
    r.chip.raise_interrupt()
    assert r.rules == ["BC-01"]


def test_IN_01_claimed_without_a_cause(rig: MakeRig) -> None:
    r = rig()
    r.miniport.claims_all = True
    r.chip.on_interrupt()  # the line went down again before it was served
    assert [finding.message for finding in r.verifier.findings] == [
        "hw_interrupt returned True although the adapter's line was not asserted"
    ]
    r.miniport.claims_all = False
    r.chip.on_interrupt()
    assert r.rules == ["IN-01"]


def test_BC_01_an_interrupt_routine_that_raises_has_said_nothing(rig: MakeRig) -> None:
    """Neither that the interrupt was its own nor that it was not: one finding, not two."""
    r = rig()

    def crash() -> None:
        raise ValueError("oops")

    r.hardware(crash)
    assert r.rules == ["BC-01"]
    assert r.port.snapshot()["counters"]["miniport exceptions"] == 1
    assert "hw_interrupt raised ValueError: oops" in r.port.snapshot()["last_crash"]


def test_an_interrupt_before_the_start_is_left_alone(make: Make) -> None:
    rig = make()
    rig.port.stop()
    rig.chip.raise_interrupt()
    assert "isr" not in rig.miniport.log


def test_who_is_above_need_not_hear_of_a_bus_change(make: Make) -> None:
    rig = make()
    rig.hardware(lambda: rig.miniport.port.notification(BUS_CHANGE_DETECTED, 0))
    rig.loop.run_once(0)
    assert rig.rules == []


# -- time -------------------------------------------------------------------------------------------------------------


def test_the_tick_runs_while_something_is_outstanding(make: Make) -> None:
    """An idle port costs nothing: not one timer."""
    rig = make()
    assert rig.clock.next_deadline() is None
    rig.command(time_out_value=100)
    for _ in range(3):
        assert rig.clock.next_deadline() == rig.clock.now() + S
        rig.seconds(1)
    rig.finish()
    rig.seconds(1)
    assert rig.clock.next_deadline() is None


def test_no_tick_outlives_the_port(make: Make) -> None:
    rig = make()
    rig.command()
    rig.port.stop()
    assert rig.clock.next_deadline() is None
    rig.port.start()
    rig.command(time_out_value=100)
    assert rig.clock.next_deadline() == rig.clock.now() + S


def test_a_tick_waits_for_the_callback_that_runs(make: Make) -> None:
    """The time of a request ends in the middle of a callback: what follows comes after it, and is not lost."""
    rig = make()
    inside = [False]
    order: list[str] = []
    first = rig.command(time_out_value=1)

    def start(srb: Srb) -> None:
        assert not inside[0]
        inside[0] = True
        order.append("in")
        if len(order) == 1:
            rig.clock.advance(S)
        order.append("out")
        inside[0] = False

    rig.miniport.on_start = start
    rig.command(lun=1, time_out_value=100)
    assert order == ["in", "out"] and rig.done == []
    rig.loop.run_once(0)
    rig.seconds(20)
    assert first in rig.done and first.srb_status != SRB_STATUS_SUCCESS


def test_IN_05_the_timer_waits_for_the_callback_that_runs(rig: MakeRig) -> None:
    r = rig()
    order: list[str] = []
    port = r.miniport.port
    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, lambda: order.append("timer"), 10_000))

    def start(srb: Srb) -> None:
        r.clock.advance(20 * MS)
        order.append("started")

    r.miniport.on_start = start
    r.command()
    assert order == ["started"]
    r.loop.run_once(0)
    assert order == ["started", "timer"]


def test_IN_05_a_timer_that_waits_may_be_cancelled_meanwhile(rig: MakeRig) -> None:
    r = rig()
    called: list[str] = []
    port = r.miniport.port
    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, lambda: called.append("timer"), 10_000))

    def start(srb: Srb) -> None:
        r.clock.advance(20 * MS)
        port.notification(REQUEST_TIMER_CALL, None, 0)

    r.miniport.on_start = start
    r.command()
    r.loop.run_once(0)
    r.loop.run_once(0)
    assert called == [] and r.rules == []


def test_IN_05_what_a_timer_routine_completes_goes_up_at_once(rig: MakeRig) -> None:
    r = rig()
    held = r.held(r.command())
    port = r.miniport.port
    r.hardware(lambda: port.notification(REQUEST_TIMER_CALL, lambda: r.miniport.finish(held), 10_000))
    r.clock.advance(10 * MS)
    assert len(r.done) == 1


def test_ER_09_a_request_is_overdue_after_its_seconds(make: Make, model: str) -> None:
    """Not a second before; the unit's oldest request's time runs, and what comes behind it has its own from then on."""
    rig = make()
    first = rig.command(time_out_value=3)
    rig.command(time_out_value=5)
    left = []
    for _ in range(2):
        rig.seconds(1)
        left.append(rig.port.snapshot()["units"][0]["timeout_left"])
    assert left == [2, 1]
    rig.finish(first)
    assert rig.port.snapshot()["units"][0]["timeout_left"] == 5
    calls = len(rig.miniport.log)
    rig.seconds(4)
    assert len(rig.miniport.log) == calls
    rig.seconds(1)
    assert len(rig.miniport.log) > calls  # an abort, or a reset


def test_ER_09_one_that_is_overdue_has_no_time_left(make: Make, model: str) -> None:
    """While what is done about it is under way: nobody takes it for overdue again."""
    rig = make()
    rig.controlled.later += [SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_ABORT_COMMAND]
    rig.command(time_out_value=2)
    left = []
    for _ in range(4):
        left.append(rig.port.snapshot()["units"][0]["timeout_left"])
        rig.seconds(1)
    assert left == [2, 1, -1, -1]


def test_the_default_time_is_an_option(rig: MakeRig) -> None:
    r = rig(options={"default_timeout": 7})
    r.command(time_out_value=0)
    assert r.port.snapshot()["units"][0]["timeout_left"] == 7
    assert r.port.snapshot()["units"][0]["started"] == 1


def test_a_queue_that_stands_still_is_told_of_once_for_each_life(rig: MakeRig) -> None:
    r = rig(next="", options={"stuck_after": 2})
    for _ in range(2):
        r.command(lun=0, time_out_value=100)
        r.command(lun=1, time_out_value=100)
        r.finish()
        r.seconds(10)
        r.port.reset_adapter()
    assert r.rules == ["SP-07", "SP-07"]


# -- life -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MOST_EXTENSION])
def test_OW_08_sizes_of_an_extension(make: Make, size: int) -> None:
    rig = make(srb_extension_size=size)
    extension = rig.held(rig.command()).srb_extension
    assert (len(extension) if extension is not None else 0) == size


@pytest.mark.parametrize("size", [-1, MOST_EXTENSION + 1])
def test_OW_08_sizes_no_extension_has(make: Make, size: int) -> None:
    with pytest.raises(ConfigError, match=f"sets SrbExtensionSize {size}; expected bytes, at most {MOST_EXTENSION}"):
        make(srb_extension_size=size)


def test_a_miniport_that_raises_where_it_should_find_its_adapter(make: Make) -> None:
    rig = make()
    rig.port.stop()

    def crash(config: object) -> int:
        raise ValueError("no adapter")

    rig.miniport.hw_find_adapter = crash  # type: ignore[method-assign]
    with pytest.raises(
        ConfigError,
        match=r"hw_find_adapter returned -1, not SP_RETURN_FOUND \(1\); hw_find_adapter raised ValueError: no adapter",
    ):
        rig.port.start()


def test_a_miniport_that_says_no_says_nothing_of_a_crash(make: Make) -> None:
    rig = make()
    rig.port.stop()
    rig.miniport.hw_initialize = lambda: False  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"hw_initialize returned False$"):
        rig.port.start()
    srb = rig.command()
    assert srb.srb_status == SRB_STATUS_NO_HBA


def test_what_hw_initialize_leaves_to_the_port_is_done_at_once(make: Make) -> None:
    """An interrupt that came during it is served before anybody asks for anything."""
    rig = make()
    rig.port.stop()
    rig.miniport.on_initialize = lambda: rig.chip.raise_interrupt()
    rig.port.start()
    assert rig.miniport.log[-3:] == ["find", "initialize", "isr"]


def test_RS_05_at_which_irql_the_adapter_is_controlled(make: Make) -> None:
    rig = make()
    seen: list[tuple[int, int]] = []
    controlled = rig.controlled.hw_adapter_control

    def control(control_type: int, parameters: Any) -> int:
        seen.append((control_type, rig.port.irql))
        return controlled(control_type, parameters)

    rig.controlled.hw_adapter_control = control  # type: ignore[method-assign]
    rig.do("sleep", 1)
    rig.do("resume")
    assert seen == [
        (SCSI_STOP_ADAPTER, DIRQL),
        (SCSI_SET_BOOT_CONFIG, PASSIVE_LEVEL),
        (SCSI_SET_RUNNING_CONFIG, PASSIVE_LEVEL),
        (SCSI_RESTART_ADAPTER, DIRQL),
    ]


def test_RS_05_the_port_knows_which_control_it_is(make: Make) -> None:
    """What may be asked of the bus then depends on it (`hba.port.library.bus_data`), in each life."""
    rig = make()
    seen: list[tuple[int, int]] = []
    controlled = rig.controlled.hw_adapter_control

    def control(control_type: int, parameters: Any) -> int:
        seen.append((control_type, rig.port.control_type))
        return controlled(control_type, parameters)

    rig.controlled.hw_adapter_control = control  # type: ignore[method-assign]
    rig.do("stop")
    rig.do("start")
    expected = [SCSI_STOP_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_QUERY_SUPPORTED_CONTROL_TYPES]
    assert seen == [(control_type, control_type) for control_type in expected]


def test_RS_05_a_list_ends_where_it_ends(make: Make) -> None:
    rig = make()
    most = rig.port.control_type_list
    rig.port.stop()

    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            parameters[most] = True
        return 0

    rig.controlled.hw_adapter_control = control  # type: ignore[method-assign]
    rig.port.start()
    assert rig.rules == ["RS-05"]
    message = f"hw_adapter_control wrote beyond its list of {most} types: [{most}]"
    assert rig.verifier.findings[0].message == message


def test_RS_05_what_a_miniport_declares(make: Make) -> None:
    rig = make((SCSI_STOP_ADAPTER,))
    most = rig.port.control_type_list
    assert [rig.port.declares(control_type) for control_type in range(most + 1)] == [True, True, *[False] * (most - 1)]


@pytest.mark.parametrize("outcome", [1, 2, "raises"])
def test_RS_05_a_control_that_fails(make: Make, outcome: Any) -> None:
    rig = make()

    def control(control_type: int, parameters: Any) -> int:
        if outcome == "raises":
            raise ValueError("oops")
        return int(outcome)

    rig.controlled.hw_adapter_control = control  # type: ignore[method-assign]
    assert rig.do("stop") == [("ScsiStopAdapter", "failed"), ("ScsiSetBootConfig", "failed")]


def test_a_reset_of_the_adapter_ends_all_and_initialises_again(make: Make, model: str) -> None:
    rig = make()
    active = [rig.command(), rig.command(lun=1)]
    rig.chip.interrupts_enabled = False
    rig.chip.raise_interrupt()
    rig.chip.interrupts_enabled = True
    before = len(rig.miniport.log)
    rig.port.reset_adapter()
    assert rig.statuses() == [SRB_STATUS_BUS_RESET] * 2 and set(map(id, rig.done)) == set(map(id, active))
    assert rig.miniport.log[before:] == [
        *["reset_bus"] * (model == "storport"),  # RS-03
        "initialize",
    ]
    assert rig.port.snapshot()["counters"]["adapter resets"] == 1
    assert rig.port.outstanding == 0 and rig.port.idle
    rig.command()
    rig.finish()
    assert rig.statuses()[-1] == SRB_STATUS_SUCCESS


class Spy(Watcher):
    def __init__(self) -> None:
        self.log: list[str] = []

    def attached(self) -> None:
        self.log.append("attached")

    def configured(self, info: object) -> None:
        self.log.append("configured")

    def interrupted(self, during: int) -> None:
        self.log.append(f"interrupted {during}")

    def note(self, request: object, what: str, detail: object) -> None:
        if request is None:
            self.log.append(what)


def test_who_watches_hears_of_the_life_of_the_adapter(make: Make) -> None:
    rig, spy = make(), Spy()
    rig.port.watchers += (spy,)
    rig.port.reset_adapter()
    rig.chip.raise_interrupt()
    rig.port.stop()
    rig.port.start()
    rig.port.crash()
    expected = ["reset_adapter", "interrupted 0", "stop", "attached", "configured", "crash"]
    assert [what for what in spy.log if what in expected] == expected
    assert rig.chip.on_interrupt is None  # nobody takes from the adapter what it still does


def test_a_reset_in_the_middle_of_a_deferral_ends_it(rig: MakeRig) -> None:
    """IN-04: hw_interrupt has put its work off, and the guest resets the adapter before that work is done."""
    r = rig()
    srb = r.command()
    held = r.held(srb)
    port = r.miniport.port
    srb.completion = lambda done: r.port.reset_adapter()

    def interrupt() -> None:
        r.chip.interrupts_enabled = False
        port.notification(CALL_ENABLE_INTERRUPTS, lambda: None)
        r.miniport.finish(held)

    r.miniport.on_initialize = lambda: setattr(r.chip, "interrupts_enabled", True)
    r.hardware(interrupt)
    r.command()
    r.finish()
    assert r.statuses() == [SRB_STATUS_SUCCESS]


def test_an_interrupt_from_before_a_reset_is_not_served_after_it(make: Make) -> None:
    rig = make()
    srb = rig.command()

    def completion(done: Srb) -> None:
        rig.chip.raise_interrupt()
        rig.port.reset_adapter()

    srb.completion = completion
    rig.finish()
    assert rig.miniport.log[-1] == "initialize" and rig.miniport.log.count("isr") == 1


@pytest.mark.parametrize("ends", ["reset_adapter", "surprise_removal"])
def test_an_end_is_not_interrupted_by_what_it_ends(ends: str) -> None:
    """The commands of the chip end with it, and their interrupts mean nothing any more."""
    rig = StorRig()
    try:
        rig.bus.hold = True

        def start(srb: Srb) -> bool:
            task = Task(srb.cdb, DATA_NONE, None)
            task.owner = srb
            rig.chip.start(0, 0, task)
            return True

        rig.scripted.start = start
        rig.submit()
        rig.scripted.calls.clear()
        if ends == "reset_adapter":
            rig.port.reset_adapter()
        else:
            rig.port.pnp.surprise_removal(lambda steps: None)
        rig.turn()
        assert rig.bus.tasks == [] and not rig.chip.asserted and not rig.chip.completed
        assert "interrupt" not in rig.scripted.names()
    finally:
        rig.close()


def test_the_end_of_a_port_whose_machine_has_crashed(make: Make) -> None:
    """It is told nothing any more; what it had, and what came since, ends, and no timer is left."""
    rig = make()
    first = rig.command()
    rig.port.crash()
    later = rig.command()
    told, log = rig.controlled.outstanding[:], rig.miniport.log[:]
    rig.port.stop()
    assert rig.done == [first, later] and rig.statuses() == [SRB_STATUS_ABORTED] * 2
    assert rig.controlled.outstanding == told
    assert [entry for entry in rig.miniport.log[len(log) :] if entry != "reset_bus"] == []
    assert rig.clock.next_deadline() is None and rig.chip.on_interrupt is None
    rig.port.recover()  # it comes too late
    assert "find" not in rig.miniport.log[len(log) :]


def test_RS_06_what_waits_for_an_adapter_that_sleeps_waits_after_a_reset_too(make: Make) -> None:
    rig = make()
    rig.do("sleep", 1)
    rig.port.reset_adapter()
    srbs = [rig.command(), rig.command(lun=1)]
    rig.loop.run_once(0)
    assert not any(map(rig.started, srbs)) and rig.done == []


def test_a_miniport_that_raises_where_it_should_initialise(make: Make) -> None:
    rig = make()
    rig.port.stop()

    def crash() -> None:
        raise ValueError("oops")

    rig.miniport.on_initialize = crash
    with pytest.raises(ConfigError, match="hw_initialize returned False; hw_initialize raised ValueError: oops"):
        rig.port.start()
    assert not rig.port.snapshot()["started"]
    rig.chip.raise_interrupt()
    assert "isr" not in rig.miniport.log


def test_what_a_completion_asks_for_during_a_reset_is_ended_with_it(make: Make) -> None:
    """Each asks again, once; the adapter has not begun anew, and the miniport does not see these."""
    rig = make()
    asked: list[Srb] = []

    def again(srb: Srb) -> None:
        rig.done.append(srb)
        asked.append(rig.command())

    for lun in (0, 1):
        rig.command(lun=lun).completion = again
    rig.port.reset_adapter()
    assert len(rig.done) == 4 or rig.port.outstanding == 2
    assert len(asked) == 2


def test_a_miniport_that_does_not_come_back_after_a_reset(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = make()
    rig.miniport.hw_initialize = lambda: False  # type: ignore[method-assign]
    rig.port.reset_adapter()
    assert "after the adapter was reset: the miniport Controlled cannot initialise its adapter" in caplog.text
    assert rig.command().srb_status == SRB_STATUS_NO_HBA


def test_a_reset_before_the_start_and_a_stop_before_it_tell_the_miniport_nothing(make: Make) -> None:
    rig = make()
    rig.port.stop()
    log, outstanding = rig.miniport.log[:], rig.controlled.outstanding[:]
    rig.port.reset_adapter()
    rig.port.stop()
    assert rig.miniport.log == log and rig.controlled.outstanding == outstanding


def test_an_adapter_that_is_taken_out_leaves_nothing_behind(make: Make) -> None:
    """What its chip had done and nobody has taken yet: no completion, no interrupt, now or with the next adapter."""
    rig = make()
    rig.command()
    rig.chip.interrupts_enabled = False
    rig.chip.completed.append(Task(b"", DATA_NONE, None))
    rig.chip.raise_interrupt()
    rig.do("surprise_removal")
    assert not rig.chip.completed and not rig.chip.asserted
    assert rig.statuses() == [SRB_STATUS_NO_HBA] and "isr" not in rig.miniport.log
    rig.chip.interrupts_enabled = True
    rig.do("start")
    assert "isr" not in rig.miniport.log


def test_an_interrupt_of_an_adapter_that_is_taken_out_is_not_served(make: Make) -> None:
    rig = make()
    first = rig.command()
    rig.command(lun=1)

    def completion(done: Srb) -> None:
        rig.chip.raise_interrupt()
        rig.port.give_up_outstanding(SRB_STATUS_NO_HBA)

    first.completion = completion
    rig.finish(first)
    assert rig.miniport.log.count("isr") == 1
    assert rig.statuses() == [SRB_STATUS_NO_HBA]


def test_the_end_of_a_port(make: Make) -> None:
    """What is outstanding ends with ABORTED, the adapter is stopped after that, and what comes later has no adapter."""
    rig = make()
    srb = rig.command()
    rig.port.stop()
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_ABORTED
    assert rig.controlled.outstanding == [(SCSI_STOP_ADAPTER, 0), (SCSI_SET_BOOT_CONFIG, 0)]
    assert rig.chip.on_interrupt is None and not rig.port.snapshot()["started"]
    assert rig.command().srb_status == SRB_STATUS_NO_HBA
    rig.port.start()
    rig.command()
    rig.finish()
    assert rig.done[-1].srb_status == SRB_STATUS_SUCCESS


def test_the_end_of_a_port_that_sleeps(make: Make) -> None:
    """It was stopped before, so nothing is told it again; the next life begins awake."""
    rig = make()
    rig.do("sleep", 1)
    told = rig.controlled.outstanding[:]
    rig.port.stop()
    assert rig.controlled.outstanding == told
    rig.port.start()
    assert rig.port.pnp.state == "running"
    rig.command()
    rig.finish()
    assert rig.statuses()[-1] == SRB_STATUS_SUCCESS


def test_RS_06_only_who_caches_data_is_asked_to_flush_at_the_end(make: Make) -> None:
    for caches in (False, True):
        rig = make(caches_data=caches)
        rig.command()
        rig.finish()
        rig.submit(SRB_FUNCTION_LOCK_QUEUE, lun=1)
        rig.command(lun=1)  # which the miniport never sees
        rig.port.stop()
        assert rig.seen() == [0, *[SRB_FUNCTION_FLUSH] * caches]


def test_what_the_port_knows_as_json(make: Make, model: str) -> None:
    rig = make(caches_data=True)
    rig.command(time_out_value=9)
    found = rig.port.snapshot()
    assert (found["model"], found["started"], found["outstanding"]) == (model, True, 1)
    assert found["configuration"]["caches_data"] is True
    (unit,) = found["units"]
    assert (unit["address"], unit["locked"], unit["started"], unit["completed"]) == ("0:0:0", False, 1, 0)
    assert unit["timeout_left"] == 9 and len(unit["outstanding"]) == 1
    rig.finish()
    (unit,) = rig.port.snapshot()["units"]
    assert (unit["started"], unit["completed"], unit["timeout_left"]) == (1, 1, -1)


# -- transfers in parts -----------------------------------------------------------------------------------------------


def test_a_request_in_parts_is_counted(make: Make) -> None:
    rig = make(maximum_transfer_length=2048)
    data = DmaBuffer.of(bytearray(4096))
    rig.command(cdb=bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)), size=4096, mdl=data)
    for _ in range(2):
        rig.finish()
    assert rig.statuses() == [SRB_STATUS_SUCCESS]
    assert rig.port.snapshot()["counters"]["transfers split"] == 1


def test_RS_06_a_port_that_declares_nothing_is_told_nothing_at_its_end(make: Make) -> None:
    rig = make(())
    rig.port.stop()
    assert rig.controlled.outstanding == []
    assert len(BASIC) == 4
