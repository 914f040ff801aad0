"""LK-01, ST-08: which locks may be taken in which callback, and at which IRQL each runs, by model.

One line for each callback: the IRQL, then what becomes of DpcLock, StartIoLock, InterruptLock and the lock of message
1 when each is taken alone: `.` fine, `d` a deadlock that is not entered, `o` taken in the wrong order, `x` taken though
it must not be, `8` taken in a half-duplex StartIo, `-` no such lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.miniport.config import (
    INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
    STOR_PERF_CONCURRENT_CHANNELS,
    PerfConfigurationData,
)
from hba.miniport.services import DPC_LOCK, INTERRUPT_LOCK, REQUEST_TIMER_CALL, START_IO_LOCK, Dpc
from hba.port.context import DIRQL, DISPATCH_LEVEL
from hba.port.library.units import STATE_CHANGE_BUS
from hba.srb import SRB_FUNCTION_RESET_BUS, Srb
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

MESSAGE_LOCK = 99  # that of message 1
Action = Callable[[], None]


class Everywhere(Scripted):
    """Does `action` in the callback `where`."""

    def __init__(self, where: str, channels: int, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.action: Action = lambda: None
        self.channels = channels

        def act(*arguments: object) -> bool:
            self.action()
            return True

        if where in ("find", "build", "start", "reset", "control", "unit_control"):
            setattr(self, where, act)
        self.initialize = lambda: self._initialize(where == "initialize", where == "passive")

    def _initialize(self, act: bool, passive: bool) -> bool:
        if self.channels > 1:
            config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=self.channels)
            self.port.initialize_perf_opts(False, config)
        if act:
            self.action()
        if passive:
            self.port.enable_passive_initialization(lambda: self.action() is None)
        return True

    def hw_msi_interrupt(self, message_id: int) -> bool:
        return self.interrupt is not None and self.interrupt()

    def hw_tracing_enabled(self, enabled: bool) -> None:
        self.action()


def reach(rig: Rig, where: str) -> None:
    """Have the port enter the callback, where it does not at the start."""
    miniport, port = rig.scripted, rig.scripted.port
    assert isinstance(miniport, Everywhere)
    action = miniport.action
    if where in ("build", "start"):
        rig.submit()
    elif where == "reset":
        rig.submit(function=SRB_FUNCTION_RESET_BUS)
    elif where == "interrupt":
        rig.in_interrupt(action)
    elif where == "dpc":
        dpc = port.initialize_dpc(lambda dpc, one, two: action())
        rig.in_interrupt(lambda: port.issue_dpc(dpc))
    elif where == "timer":
        port.notification(REQUEST_TIMER_CALL, action, 1000)
        rig.advance(1 << 30)
    elif where == "synchronized":

        def routine(dpc: Dpc, one: object, two: object) -> None:
            port.synchronize_access(lambda context: action() is None)

        dpc = port.initialize_dpc(routine)
        rig.in_interrupt(lambda: port.issue_dpc(dpc))
    elif where == "work item":
        port.queue_work_item(lambda context, worker: action(), port.initialize_worker()[1])
        rig.turn()
    elif where == "state change":
        port.state_change_detected(STATE_CHANGE_BUS, (0, 0, 0), 0, lambda *arguments: action())
        rig.turn()
    elif where == "list":
        build_list(rig, action)
        rig.turn()
    elif where == "tracing":
        rig.port.tracing_enabled(True)


def build_list(rig: Rig, action: Action) -> None:
    """StorPortBuildScatterGatherList, whose routine comes later."""
    port = rig.scripted.port

    def build(srb: Srb) -> bool:
        _, mdl = port.get_original_mdl(srb)
        room = memoryview(bytearray(64))
        assert not port.build_scatter_gather_list(
            mdl, port.get_system_address(srb)[1], 4096, lambda *arguments: action(), None, True, room, 64
        )
        return True

    rig.scripted.build = build
    rig.submit()
    rig.scripted.build = None


MODELS: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "full": ({}, 1, {}),
    "half": ({}, 1, {"synchronization_model": "half_duplex"}),
    "virtual": ({"virtual_device": True}, 1, {}),
    "v-half": ({"virtual_device": True}, 1, {"synchronization_model": "half_duplex"}),
    "channels": ({}, 2, {}),
    "messages": ({"interrupt_synchronization_mode": INTERRUPT_SYNCHRONIZE_PER_MESSAGE}, 1, {}),
}

EXPECTED = """
                full     half     virtual  v-half   channels messages
    find           0xxx-    0xxx-    0xxx-    0xxx-    0xxx-    0xxx-
    initialize     5ood-    5ood-    5xxx-    5xxx-    5ood-    5oodd
    passive        0xxx-    0xxx-    0xxx-    0xxx-    0xxx-    0xxxx
    control        0...-    0...-    0...-    0...-    0...-    0....
    unit_control   0...-    0...-    0...-    0...-    0...-    0....
    build          2...-    2...-    2...-    2...-    2...-    2....
    start          2.d.-    5odd-    2...-    5888-    2...-    2.d..
    interrupt      5ood-    5ood-    5ood-    5ood-    5ood-    5ood.
    dpc            2...-    2...-    2...-    2...-    2...-    2....
    timer          2xd.-    5odd-    2xd.-    5odd-    2xd.-    2xd..
    reset          2xd.-    2odd-    2xd.-    2odd-    2xd.-    2xd..
    synchronized   5ood-    5ood-    5ood-    5ood-    5ood-    5oodd
    work item      0...-    0...-    0...-    0...-    0...-    0....
    state change   2xd.-    2odd-    2xd.-    2odd-    2xd.-    2xd..
    list           2...-    2...-    2...-    2...-    2...-    2....
    tracing        0...-    0...-    0...-    0...-    0...-    0....
