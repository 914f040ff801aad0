"""Message signalled interrupts: IN-08, LK-04, LK-01 of messages' locks, PF-05, PF-06."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.miniport.config import (
    INTERRUPT_SUPPORT_NONE,
    INTERRUPT_SYNCHRONIZE_ALL,
    INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
    LATCHED,
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    GroupAffinity,
    PerfConfigurationData,
    StartIoPerformanceParameters,
)
from hba.miniport.services import (
    DPC_LOCK,
    INTERRUPT_LOCK,
    START_IO_LOCK,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
    Dpc,
)
from hba.port.context import DIRQL, INTERRUPT
from hba.scsi.task import DATA_IN, Task
from hba.srb import Srb
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

RANGES = STOR_PERF_DPC_REDIRECTION | STOR_PERF_INTERRUPT_MESSAGE_RANGES


class Messenger(Scripted):
    """Completes what has ended with a message; `during` runs in hw_msi_interrupt first."""

    def __init__(self, mode: int = INTERRUPT_SYNCHRONIZE_PER_MESSAGE, **overrides: Any) -> None:
        super().__init__(interrupt_synchronization_mode=mode, **overrides)
        self.during: Callable[[int], object] | None = None
        self.message_of: Callable[[Srb], int] = lambda srb: 0
        self.answer = True
        self.start = self.start_it

    def start_it(self, srb: Srb) -> bool:
        task = Task(b"\x28" + bytes(9), DATA_IN, self.chip.map(srb, self.port.get_scatter_gather_list(srb) or (), 1))
        task.owner, task.message = srb, self.message_of(srb)
        if self.chip.start(srb.target_id, srb.lun, task):
            self.complete(srb)
        return True

    def hw_interrupt(self) -> bool:
        self.calls.append(("interrupt",))
        self.chip.acknowledge()
        while self.chip.completed:
            self.complete(self.chip.completed.popleft().owner)
        return True

    def hw_msi_interrupt(self, message_id: int) -> bool:
        self.calls.append(("msi", message_id))
        if self.during is not None:
            self.during(message_id)
        completed = self.chip.completions(message_id)
        while completed:
            self.complete(completed.popleft().owner)
        return self.answer


def served(rig: Rig) -> list[Any]:
    return [call[1] for call in rig.scripted.calls if call[0] == "msi"]


@pytest.mark.parametrize("mode", [INTERRUPT_SYNCHRONIZE_ALL, INTERRUPT_SYNCHRONIZE_PER_MESSAGE])
def test_each_command_ends_with_its_message(make_rig: MakeRig, mode: int) -> None:
    miniport = Messenger(mode)
    rig = make_rig(miniport, message_number_limit=4)
    order = iter([3, 1, 1, 2])
    miniport.message_of = lambda srb: next(order)
    rig.bus.hold = True
    srbs = [rig.submit() for _ in range(4)]
    for task in list(rig.bus.tasks):
        rig.bus.finish(task)
    assert served(rig) == [3, 1, 1, 2]
    assert rig.done == srbs and rig.found == set()
    assert rig.port.snapshot()["adapter"]["messages"] == [0, 2, 1, 1]  # type: ignore[index]


def test_messages_that_wait_are_served_by_number_and_merge(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())
    rig.chip.interrupts_enabled = False
    for message in (5, 2, 5):
        rig.chip.raise_interrupt(message)
    assert served(rig) == []
    rig.chip.interrupts_enabled = True
    assert served(rig) == [2, 5]


def test_a_message_is_an_edge(make_rig: MakeRig) -> None:
    """Nobody has to dismiss it, and it does not come again."""
    rig = make_rig(Messenger())
    rig.chip.raise_interrupt(1)
    rig.chip.raise_interrupt(1)
    assert served(rig) == [1, 1] and rig.found == set()


def test_without_messages_granted_there_is_the_line(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger(), message_number_limit=0)
    rig.bus.hold = True
    srb = rig.submit()
    rig.bus.finish(rig.bus.tasks[0])
    assert rig.done == [srb] and rig.scripted.calls[-1] == ("interrupt",)
    assert rig.scripted.port.get_msi_info(0) == (STOR_STATUS_INVALID_DEVICE_REQUEST, None)


@pytest.mark.parametrize("mode", [INTERRUPT_SYNCHRONIZE_ALL, INTERRUPT_SYNCHRONIZE_PER_MESSAGE])
def test_without_a_routine_there_is_the_line(make_rig: MakeRig, mode: int) -> None:
    """HwMSInterruptRoutine is NULL."""
    rig = make_rig(Scripted(interrupt_synchronization_mode=mode))
    rig.chip.raise_interrupt()
    assert rig.scripted.calls[-1] == ("interrupt",)
    assert rig.scripted.port.get_msi_info(0) == (STOR_STATUS_INVALID_DEVICE_REQUEST, None)


def test_the_routine_may_come_with_the_configuration(make_rig: MakeRig) -> None:
    """As for a driver whose routines are in tables: it gets the miniport as its first argument."""
    seen: list[tuple[object, int]] = []

    def routine(miniport: object, message_id: int) -> bool:
        seen.append((miniport, message_id))
        return True

    rig = make_rig(Scripted(interrupt_synchronization_mode=2, hw_ms_interrupt_routine=routine))
    rig.chip.raise_interrupt(5)
    assert seen == [(rig.miniport, 5)] and rig.found == set()
    configuration: Any = rig.port.snapshot()["configuration"]
    assert configuration["hw_ms_interrupt_routine"].endswith("routine")


def test_a_message_beyond_those_granted_is_the_first(make_rig: MakeRig) -> None:
    miniport = Messenger()
    rig = make_rig(miniport, message_number_limit=2)
    miniport.message_of = lambda srb: 7
    rig.bus.hold = True
    srb = rig.submit()
    rig.bus.finish(rig.bus.tasks[0])
    assert served(rig) == [0] and rig.done == [srb]


def test_an_adapter_reset_forgets_messages(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())
    rig.bus.hold = True
    srb = rig.submit()
    rig.chip.interrupts_enabled = False
    rig.bus.finish(rig.bus.tasks[0])
    rig.port.reset_adapter()
    rig.chip.interrupts_enabled = True
    assert rig.done == [srb] and served(rig) == []


def test_IN_08_nobody_shares_a_message(make_rig: MakeRig) -> None:
    miniport = Messenger()
    rig = make_rig(miniport)
    miniport.answer = False
    rig.chip.raise_interrupt(3)
    assert rig.found == {"IN-08"} and "message 3" in rig.messages("IN-08")[0]


def test_IN_08_get_msi_info(make_rig: MakeRig) -> None:
    miniport = Messenger()
    rig = make_rig(miniport)
    port = miniport.port
    found = [port.get_msi_info(number) for number in range(8)]
    assert all(status == STOR_STATUS_SUCCESS for status, _ in found)
    infos = [info for _, info in found if info is not None]
    assert [info.message_id for info in infos] == list(range(8))
    assert len({info.message_data for info in infos}) == 8
    assert {(info.interrupt_mode, info.interrupt_level) for info in infos} == {(LATCHED, DIRQL)}
    assert port.get_msi_info(8) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert rig.found == set()
    miniport.during = lambda message: port.get_msi_info(message)
    rig.chip.raise_interrupt(0)
    assert rig.found == {"IN-08"}


def test_IN_08_vectors_are_a_pcs_and_go_round(make_rig: MakeRig) -> None:
    """From 0x50 to 0xBF, which is 112 of them."""
    rig = make_rig(Messenger(), message_number_limit=114)
    data = [info.message_data for number in range(114) if (info := rig.scripted.port.get_msi_info(number)[1])]
    assert data == [*range(0x50, 0xC0), 0x50, 0x51]


def test_LK_04_without_messages_the_line_holds_the_interrupt_lock(make_rig: MakeRig) -> None:
    """Whatever mode was asked for: there is no message whose lock it could be."""
    rig = make_rig(Messenger(), message_number_limit=0)
    held: list[bool] = []

    def isr() -> bool:
        rig.chip.acknowledge()
        held.append(rig.scripted.port.acquire_msi_spin_lock(0).held)
        return True

    rig.scripted.hw_interrupt = isr  # type: ignore[method-assign]
    rig.chip.raise_interrupt()
    assert held == [False]
    message = "deadlock: MSI lock 0 acquired in hw_interrupt, but the port took it for this callback"
    assert rig.messages("LK-01") == [message]


def test_ST_04_the_lock_of_a_message_around_a_write_makes_it_right(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())

    def build(srb: Srb) -> bool:
        handle = rig.scripted.port.acquire_msi_spin_lock(0)
        rig.scripted.count = getattr(rig.scripted, "count", 0) + 1  # type: ignore[attr-defined]
        rig.scripted.port.release_msi_spin_lock(handle)
        return True

    rig.scripted.build = build
    rig.submit()
    rig.submit()
    assert rig.found == set()


# -- locks ----------------------------------------------------------------------------------------------------------


def in_message(rig: Rig, message: int, action: Callable[[], object]) -> None:
    assert isinstance(rig.scripted, Messenger)
    rig.scripted.during = lambda number: action() if number == message else None
    rig.chip.raise_interrupt(message)
    rig.scripted.during = None


def take_messages(rig: Rig, *messages: int) -> None:
    port = rig.scripted.port
    handles = [port.acquire_msi_spin_lock(message) for message in messages]
    for handle in reversed(handles):
        if handle.held:
            port.release_msi_spin_lock(handle)


@pytest.mark.parametrize("mode", [INTERRUPT_SUPPORT_NONE, INTERRUPT_SYNCHRONIZE_ALL])
def test_LK_04_messages_have_locks_of_their_own_only_per_message(make_rig: MakeRig, mode: int) -> None:
    rig = make_rig(Scripted(interrupt_synchronization_mode=mode))

    def build(srb: Srb) -> bool:
        assert not rig.scripted.port.acquire_msi_spin_lock(0).held
        return True

    rig.scripted.build = build
    rig.submit()
    assert rig.found == {"LK-04"}


def test_LK_04_the_lock_of_another_message(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())

    def action() -> None:
        assert (rig.port.callback, rig.port.irql) == (INTERRUPT, DIRQL)
        take_messages(rig, 4)

    in_message(rig, 2, action)
    assert rig.found == set()
    in_message(rig, 2, lambda: take_messages(rig, 8))
    assert rig.found == {"LK-04"}


def test_LK_01_the_lock_of_a_message_is_not_recursive(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())
    in_message(rig, 2, lambda: take_messages(rig, 2))
    in_message(rig, 2, lambda: take_messages(rig, 3, 3))
    in_message(rig, 2, lambda: rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK))
    assert rig.found == {"LK-01"}
    assert all(message.startswith("deadlock") for message in rig.messages("LK-01"))
    assert len(rig.messages("LK-01")) == 3


def test_LK_01_the_interrupt_lock_is_all_messages_locks(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())

    def build(srb: Srb) -> bool:
        port = rig.scripted.port
        handle = port.acquire_spin_lock(INTERRUPT_LOCK)
        assert not port.acquire_msi_spin_lock(1).held
        port.release_spin_lock(handle)
        handle = port.acquire_msi_spin_lock(1)
        assert not port.acquire_spin_lock(INTERRUPT_LOCK).held
        port.acquire_spin_lock(START_IO_LOCK)  # below it
        return True

    rig.scripted.build = build
    rig.submit()
    assert len(rig.messages("LK-01")) == 3


def test_LK_01_two_messages_locks_in_both_orders(make_rig: MakeRig) -> None:
    """No order is documented, so it is not the order that is wrong, but two of them."""
    rig = make_rig(Messenger())
    in_message(rig, 3, lambda: take_messages(rig, 1))
    in_message(rig, 3, lambda: take_messages(rig, 1))
    assert rig.found == set()
    in_message(rig, 1, lambda: take_messages(rig, 3))
    assert rig.found == {"LK-01"} and "other way round" in rig.messages("LK-01")[0]


def test_LK_01_all_messages_together_hold_the_interrupt_lock(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger(INTERRUPT_SYNCHRONIZE_ALL))
    in_message(rig, 2, lambda: rig.scripted.port.acquire_spin_lock(INTERRUPT_LOCK))
    assert rig.found == {"LK-01"}


def test_LK_01_the_dpc_locks_of_two_dpcs_are_two(rig: Rig) -> None:
    port = rig.scripted.port
    one, two = (port.initialize_dpc(lambda dpc, a, b: None) for _ in range(2))

    def take(*dpcs: Dpc) -> None:
        handles = [port.acquire_spin_lock(DPC_LOCK, dpc) for dpc in dpcs]
        for handle in reversed(handles):
            if handle.held:
                port.release_spin_lock(handle)

    def build(srb: Srb) -> bool:
        take(one, two)
        assert rig.found == set()
        take(one, one)
        return True

    rig.scripted.build = build
    rig.submit()
    assert rig.found == {"LK-01"}


def test_LK_01_the_first_message_is_a_message_like_the_others(make_rig: MakeRig) -> None:
    """Its lock is part of the interrupt lock, has a name, and stands in the order of locks."""
    rig = make_rig(Messenger())
    port = rig.scripted.port
    held: list[bool] = []

    def build(srb: Srb) -> bool:
        handle = port.acquire_msi_spin_lock(0)
        held.append(port.acquire_spin_lock(INTERRUPT_LOCK).held)
        port.release_msi_spin_lock(handle)
        handle = port.acquire_spin_lock(INTERRUPT_LOCK)
        held.append(port.acquire_msi_spin_lock(0).held)
        port.release_spin_lock(handle)
        handle = port.acquire_msi_spin_lock(0)
        held.append(port.acquire_msi_spin_lock(0).held)
        port.release_msi_spin_lock(handle)
        return True

    rig.scripted.build = build
    rig.submit()
    assert held == [False] * 3
    assert rig.messages("LK-01") == [
        "deadlock: InterruptLock acquired in hw_build_io, but it is held already",
        "deadlock: MSI lock 0 acquired in hw_build_io, but it is held already",
        "deadlock: MSI lock 0 acquired in hw_build_io, but it is held already",
    ]
    in_message(rig, 0, lambda: take_messages(rig, 1))
    assert len(rig.messages("LK-01")) == 3
    in_message(rig, 1, lambda: take_messages(rig, 0))
    assert rig.messages("LK-01")[3:] == [
        "MSI lock 0 acquired in hw_interrupt while MSI lock 1 is held; elsewhere it is the other way round: wrong order"
    ]
    assert rig.found == {"LK-01"}


@pytest.mark.parametrize(("granted", "locks"), [(0, 1), (1, 1), (3, 3)])
def test_LK_04_as_many_locks_as_messages(make_rig: MakeRig, granted: int, locks: int) -> None:
    """Without a message there is the line, which has the lock of message 0."""
    rig = make_rig(Messenger(), message_number_limit=granted)
    held: list[bool] = []

    def build(srb: Srb) -> bool:
        for message in (-1, locks - 1, locks):
            handle = rig.scripted.port.acquire_msi_spin_lock(message)
            held.append(handle.held)
            if handle.held:
                rig.scripted.port.release_msi_spin_lock(handle)
        return True

    rig.scripted.build = build
    rig.submit()
    assert held == [False, True, False]
    assert rig.messages("LK-04") == [
        f"message {message} has no lock: {granted} messages are granted" for message in (-1, locks)
    ]


def test_LK_06_synchronized_access_waits_for_every_message(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())
    in_message(rig, 2, lambda: rig.scripted.port.synchronize_access(lambda context: True))
    assert rig.found == {"LK-06"}


# -- performance options --------------------------------------------------------------------------------------------


def optimized(
    make_rig: MakeRig, config: PerfConfigurationData, miniport: Messenger | None = None, **options: Any
) -> tuple[Rig, int]:
    miniport = miniport or Messenger()
    statuses: list[int] = []

    def ask() -> bool:
        statuses.append(miniport.port.initialize_perf_opts(False, config))
        return True

    miniport.initialize = ask
    return make_rig(miniport, **options), statuses[0]


@pytest.mark.parametrize(("first", "last", "limit"), [(1, 8, 8), (3, 2, 8), (-1, 2, 8), (0, 0, 0)])
def test_PF_05_messages_that_are_not_there(make_rig: MakeRig, first: int, last: int, limit: int) -> None:
    config = PerfConfigurationData(
        flags=RANGES, first_redirection_message_number=first, last_redirection_message_number=last
    )
    rig, status = optimized(make_rig, config, message_number_limit=limit)
    assert status == STOR_STATUS_UNSUCCESSFUL and rig.found == {"PF-05"}
    assert rig.port.perf.flags == 0


def test_PF_05_the_targets_of_messages(make_rig: MakeRig) -> None:
    config = PerfConfigurationData(
        flags=RANGES | STOR_PERF_ADV_CONFIG_LOCALITY,
        first_redirection_message_number=1,
        last_redirection_message_number=3,
        message_targets=[None] * 3,
    )
    rig, status = optimized(make_rig, config, processors=8)
    assert status == STOR_STATUS_SUCCESS and rig.found == set()
    masks = [target.mask for target in config.message_targets if target is not None]
    assert masks == [0b01001001, 0b10010010, 0b00100100]  # each processor has one
    config.message_targets = [None] * 2
    rig, status = optimized(make_rig, config)
    assert status == STOR_STATUS_UNSUCCESSFUL and rig.found == {"PF-05"}


def test_PF_05_more_messages_than_processors(make_rig: MakeRig) -> None:
    config = PerfConfigurationData(
        flags=RANGES | STOR_PERF_ADV_CONFIG_LOCALITY,
        first_redirection_message_number=0,
        last_redirection_message_number=3,
        message_targets=[None] * 4,
    )
    _, status = optimized(make_rig, config, processors=2)
    assert status == STOR_STATUS_SUCCESS
    assert config.message_targets == [GroupAffinity(1), GroupAffinity(2), GroupAffinity(1), GroupAffinity(2)]


def test_PF_06_the_message_and_the_channel_of_a_request(make_rig: MakeRig) -> None:
    config = PerfConfigurationData(
        flags=RANGES | STOR_PERF_CONCURRENT_CHANNELS,
        concurrent_channels=2,
        first_redirection_message_number=4,
        last_redirection_message_number=6,
    )
    miniport = Messenger()
    rig, _ = optimized(make_rig, config, miniport, processors=3)
    seen: list[tuple[int, int]] = []

    def start(srb: Srb) -> bool:
        params = StartIoPerformanceParameters()
        assert miniport.port.get_start_io_perf_params(srb, params) == STOR_STATUS_SUCCESS
        seen.append((params.message_number, params.channel_number))
        miniport.complete(srb)
        return True

    miniport.start = start
    for _ in range(6):
        rig.submit()
    assert sorted({message for message, _ in seen}) == [4, 5, 6]
    assert {channel for _, channel in seen} == {0, 1}
    assert rig.found == set()


def test_PF_06_channels_of_start_ios_that_run_at_once(make_rig: MakeRig) -> None:
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=2)
    miniport = Messenger(INTERRUPT_SUPPORT_NONE)
    rig, _ = optimized(make_rig, config, miniport, interleave=1, initial_lun_queue_depth=64)
    running: list[int] = []
    most = 0

    def start(srb: Srb) -> bool:
        nonlocal most
        params = StartIoPerformanceParameters()
        miniport.port.get_start_io_perf_params(srb, params)
        assert params.channel_number not in running and params.message_number == 0
        running.append(params.channel_number)
        most = max(most, len(running))
        miniport.port.get_scatter_gather_list(srb)  # other processors get a turn
        running.remove(params.channel_number)
        return True

    miniport.start = start
    rig.port.submit_all([rig.srb() for _ in range(12)])
    miniport.port.pause(1)
    rig.port.submit_all([rig.srb() for _ in range(12)])
    miniport.port.resume()
    rig.turn()
    assert most == 2 and len(miniport.started) == 24
    assert rig.found == set()


def test_PF_06_bad_arguments(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger())
    statuses: list[int] = []

    def start(srb: Srb) -> bool:
        for params in (None, StartIoPerformanceParameters(size=8)):
            statuses.append(rig.scripted.port.get_start_io_perf_params(srb, params))
        return True

    rig.scripted.start = start
    rig.submit()
    nobodys: Any = None
    statuses.append(rig.scripted.port.get_start_io_perf_params(nobodys, StartIoPerformanceParameters()))
    assert statuses == [STOR_STATUS_INVALID_PARAMETER] * 3 and rig.found == {"PF-06"}
    assert len(rig.messages("PF-06")) == 3


def test_the_trace_says_which_message(make_rig: MakeRig) -> None:
    rig = make_rig(Messenger(), trace=True)
    rig.chip.raise_interrupt(3)
    assert rig.recorder is not None
    assert {"message": 3} in [event.detail for event in rig.recorder.events if event.kind == "isr.enter"]
