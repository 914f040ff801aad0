"""Stop, start, sleep, resume, removal: both models, on the way the product goes (`hba.port.pnp`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.dma import DmaBuffer
from hba.miniport.base import (
    SCSI_ADAPTER_POWER,
    SCSI_ADAPTER_SURPRISE_REMOVAL,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_SURPRISE_REMOVAL,
)
from hba.miniport.services import BUS_CHANGE_DETECTED
from hba.port.pnp import PnpStep
from hba.port.watcher import Watcher
from hba.srb import (
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_QUIESCE_DEVICE,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_FUNCTION_WMI,
    SRB_POWER_FLAGS_ADAPTER_REQUEST,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NO_HBA,
    SRB_STATUS_SUCCESS,
    STOR_POWER_ACTION_NONE,
    STOR_POWER_ACTION_SLEEP,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    STOR_REMOVE_DEVICE,
    STOR_SURPRISE_REMOVAL,
    Srb,
)
from tests.port.both import BASIC, Pnped

STOP, BOOT = ("ScsiStopAdapter", "success"), ("ScsiSetBootConfig", "success")
RUNNING, RESTART = ("ScsiSetRunningConfig", "success"), ("ScsiRestartAdapter", "success")
AGAIN = ("hw_find_adapter, hw_initialize", "success")
Make = Callable[..., Pnped]


def used(rig: Pnped) -> None:
    """The unit has answered something."""
    rig.command()
    rig.finish()
    rig.done.clear()


def test_RS_06_stop_waits_for_what_is_outstanding_and_holds_what_comes(make: Make) -> None:
    rig = make()
    first = rig.command()
    rig.begin("stop")
    assert rig.steps is None and rig.port.pnp.state == "stopping"
    second = rig.command()
    assert rig.done == [] and SCSI_STOP_ADAPTER not in dict(rig.controlled.outstanding)
    rig.finish(first)
    rig.loop.run_once(0)
    assert rig.steps == [("wait for requests", "1 completed"), STOP, BOOT]
    assert rig.controlled.outstanding == [(SCSI_STOP_ADAPTER, 0), (SCSI_SET_BOOT_CONFIG, 0)]
    assert rig.done == [first] and rig.port.pnp.state == "stopped"
    assert rig.do("start") == [AGAIN]
    rig.loop.run_once(0)
    rig.finish(second)
    assert rig.done == [first, second] and second.srb_status == SRB_STATUS_SUCCESS


def test_RS_06_flush_is_complete_before_the_stop(make: Make) -> None:
    rig = make(caches_data=True)
    used(rig)
    rig.controlled.later.append(SRB_FUNCTION_FLUSH)
    rig.begin("stop")
    assert rig.steps is None and rig.seen()[-1] == SRB_FUNCTION_FLUSH
    rig.finish()
    rig.loop.run_once(0)
    assert rig.steps == [("FLUSH", "SUCCESS"), STOP, BOOT]
    assert rig.controlled.outstanding[0] == (SCSI_STOP_ADAPTER, 0)


def test_RS_06_shutdown_is_sent_to_who_caches_data(make: Make) -> None:
    rig = make(caches_data=True)
    used(rig)
    assert rig.do("shut_down") == [("FLUSH", "SUCCESS"), ("SHUTDOWN", "SUCCESS"), STOP, BOOT]
    assert rig.seen()[-2:] == [SRB_FUNCTION_FLUSH, SRB_FUNCTION_SHUTDOWN]
    plain = make()
    used(plain)
    assert plain.do("shut_down") == [STOP, BOOT]


def test_RS_06_an_end_without_ceremony_still_flushes_before_the_stop(make: Make) -> None:
    rig = make(caches_data=True)
    used(rig)
    rig.controlled.later.append(SRB_FUNCTION_FLUSH)  # the miniport never answers it
    rig.port.stop()
    assert rig.seen()[-1] == SRB_FUNCTION_FLUSH
    assert rig.controlled.outstanding == [(SCSI_STOP_ADAPTER, 0), (SCSI_SET_BOOT_CONFIG, 0)]


def test_RS_06_RS_07_sleep_and_resume(make: Make, model: str) -> None:
    rig = make()
    used(rig)
    power = [("POWER D3", "SUCCESS")] if model == "storport" else []
    assert rig.do("sleep", STOR_POWER_ACTION_SLEEP) == [*power, STOP, BOOT]
    assert rig.port.pnp.state == "asleep"
    srb = rig.command()
    power = [("POWER D0", "SUCCESS")] if model == "storport" else []
    assert rig.do("resume") == [RUNNING, RESTART, *power]
    rig.loop.run_once(0)
    rig.finish()
    assert rig.done == [srb]
    assert rig.miniport.log.count("initialize") == 1
    assert SRB_FUNCTION_POWER in rig.seen() or model == "scsiport"


def test_RS_06_adapter_power_instead_of_stop_and_power_requests(make: Make, model: str) -> None:
    rig = make((*BASIC, SCSI_ADAPTER_POWER))
    if model == "scsiport":  # which knows the first five types alone
        assert not rig.port.declares(SCSI_ADAPTER_POWER)
        return
    used(rig)
    assert rig.do("sleep", STOR_POWER_ACTION_SLEEP) == [("ScsiAdapterPower", "success")]
    assert rig.do("resume") == [("ScsiAdapterPower", "success")]
    down, up = rig.controlled.powers
    assert (down.power_state, down.power_action) == (STOR_POWER_DEVICE_D3, STOR_POWER_ACTION_SLEEP)
    assert up.power_state == STOR_POWER_DEVICE_D0
    assert SRB_FUNCTION_POWER not in rig.seen()
    rig.submit(SRB_FUNCTION_POWER, srb_power_flags=1, device_power_state=STOR_POWER_DEVICE_D3)
    assert len(rig.controlled.powers) == 3 and SRB_FUNCTION_POWER not in rig.seen()


def test_RS_06_without_restart_the_adapter_is_found_and_initialised_anew(make: Make, model: str) -> None:
    rig = make((SCSI_STOP_ADAPTER,))
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    power = [("POWER D0", "SUCCESS")] if model == "storport" else []
    missing = [("ScsiSetRunningConfig", "not declared"), ("ScsiRestartAdapter", "not declared")]
    assert rig.do("resume") == [*missing, AGAIN, *power]
    assert rig.miniport.log.count("find") == rig.miniport.log.count("initialize") == 2


def test_RS_06_RS_07_a_stopped_adapter_must_be_quiet(make: Make) -> None:
    rig = make()
    rig.do("stop")
    rig.chip.raise_interrupt()
    rig.loop.run_once(0)
    assert rig.rules == ["RS-06"] and "isr" not in rig.miniport.log


def test_RS_06_a_reset_by_the_guest_does_not_wake_a_stopped_miniport(make: Make) -> None:
    rig = make()
    used(rig)
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    waiting = rig.command()
    before = rig.miniport.log[:]
    rig.port.reset_adapter()
    assert waiting.srb_status == SRB_STATUS_BUS_RESET
    assert [entry for entry in rig.miniport.log[len(before) :] if entry in ("initialize", "start")] == []
    later = rig.command()
    assert later not in rig.done
    rig.do("resume")
    rig.loop.run_once(0)
    rig.finish()
    assert later in rig.done


def test_CF_11_MB_17_the_device_extension_over_stop_and_start(make: Make, model: str) -> None:
    rig = make()
    rig.miniport.extension.mine = 5
    rig.do("stop")
    rig.do("start")
    assert getattr(rig.miniport.extension, "mine", None) == (5 if model == "storport" else None)


def test_an_adapter_that_does_not_come_back_refuses_what_waits(make: Make) -> None:
    rig = make()
    used(rig)
    rig.do("stop")
    srb = rig.command()
    rig.miniport.hw_initialize = lambda: False  # type: ignore[method-assign]
    steps = rig.do("start")
    assert steps[0][1].startswith("failed: ")
    rig.loop.run_once(0)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_NO_HBA


def test_surprise_removal_of_the_adapter(make: Make, model: str) -> None:
    rig = make((*BASIC, SCSI_ADAPTER_SURPRISE_REMOVAL))
    first = rig.command()
    rig.submit(SRB_FUNCTION_LOCK_QUEUE)
    second = rig.command()
    rig.done.clear()
    steps = rig.do("surprise_removal")
    told = [("ScsiAdapterSurpriseRemoval", "success")] if model == "storport" else []
    assert steps == [*told, STOP, BOOT]
    assert {first.srb_status, second.srb_status} == {SRB_STATUS_NO_HBA} and len(rig.done) == 2
    assert rig.controlled.outstanding[-2] == (SCSI_STOP_ADAPTER, 0)
    assert rig.command().srb_status == SRB_STATUS_NO_HBA
    assert rig.port.pnp.state == "removed"
    rig.do("start")
    rig.command()
    rig.finish()
    assert rig.done[-1].srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("surprise", [False, True])
def test_RS_08_a_unit_is_taken_out(make: Make, model: str, surprise: bool) -> None:
    rig = make(units=(SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL))
    used(rig)
    active = rig.command()
    rig.submit(SRB_FUNCTION_LOCK_QUEUE)
    waiting = rig.command()
    rig.done.clear()
    rig.port.remove_unit(0, 0, 0, surprise, rig.told)
    rig.loop.run_once(0)
    assert rig.done == [waiting] and waiting.srb_status == SRB_STATUS_NO_DEVICE
    assert rig.steps is None and rig.port.knows(0, 0, 0)  # the miniport still has one
    rig.finish(active)
    rig.loop.run_once(0)
    assert rig.steps is not None and not rig.port.knows(0, 0, 0)
    first = [(SCSI_UNIT_SURPRISE_REMOVAL, (0, 0, 0))] if surprise else []
    assert rig.controlled.removed == ([*first, (SCSI_UNIT_REMOVE, (0, 0, 0))] if model == "storport" else [])
    assert SRB_FUNCTION_PNP not in rig.seen()


def test_RS_08_a_pnp_request_for_who_declares_no_removal(make: Make, model: str) -> None:
    rig = make()
    used(rig)
    rig.port.remove_unit(0, 0, 0, True, rig.told)
    rig.loop.run_once(0)
    told = [("PNP StorSurpriseRemoval", "SUCCESS"), ("PNP StorRemoveDevice", "SUCCESS")]
    assert rig.steps == (told if model == "storport" else [])
    rig.port.remove_unit(0, 5, 0, True, rig.told)
    assert rig.steps == []  # a unit nobody knows


def test_quiesce_waits_for_the_unit(make: Make) -> None:
    rig = make()
    read = rig.command()
    quiet = rig.submit(SRB_FUNCTION_QUIESCE_DEVICE)
    assert rig.done == []
    rig.finish(read)
    rig.loop.run_once(0)
    assert rig.done == [read, quiet]


def test_wmi_goes_to_who_provides_it(make: Make, model: str) -> None:
    rig = make()
    srb = rig.submit(SRB_FUNCTION_WMI)
    expected = SRB_STATUS_SUCCESS if model == "storport" else SRB_STATUS_INVALID_REQUEST
    assert rig.done == [srb] and srb.srb_status == expected
    provider = make(wmi_data_provider=True)
    srb = provider.submit(SRB_FUNCTION_WMI)
    assert provider.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("function", [SRB_FUNCTION_IO_CONTROL, SRB_FUNCTION_WMI])
def test_CF_03_MB_09_its_data_buffer_can_be_touched_whatever_map_buffers_says(make: Make, function: int) -> None:
    rig = make(wmi_data_provider=True, map_buffers=0)
    rig.miniport.next = rig.miniport.next and "next"  # these are untagged (SP-12)
    seen: list[bytes] = []
    rig.miniport.on_start = lambda srb: seen.append(bytes(srb.data_buffer))
    data = DmaBuffer.of(bytearray(b"abcd"))
    srb = rig.submit(function, mdl=data, data_transfer_length=4, srb_flags=SRB_FLAGS_DATA_IN)
    assert seen == [b"abcd"] and rig.done == [srb] and rig.rules == []


def test_the_miniport_is_told_of_tracing(make: Make, model: str) -> None:
    rig = make()
    assert rig.port.tracing_enabled(True) is (model == "storport")
    assert rig.controlled.traced == ([True] if model == "storport" else [])


def test_who_is_above_hears_of_a_bus_change(make: Make) -> None:
    rig = make()
    heard: list[int] = []
    rig.port.on_bus_change = heard.append
    rig.hardware(lambda: rig.miniport.port.notification(BUS_CHANGE_DETECTED, 0))
    rig.loop.run_once(0)
    assert heard == [0]


def test_Q_12_lock_power_unlock(make: Make) -> None:
    rig = make()
    used(rig)
    rig.submit(SRB_FUNCTION_LOCK_QUEUE)
    srb = rig.submit(
        SRB_FUNCTION_POWER, device_power_state=STOR_POWER_DEVICE_D3, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE
    )
    assert srb.srb_status == SRB_STATUS_SUCCESS


def test_Q_11_the_lock_of_another_driver(make: Make) -> None:
    rig = make()
    rig.submit(SRB_FUNCTION_LOCK_QUEUE, original_request="mine")
    past = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_BYPASS_LOCKED_QUEUE
    rig.command(srb_flags=past, original_request="mine")
    assert rig.rules == []
    rig.command(srb_flags=past, original_request="another")
    assert rig.rules == ["Q-11"]
    unlock = rig.submit(SRB_FUNCTION_UNLOCK_QUEUE, srb_flags=SRB_FLAGS_BYPASS_LOCKED_QUEUE, original_request="another")
    assert rig.rules == ["Q-11", "Q-11"] and unlock.srb_status == SRB_STATUS_SUCCESS


class Notes(Watcher):
    def __init__(self) -> None:
        self.log: list[tuple[str, object]] = []

    def note(self, request: object, what: str, detail: object) -> None:
        if what in ("pnp", "remove_unit"):
            self.log.append((what, detail))


def test_what_was_asked_for_is_noted(make: Make) -> None:
    rig, notes = make(), Notes()
    rig.port.watchers += (notes,)
    for lun in (0, 1):
        rig.command(lun=lun)
        rig.finish()
    rig.port.remove_unit(0, 0, 0, False, rig.told)
    rig.port.remove_unit(0, 0, 1, True, rig.told)
    for what in ("stop", "start", "shut_down", "start", "surprise_removal"):
        rig.do(what)
    asked = ("stop", "start", "shutdown", "start", "surprise removal")
    assert notes.log == [
        ("remove_unit", "0:0:0"),
        ("remove_unit", "0:0:1 (surprise)"),
        *[("pnp", what) for what in asked],
    ]


def test_RS_06_RS_07_when_the_interrupt_is_connected(make: Make) -> None:
    """The adapter raises its interrupt in each of these callbacks: it must not once it is stopped, and may again when
    it is started again."""
    rig = make()
    refused: dict[int, bool] = {}
    control = rig.controlled.hw_adapter_control

    def raising(control_type: int, parameters: Any) -> int:
        before = len(rig.rules)
        rig.chip.raise_interrupt()
        rig.chip.acknowledge()
        refused[control_type] = rig.rules[before:] == ["RS-06"]
        return control(control_type, parameters)

    rig.controlled.hw_adapter_control = raising  # type: ignore[method-assign]
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    rig.do("resume")
    assert refused == {
        SCSI_STOP_ADAPTER: False,
        SCSI_SET_BOOT_CONFIG: True,
        SCSI_SET_RUNNING_CONFIG: True,
        SCSI_RESTART_ADAPTER: False,
    }
    assert rig.port.pnp.state == "running"


@pytest.mark.parametrize(
    ("sequence", "state", "quiet"),
    [
        (["stop"], "stopped", True),
        (["stop", "start"], "running", False),
        (["shut_down"], "stopped", True),
        (["sleep"], "asleep", True),
        (["sleep", "resume"], "running", False),
        (["sleep", "start"], "running", False),
        (["surprise_removal"], "removed", True),
        (["stop", "surprise_removal"], "removed", True),
        (["surprise_removal", "start"], "running", False),
    ],
)
@pytest.mark.parametrize("power", [False, True])
def test_what_state_it_is_in_then(make: Make, sequence: list[str], state: str, quiet: bool, power: bool) -> None:
    rig = make((*BASIC, SCSI_ADAPTER_POWER) if power else BASIC)
    for what in sequence:
        rig.do(what, *[STOR_POWER_ACTION_SLEEP] * (what == "sleep"))
    pnp = rig.port.pnp
    assert pnp.state == state and pnp.busy == ""
    rig.chip.raise_interrupt()
    assert rig.rules == (["RS-06"] if quiet and state != "removed" else [])  # one that is gone has no line
    assert ("isr" in rig.miniport.log) is not quiet
    srb = rig.command()
    assert rig.started(srb) is not quiet


def test_a_stop_that_fails_in_the_middle_may_be_asked_for_what_it_is_doing(make: Make) -> None:
    rig = make()
    rig.command()
    rig.begin("stop")
    assert rig.port.pnp.busy == "stop" and rig.port.pnp.state == "stopping"


def test_what_comes_while_the_adapter_is_taken_out_has_none_either(make: Make) -> None:
    rig = make()
    first = rig.command()
    again: list[Srb] = []
    first.completion = lambda done: again.append(rig.command())
    rig.do("surprise_removal")
    rig.loop.run_once(0)
    assert rig.done == again and again[0].srb_status == SRB_STATUS_NO_HBA
    assert not rig.started(again[0])


@pytest.mark.parametrize("declared", [False, True])
def test_RS_08_each_step_names_its_unit(make: Make, model: str, declared: bool) -> None:
    rig = make(units=(SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL) if declared else ())
    rig.command(lun=1)
    rig.finish()
    told: list[PnpStep] = []
    rig.port.remove_unit(0, 0, 1, True, told.extend)
    if model == "scsiport":
        assert told == []
    elif declared:
        assert told == [
            PnpStep("ScsiUnitSurpriseRemoval", "success", "0:0:1"),
            PnpStep("ScsiUnitRemove", "success", "0:0:1"),
        ]
    else:
        assert told == [
            PnpStep("PNP StorSurpriseRemoval", "SUCCESS", "0:0:1"),
            PnpStep("PNP StorRemoveDevice", "SUCCESS", "0:0:1"),
        ]
        asked = [rig.real(srb) for srb in rig.miniport.started[1:]]
        assert [(srb.function, srb.lun) for srb in asked] == [(SRB_FUNCTION_PNP, 1)] * 2
        assert [srb.pnp_action for srb in asked] == [STOR_SURPRISE_REMOVAL, STOR_REMOVE_DEVICE]


def test_RS_06_what_a_power_request_says(make: Make, model: str) -> None:
    rig = make()
    used(rig)
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    rig.do("resume")
    powers = [rig.real(srb) for srb in rig.miniport.started if rig.real(srb).function == SRB_FUNCTION_POWER]
    assert [(srb.srb_power_flags, srb.device_power_state, srb.power_action) for srb in powers] == (
        [
            (SRB_POWER_FLAGS_ADAPTER_REQUEST, STOR_POWER_DEVICE_D3, STOR_POWER_ACTION_SLEEP),
            (SRB_POWER_FLAGS_ADAPTER_REQUEST, STOR_POWER_DEVICE_D0, STOR_POWER_ACTION_NONE),
        ]
        if model == "storport"
        else []
    )


@pytest.mark.parametrize("fails", [SCSI_SET_RUNNING_CONFIG, SCSI_RESTART_ADAPTER])
def test_RS_07_only_a_restart_that_fails_is_made_up_for(make: Make, model: str, fails: int) -> None:
    """The adapter is found and initialised anew; that its configuration could not be set is only said."""
    rig = make()
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    rig.controlled.hw_adapter_control = lambda control_type, _: int(control_type == fails)  # type: ignore[method-assign]
    power = [("POWER D0", "SUCCESS")] if model == "storport" else []
    if fails == SCSI_RESTART_ADAPTER:
        assert rig.do("resume") == [RUNNING, ("ScsiRestartAdapter", "failed"), AGAIN, *power]
    else:
        assert rig.do("resume") == [("ScsiSetRunningConfig", "failed"), RESTART, *power]
    assert rig.port.pnp.state == "running"


def test_RS_06_an_adapter_power_that_fails_is_not_made_up_for(make: Make, model: str) -> None:
    if model == "scsiport":
        return
    rig = make((*BASIC, SCSI_ADAPTER_POWER))
    rig.controlled.hw_adapter_control = lambda control_type, _: 1  # type: ignore[method-assign]
    assert rig.do("sleep", STOR_POWER_ACTION_SLEEP) == [("ScsiAdapterPower", "failed")]


def test_an_adapter_that_is_not_found_again_stays_asleep(make: Make) -> None:
    rig = make((SCSI_STOP_ADAPTER,))
    rig.do("sleep", STOR_POWER_ACTION_SLEEP)
    waiting = rig.command()
    rig.miniport.hw_find_adapter = lambda config: 0  # type: ignore[method-assign]
    missing = [("ScsiSetRunningConfig", "not declared"), ("ScsiRestartAdapter", "not declared")]
    steps = rig.do("resume")
    assert steps[:2] == missing and len(steps) == 3
    assert steps[2][1].startswith("failed: the miniport Controlled does not accept its adapter")
    assert rig.port.pnp.state == "asleep" and waiting.srb_status == SRB_STATUS_NO_HBA
    assert rig.command().srb_status == SRB_STATUS_NO_HBA