"""


def outcome(rig: Rig, lock: int) -> str:
    """Take a lock and release it; what was said of that."""
    port, irql = rig.scripted.port, rig.port.irql
    if lock == MESSAGE_LOCK:
        handle = port.acquire_msi_spin_lock(1)
    else:
        handle = port.acquire_spin_lock(lock, Dpc(lambda dpc, one, two: None) if lock == DPC_LOCK else None)
    held = handle.held
    at_least = DIRQL if lock in (INTERRUPT_LOCK, MESSAGE_LOCK) else DISPATCH_LEVEL
    assert rig.port.irql == (max(irql, at_least) if held else irql)
    if held:
        (port.release_msi_spin_lock if lock == MESSAGE_LOCK else port.release_spin_lock)(handle)
    assert rig.port.irql == irql, "what it was before the lock was taken"
    assert rig.verifier is not None
    found = [(finding.rule, finding.message) for finding in rig.verifier.findings]
    if not found:
        return "." if held else "?"
    ((rule, message),) = found
    if not held:
        return {"LK-04": "-", "LK-01": "d"}[rule]
    return "8" if rule == "ST-08" else "o" if "wrong order" in message else "x"


def line(make_rig: MakeRig, where: str, model: str) -> str:
    members, channels, options = MODELS[model]
    told: list[str] = []
    for lock in (DPC_LOCK, START_IO_LOCK, INTERRUPT_LOCK, MESSAGE_LOCK):
        miniport = Everywhere(where, channels, **members)
        rig = make_rig(miniport, start=False, **options)

        def action(rig: Rig = rig, lock: int = lock) -> None:
            said = outcome(rig, lock)
            told.extend([said] if told else [str(rig.port.irql), said])

        miniport.action = action
        rig.port.start()
        reach(rig, where)
    return "".join(told)


@pytest.mark.parametrize("make_rig", [False], indirect=True, ids=["untraced"])
@pytest.mark.parametrize("row", EXPECTED.splitlines()[2:], ids=lambda row: row[:18].strip())
def test_which_locks_may_be_taken(make_rig: MakeRig, row: str) -> None:
    where, expected = row[:18].strip(), row[18:].split()
    assert [line(make_rig, where, model) for model in MODELS] == expected
