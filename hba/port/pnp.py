"""What the PnP and power managers have a port do with its adapter and its units: stop, start, sleep, removal.

Each takes several steps, some of which wait (`hba.port.script`). New requests wait in their queues meanwhile, whoever
sends them, and are started afterwards; the miniport is told in the order the documents give:

    stop     nothing outstanding, FLUSH (with CachesData), ScsiStopAdapter, ScsiSetBootConfig             (RS-06)
    sleep    the same, with a POWER request before ScsiStopAdapter under Storport; or ScsiAdapterPower
             alone, for a miniport that declares it                                                      (RS-06)
    resume   ScsiSetRunningConfig, ScsiRestartAdapter; or HwFindAdapter and HwInitialize                  (RS-07)
    start    after a stop: HwFindAdapter and HwInitialize, for the resources may be others        (CF-11, MB-17)
    removal  what waits ends with NO_DEVICE; ScsiUnitRemove, ScsiUnitSurpriseRemoval, or a PNP request    (RS-08)

Sources: SCSI_ADAPTER_CONTROL_TYPE, SCSI_UNIT_CONTROL_TYPE, HW_ADAPTER_CONTROL (storport.h); HwScsiAdapterControl;
SCSI_POWER_REQUEST_BLOCK, SCSI_PNP_REQUEST_BLOCK (srb.h).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hba.errors import ConfigError
from hba.miniport.base import (
    ADAPTER_CONTROL_NAMES,
    SCSI_ADAPTER_POWER,
    SCSI_ADAPTER_SURPRISE_REMOVAL,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    AdapterControlPower,
)
from hba.miniport.config import PortConfigurationInformation
from hba.port.request import PortUnit, Request
from hba.port.script import Step, run
from hba.srb import (
    FUNCTION_NAMES,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_SHUTDOWN,
    SRB_POWER_FLAGS_ADAPTER_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_NO_HBA,
    STATUS_NAMES,
    STOR_POWER_ACTION_NONE,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    STOR_REMOVE_DEVICE,
    STOR_SURPRISE_REMOVAL,
    Srb,
)

NOT_DECLARED: Final = "not declared"


@dataclass(frozen=True)
class PnpStep:
    """One thing the port did. `what`: the callback or SRB; `unit`: whose it is, "" for the adapter's."""

    what: str
    outcome: str
    unit: str = ""


Told = Callable[[list[PnpStep]], None]


class Managed(Protocol):
    """What a port lets its PnP and power management do (`hba.port.base`)."""

    info: PortConfigurationInformation
    started: bool
    sends_power: bool

    @property
    def outstanding(self) -> int: ...
    def note(self, request: Request | None, what: str, detail: object = None) -> None: ...
    def when(self, condition: Callable[[], bool], then: Callable[[], None]) -> None: ...
    def hold_all(self, hold: bool) -> None: ...
    def pass_down(self, srb: Srb) -> None: ...
    def end_waiting(self, srb_status: int, unit: PortUnit | None = None) -> None: ...
    def give_up_outstanding(self, srb_status: int) -> None: ...
    def declares(self, control_type: int) -> bool: ...
    def adapter_control(self, control_type: int, parameters: object = None) -> bool: ...
    def begin_again(self) -> None: ...
    def known_units(self) -> Sequence[PortUnit]: ...
    def tell_unit_removed(self, unit: PortUnit, surprise: bool) -> tuple[str, str]: ...
    def forget_unit(self, unit: PortUnit) -> None: ...
    def forget_units(self) -> None: ...


class Pnp:
    """The life of one adapter after its start.

    `holding`   requests wait in their queues
    `stopped`   the miniport was told to stop, and may neither interrupt nor move data
    `asleep`    it was for power: only `resume` wakes it
    `removed`   it was taken out: only `start` brings it back
    `busy`      what is being done; nothing else may be begun meanwhile
    """

    def __init__(self, port: Managed) -> None:
        self._port = port
        self.holding = False
        self.stopped = False
        self.asleep = False
        self.removed = False
        self.busy = ""
        self._steps: list[PnpStep] = []

    @property
    def state(self) -> str:
        """One word for people."""
        if self.removed:
            return "removed"
        if self.asleep:
            return "asleep"
        if self.stopped:
            return "stopped"
        return "stopping" if self.holding else "running"

    # -- what can be asked for: `told` gets the steps ----------------------------------------------------------------

    def stop(self, told: Told) -> None:
        """IRP_MN_STOP_DEVICE, for resources to be dealt out anew."""
        self._begin("stop", self._stop(), told)

    def start(self, told: Told) -> None:
        """IRP_MN_START_DEVICE of an adapter that was stopped, or taken out."""
        self._begin("start", self._start(), told)

    def sleep(self, action: int, told: Told) -> None:
        """IRP_MN_SET_POWER to D3; `action`: STOR_POWER_ACTION_*."""
        self._begin("sleep", self._sleep(action), told)

    def resume(self, told: Told) -> None:
        """IRP_MN_SET_POWER to D0."""
        self._begin("resume", self._resume(), told)

    def shut_down(self, told: Told) -> None:
        """The system is shut down: SHUTDOWN for each unit, and the adapter is stopped."""
        self._begin("shutdown", self._shut_down(), told)

    def surprise_removal(self, told: Told) -> None:
        """IRP_MN_SURPRISE_REMOVAL of the adapter, then IRP_MN_REMOVE_DEVICE."""
        self._begin("surprise removal", self._surprise_removal(), told)

    def remove_unit(self, unit: PortUnit, surprise: bool, told: Told) -> None:
        """IRP_MN_REMOVE_DEVICE of a unit, or IRP_MN_SURPRISE_REMOVAL before it."""
        steps: list[PnpStep] = []
        run(self._remove_unit(unit, surprise, steps), lambda _: told(steps))

    # -- how it goes on ----------------------------------------------------------------------------------------------

    def _begin(self, what: str, steps: Generator[Step, Any, None], told: Told) -> None:
        assert not self.busy
        self.busy = what
        mine = self._steps = []
        self._port.note(None, "pnp", what)

        def ended(_: object) -> None:
            self.busy = ""
            told(mine)

        run(steps, ended)

    def forget(self) -> None:
        """The port itself has ended; its next life begins with nothing held."""
        if self.holding:
            self._go_on()
        self.stopped = self.asleep = self.removed = False

    def _add(self, what: str, outcome: str, unit: str = "") -> None:
        self._steps.append(PnpStep(what, outcome, unit))

    # -- the sequences -----------------------------------------------------------------------------------------------

    def _stop(self) -> Generator[Step, Any, None]:
        yield from self._quiet()
        yield from self._flush()
        self._stop_adapter()

    def _shut_down(self) -> Generator[Step, Any, None]:
        yield from self._quiet()
        yield from self._flush()
        if self._port.info.caches_data:
            yield from self._each(SRB_FUNCTION_SHUTDOWN)
        self._stop_adapter()

    def _sleep(self, action: int) -> Generator[Step, Any, None]:
        yield from self._quiet()
        yield from self._flush()
        power = AdapterControlPower(action, STOR_POWER_DEVICE_D3)
        if not self._control(SCSI_ADAPTER_POWER, power, quietly=True):
            if self._port.sends_power:
                yield from self._power(STOR_POWER_DEVICE_D3, action)
            self._stop_adapter()
        self.stopped = self.asleep = True

    def _resume(self) -> Generator[Step, Any, None]:
        power = AdapterControlPower(STOR_POWER_ACTION_NONE, STOR_POWER_DEVICE_D0)
        self.stopped = False
        if not self._control(SCSI_ADAPTER_POWER, power, quietly=True):
            self.stopped = True  # RS-07: its interrupt is not connected yet
            self._control(SCSI_SET_RUNNING_CONFIG)
            self.stopped = False
            if not self._control(SCSI_RESTART_ADAPTER) and not self._begin_again():
                return
            if self._port.sends_power:
                yield from self._power(STOR_POWER_DEVICE_D0, STOR_POWER_ACTION_NONE)
        self.asleep = False
        self._go_on()

    def _start(self) -> Generator[Step, Any, None]:
        yield self._idle
        if self.removed:  # what comes now is another one, with other units
            self._port.forget_units()
        self.stopped = self.asleep = self.removed = False
        if self._begin_again():
            self._go_on()

    def _surprise_removal(self) -> Generator[Step, Any, None]:
        port = self._port
        self._hold()
        self._control(SCSI_ADAPTER_SURPRISE_REMOVAL, quietly=True)
        # There is no hardware any more that could end what the miniport has.
        port.give_up_outstanding(SRB_STATUS_NO_HBA)
        yield self._idle
        if not self.stopped:
            self._stop_adapter()
        self.stopped = self.removed = True
        port.started = False
        port.end_waiting(SRB_STATUS_NO_HBA)  # what waited before, and what came meanwhile

    def _remove_unit(self, unit: PortUnit, surprise: bool, steps: list[PnpStep]) -> Generator[Step, Any, None]:
        port = self._port
        port.note(None, "remove_unit", f"{unit.name}{' (surprise)' if surprise else ''}")
        port.end_waiting(SRB_STATUS_NO_DEVICE, unit)
        if surprise:
            yield from self._tell_removal(unit, True, steps)
        yield lambda ended: port.when(lambda: not unit.active, lambda: ended(None))
        yield from self._tell_removal(unit, False, steps)
        port.forget_unit(unit)

    def _tell_removal(self, unit: PortUnit, surprise: bool, steps: list[PnpStep]) -> Generator[Step, Any, None]:
        """RS-08: by the unit control type if it is declared; else by a PNP request, as before there were any."""
        port = self._port
        name, outcome = port.tell_unit_removed(unit, surprise)
        if name:
            steps.append(PnpStep(name, outcome, unit.name))
        elif port.sends_power:
            srb = Srb(SRB_FUNCTION_PNP, unit.path, unit.target, unit.lun)
            srb.pnp_action = STOR_SURPRISE_REMOVAL if surprise else STOR_REMOVE_DEVICE
            yield lambda ended: self._send(srb, ended)
            what = f"PNP {'StorSurpriseRemoval' if surprise else 'StorRemoveDevice'}"
            steps.append(PnpStep(what, _outcome(srb), unit.name))

    # -- their parts -------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        self.holding = True
        self._port.hold_all(True)

    def _go_on(self) -> None:
        self.holding = False
        self._port.hold_all(False)

    def _quiet(self) -> Generator[Step, Any, None]:
        """RS-06: there are no uncompleted requests."""
        port = self._port
        self._hold()
        waiting = port.outstanding
        yield self._idle
        if waiting:
            self._add("wait for requests", f"{waiting} completed")

    def _idle(self, ended: Callable[[Any], None]) -> None:
        port = self._port
        port.when(lambda: not port.outstanding, lambda: ended(None))

    def _flush(self) -> Generator[Step, Any, None]:
        """RS-06, Q-16: FLUSH goes before the stop, and is complete by then."""
        if self._port.info.caches_data:
            yield from self._each(SRB_FUNCTION_FLUSH)

    def _each(self, function: int) -> Generator[Step, Any, None]:
        for unit in self._port.known_units():
            srb = Srb(function, unit.path, unit.target, unit.lun)
            yield from self._sent(srb, FUNCTION_NAMES[function], unit.name)

    def _power(self, state: int, action: int) -> Generator[Step, Any, None]:
        srb = Srb(SRB_FUNCTION_POWER)
        srb.srb_power_flags = SRB_POWER_FLAGS_ADAPTER_REQUEST
        srb.device_power_state = state
        srb.power_action = action
        yield from self._sent(srb, f"POWER {'D0' if state == STOR_POWER_DEVICE_D0 else 'D3'}", "")

    def _sent(self, srb: Srb, what: str, unit: str) -> Generator[Step, Any, None]:
        yield lambda ended: self._send(srb, ended)
        self._add(what, _outcome(srb), unit)

    def _send(self, srb: Srb, ended: Callable[[Any], None]) -> None:
        srb.completion = ended
        self._port.pass_down(srb)

    def _stop_adapter(self) -> None:
        self._control(SCSI_STOP_ADAPTER)
        self.stopped = True
        self._control(SCSI_SET_BOOT_CONFIG)

    def _control(self, control_type: int, parameters: object = None, quietly: bool = False) -> bool:
        """hw_adapter_control, for a declared type (RS-05). `quietly`: one that is not declared is no step."""
        port = self._port
        declared = port.declares(control_type)
        worked = declared and port.adapter_control(control_type, parameters)
        if declared or not quietly:
            self._add(
                ADAPTER_CONTROL_NAMES[control_type], ("success" if worked else "failed") if declared else NOT_DECLARED
            )
        return worked if control_type == SCSI_RESTART_ADAPTER else declared

    def _begin_again(self) -> bool:
        """HwFindAdapter and HwInitialize, with the queues as they are."""
        port = self._port
        try:
            port.begin_again()
        except ConfigError as error:
            self._add("hw_find_adapter, hw_initialize", f"failed: {error}")
            port.started = False
            port.end_waiting(SRB_STATUS_NO_HBA)
            return False
        self._add("hw_find_adapter, hw_initialize", "success")
        return True


def _outcome(srb: Srb) -> str:
    return STATUS_NAMES.get(srb.srb_status & SRB_STATUS_MASK, f"{srb.srb_status:#04x}")
