"""Requests from above the port, as a Windows machine sends them; and what it does to an adapter as a whole.

They go straight to the port, past the guest's adapter and the class driver. What a method is given is checked here and
bounded; the requests themselves are made in `hba.classdriver.srbs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hba.classdriver import srbs
from hba.classdriver.enumeration import FoundUnit
from hba.classdriver.machine import Busy, Machine, status_text
from hba.classdriver.srbs import IO_CONTROL_HEADER, Unit
from hba.clock import S
from hba.control.method import Call, Later, Method, Refused
from hba.control.results.inject import Injected, Sequence, Tracing, UnitsFound
from hba.miniport.bounce import bounce_buffer
from hba.miniport.config import DUMP_MODE_CRASH, DUMP_MODE_HIBER, DUMP_MODE_MARK_MEMORY, DUMP_MODE_RESUME
from hba.port.pnp import PnpStep
from hba.port.request import STATE_NAMES
from hba.scsi.address import unit_name
from hba.scsi.names import condition_name
from hba.scsi.sense import condition_of
from hba.srb import (
    FLAG_NAMES,
    FUNCTION_NAMES,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_IO_CONTROL,
    SRB_HEAD_OF_QUEUE_TAG_REQUEST,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_SIMPLE_TAG_REQUEST,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_QUEUE_FROZEN,
    STOR_FILTER_RESOURCE_REQUIREMENTS,
    STOR_POWER_ACTION_HIBERNATE,
    STOR_POWER_ACTION_NONE,
    STOR_POWER_ACTION_SHUTDOWN,
    STOR_POWER_ACTION_SLEEP,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D1,
    STOR_POWER_DEVICE_D2,
    STOR_POWER_DEVICE_D3,
    STOR_QUERY_CAPABILITIES,
    STOR_QUERY_RESOURCE_REQUIREMENTS,
    STOR_REMOVE_DEVICE,
    STOR_START_DEVICE,
    STOR_STOP_DEVICE,
    STOR_SURPRISE_REMOVAL,
    Srb,
)
from hba.terminal.suggest import did_you_mean

MOST_DATA = 65_536  # bytes a request may carry
MOST_PENDING = 64  # requests and sequences of ours that have not ended

Number = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Wait = Annotated[float, Meta(ge=0, le=600, description="seconds")]
TimeOut = Annotated[int, Meta(ge=1, le=3600, description="seconds")]
Hex = Annotated[str, Meta(pattern="^([0-9a-fA-F]{2})*$", max_length=2 * MOST_DATA, description="bytes in hexadecimal")]
Cdb = Annotated[str, Meta(pattern="^([0-9a-fA-F]{2}){6,16}$", description="a CDB of 6 to 16 bytes in hexadecimal")]
Owner = Annotated[str, Meta(max_length=64)]

TAGS = {
    "simple": SRB_SIMPLE_TAG_REQUEST,
    "head-of-queue": SRB_HEAD_OF_QUEUE_TAG_REQUEST,
    "ordered": SRB_ORDERED_QUEUE_TAG_REQUEST,
}
STATES = {
    "D0": STOR_POWER_DEVICE_D0,
    "D1": STOR_POWER_DEVICE_D1,
    "D2": STOR_POWER_DEVICE_D2,
    "D3": STOR_POWER_DEVICE_D3,
}
ACTIONS = {
    "none": STOR_POWER_ACTION_NONE,
    "sleep": STOR_POWER_ACTION_SLEEP,
    "hibernate": STOR_POWER_ACTION_HIBERNATE,
    "shutdown": STOR_POWER_ACTION_SHUTDOWN,
}
PNP_ACTIONS = {
    "start-device": STOR_START_DEVICE,
    "remove-device": STOR_REMOVE_DEVICE,
    "stop-device": STOR_STOP_DEVICE,
    "query-capabilities": STOR_QUERY_CAPABILITIES,
    "query-resource-requirements": STOR_QUERY_RESOURCE_REQUIREMENTS,
    "filter-resource-requirements": STOR_FILTER_RESOURCE_REQUIREMENTS,
    "surprise-removal": STOR_SURPRISE_REMOVAL,
}
CONTROLS = (
    "FLUSH",
    "SHUTDOWN",
    "LOCK_QUEUE",
    "UNLOCK_QUEUE",
    "RELEASE_QUEUE",
    "FLUSH_QUEUE",
    "QUIESCE_DEVICE",
    "RESET_LOGICAL_UNIT",
    "RESET_DEVICE",
    "RESET_BUS",
)
ControlName = Literal[
    "FLUSH",
    "SHUTDOWN",
    "LOCK_QUEUE",
    "UNLOCK_QUEUE",
    "RELEASE_QUEUE",
    "FLUSH_QUEUE",
    "QUIESCE_DEVICE",
    "RESET_LOGICAL_UNIT",
    "RESET_DEVICE",
    "RESET_BUS",
]
WHOLES = ("sleep", "hibernate", "resume", "stop", "start", "rebalance", "shutdown", "surprise-removal")
DUMP_MODES = {
    "crash": DUMP_MODE_CRASH,
    "hibernate": DUMP_MODE_HIBER,
    "mark-memory": DUMP_MODE_MARK_MEMORY,
    "resume": DUMP_MODE_RESUME,
}
_FUNCTIONS = {name: value for value, name in FUNCTION_NAMES.items()}
_FLAGS = {name: value for value, name in FLAG_NAMES.items()}


class ToUnit(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for a unit. `wait`: seconds for its end; what has not ended by then is told by the event `inject`."""

    target: Number
    lun: Number = 0
    wait: Wait = 5.0

    @property
    def unit(self) -> Unit:
        return 0, self.target, self.lun


class ToAny(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for a unit, or without `target` for the adapter."""

    target: Number | None = None
    lun: Number = 0
    wait: Wait = 5.0

    @property
    def unit(self) -> Unit | None:
        return None if self.target is None else (0, self.target, self.lun)


class Scsi(ToUnit, kw_only=True):
    """A SCSI command: `data` go out, or at most `length` bytes come in. `tag`: null for an untagged one; `flags`: names
    of SRB_FLAGS_* without that; `owner`: of a lock that is bypassed."""

    cdb: Cdb
    data: Hex = ""
    length: Annotated[int, Meta(ge=0, le=MOST_DATA, description="bytes")] = 0
    tag: Literal["simple", "head-of-queue", "ordered"] | None = "simple"
    sort_key: Word = 0
    flags: list[str] = []
    owner: Owner = ""
    time_out: TimeOut = 10


class Control(ToUnit, kw_only=True):
    """A request that is no more than its function. `bypass`: with BYPASS_LOCKED_QUEUE, without which an UNLOCK_QUEUE
    waits behind the lock; `owner`: who locks."""

    function: ControlName
    bypass: bool = True
    owner: Owner = ""
    time_out: TimeOut = 10


class IoControl(ToUnit, kw_only=True):
    """IO_CONTROL: an SRB_IO_CONTROL with this signature and control code, then `data`, and room for `length` bytes."""

    code: Word
    signature: Annotated[str, Meta(pattern="^[ -~]{0,8}$")] = ""
    data: Hex = ""
    length: Annotated[int, Meta(ge=0, le=MOST_DATA, description="bytes")] = 0
    time_out: TimeOut = 10


class Wmi(ToAny, kw_only=True):
    """A WMI request: `minor` is the code of the WMI IRP (0: IRP_MN_QUERY_ALL_DATA), `data` the buffer, filled up to
    `length` bytes."""

    minor: Number = 0
    data_path: Word = 0
    data: Hex = ""
    length: Annotated[int, Meta(ge=0, le=MOST_DATA, description="bytes")] = 0
    time_out: TimeOut = 10


class Power(ToAny, kw_only=True):
    """A POWER request. `bypass`: past a locked queue, as the class driver that has locked it sends it."""

    state: Literal["D0", "D1", "D2", "D3"]
    action: Literal["none", "sleep", "hibernate", "shutdown"] = "none"
    bypass: bool = True
    owner: Owner = ""


class Pnp(ToAny, kw_only=True):
    """A PNP request (STOR_PNP_ACTION)."""

    action: Literal[
        "start-device",
        "remove-device",
        "stop-device",
        "query-capabilities",
        "query-resource-requirements",
        "filter-resource-requirements",
        "surprise-removal",
    ]


class Remove(ToUnit, kw_only=True):
    """A unit is taken out; `surprise`: without a word before."""

    surprise: bool = False


class Whole(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is done to the machine, or to the adapter as a whole."""

    what: Literal["sleep", "hibernate", "resume", "stop", "start", "rebalance", "shutdown", "surprise-removal"]
    wait: Wait = 30.0


class Dump(ToUnit, kw_only=True):
    """A dump to a disk: `blocks` from `lba` are read, written as they were and read again; for `resume` they are only
    read, and for `mark-memory` nothing is. `mode`: DumpMode."""

    mode: Literal["crash", "hibernate", "mark-memory", "resume"] = "crash"
    lba: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="the first block")] = 0
    blocks: Annotated[int, Meta(ge=1, le=2048)] = 8
    wait: Wait = 30.0


class Rescan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Look for units."""


class Switch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """On or off."""

    enabled: bool


# -- one request ------------------------------------------------------------------------------------------------------


def _machine(call: Call) -> Machine:
    machine = call.parts.machine
    if machine is None:
        raise Refused("this adapter has no port that takes requests from the host")
    if len(machine.pending) >= MOST_PENDING:
        raise Refused(
            f"{MOST_PENDING} injected requests have not ended yet", "let go of what holds them: `hba show queues`"
        )
    return machine


class _Sent:
    """A request of ours under way: waited for by a method, then by whoever listens to the event."""

    def __init__(self, call: Call, machine: Machine, srb: Srb, unit: Unit | None) -> None:
        self._call = call
        self._machine = machine
        self._srb = srb
        self._unit = unit
        self._began = call.parts.loop.clock.now()
        self._answer: Callable[[Callable[[], object]], None] | None = None
        self.number = machine.number()

    def send(self, wait: float) -> Later:
        def start(answer: Callable[[Callable[[], object]], None]) -> None:
            self._answer = answer
            self._machine.pending[self.number] = self._srb
            self._srb.completion = self._completed
            loop = self._call.parts.loop
            self._machine.port.submit(self._srb)
            if self._answer is not None:
                if wait:
                    loop.clock.call_later(int(wait * S), self._waited)
                else:
                    loop.call_soon(self._waited)

        return Later(start)

    def _completed(self, srb: Srb) -> None:
        self._machine.pending.pop(self.number, None)
        outcome = self._outcome(self._call.parts.loop.clock.now() - self._began)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer(lambda: outcome)
        else:
            self._call.parts.events.publish("inject", {"request": outcome, "sequence": None})

    def _waited(self) -> None:
        if self._answer is not None:
            answer, self._answer = self._answer, None
            outcome = self._outcome(None)
            answer(lambda: outcome)

    def _outcome(self, took: int | None) -> dict[str, object]:
        srb, unit = self._srb, self._unit
        where, blocked = _where(self._machine, srb) if took is None else ("", [])
        data = b""
        return_code: int | None = None
        mdl = srb.mdl
        if took is not None and mdl is not None and srb.srb_flags & SRB_FLAGS_DATA_IN:
            data = mdl.read(0, min(srb.data_transfer_length, mdl.length))
            if srb.function == SRB_FUNCTION_IO_CONTROL:
                header = mdl.read(0, IO_CONTROL_HEADER.size)
                return_code, length = IO_CONTROL_HEADER.unpack(header)[4:6]
                data = mdl.read(IO_CONTROL_HEADER.size, min(length, mdl.length))
        sense = srb.sense if srb.srb_status & SRB_STATUS_AUTOSENSE_VALID else b""
        return {
            "id": self.number,
            "function": FUNCTION_NAMES[srb.function],
            "unit": None if unit is None else unit_name(*unit[1:]),
            "completed": took is not None,
            "srb_status": srb.srb_status,
            "status": status_text(srb),
            "frozen": bool(srb.srb_status & SRB_STATUS_QUEUE_FROZEN),
            "autosense": bool(srb.srb_status & SRB_STATUS_AUTOSENSE_VALID),
            "scsi_status": srb.scsi_status,
            "length": max(0, srb.data_transfer_length) if took is not None else 0,
            "data": data.hex(),
            "sense": sense.hex(),
            "sense_text": condition_name(condition_of(sense)),
            "return_code": return_code,
            "took": took,
            "where": where,
            "blocked": blocked,
        }


def _where(machine: Machine, srb: Srb) -> tuple[str, list[str]]:
    """How far a request is that has not ended, and what holds its unit."""
    request = srb._port
    if request is None:
        return "", []
    snapshot = machine.port.snapshot()
    name = f"{srb.path_id}:{srb.target_id}:{srb.lun}"
    units: Any = snapshot["units"]
    for unit in units:
        if unit["address"] == name:
            return STATE_NAMES[request.state], [str(why) for why in unit.get("blocked", unit.get("blocked_by", ()))]
    return STATE_NAMES[request.state], []


def _send(call: Call, make: Callable[[Machine], Srb], unit: Unit | None, wait: float) -> Later:
    machine = _machine(call)
    return _Sent(call, machine, make(machine), unit).send(wait)


def scsi(call: Call, params: Scsi) -> object:
    data = bytes.fromhex(params.data)
    if data and params.length:
        raise Refused("a command moves data one way", "give data to send, or a length to receive")
    flags = _flags(params.flags)
    buffer = None
    if data:
        buffer = bounce_buffer(len(data))
        buffer.write(data)
        flags |= SRB_FLAGS_DATA_OUT
    elif params.length:
        buffer = bounce_buffer(params.length)
        flags |= SRB_FLAGS_DATA_IN
    if params.tag is not None:
        flags |= SRB_FLAGS_QUEUE_ACTION_ENABLE

    def make(machine: Machine) -> Srb:
        srb = srbs.command(params.unit, bytes.fromhex(params.cdb), buffer, flags, params.time_out)
        srb.queue_action = TAGS[params.tag or "simple"]
        srb.queue_sort_key = params.sort_key
        srb.original_request = machine.owner(params.owner)
        return srb

    return _send(call, make, params.unit, params.wait)


def _flags(names: list[str]) -> int:
    flags = 0
    for name in names:
        value = _FLAGS.get(name.upper().removeprefix("SRB_FLAGS_"))
        if value is None:
            raise Refused(
                f"there is no flag {name[:60]!r}{did_you_mean(name, _FLAGS)}", "flags: " + ", ".join(sorted(_FLAGS))
            )
        flags |= value
    return flags


def control(call: Call, params: Control) -> object:
    flags = SRB_FLAGS_BYPASS_LOCKED_QUEUE if params.bypass else 0

    def make(machine: Machine) -> Srb:
        srb = srbs.control(_FUNCTIONS[params.function], params.unit, flags, params.time_out)
        if not params.bypass:
            srb.srb_flags = 0
        srb.original_request = machine.owner(params.owner)
        return srb

    return _send(call, make, params.unit, params.wait)


def io_control(call: Call, params: IoControl) -> object:
    data = bytes.fromhex(params.data).ljust(params.length, b"\0")
    return _send(
        call,
        lambda _: srbs.io_control(params.unit, params.signature.encode(), params.code, data, params.time_out),
        params.unit,
        params.wait,
    )


def wmi(call: Call, params: Wmi) -> object:
    data = bytes.fromhex(params.data).ljust(params.length, b"\0")
    return _send(
        call,
        lambda _: srbs.wmi(params.unit, params.minor, params.data_path, data, params.time_out),
        params.unit,
        params.wait,
    )


def power(call: Call, params: Power) -> object:
    flags = SRB_FLAGS_BYPASS_LOCKED_QUEUE if params.bypass else 0

    def make(machine: Machine) -> Srb:
        srb = srbs.power(params.unit, STATES[params.state], ACTIONS[params.action], flags)
        srb.original_request = machine.owner(params.owner)
        return srb

    return _send(call, make, params.unit, params.wait)


def pnp(call: Call, params: Pnp) -> object:
    return _send(call, lambda _: srbs.pnp(params.unit, PNP_ACTIONS[params.action]), params.unit, params.wait)


# -- sequences --------------------------------------------------------------------------------------------------------


def _sequence(
    call: Call, machine: Machine, what: str, wait: float, begin: Callable[[Callable[[list[PnpStep]], None]], None]
) -> Later:
    number = machine.number()

    def shown(steps: list[PnpStep] | None) -> Mapping[str, object]:
        return {
            "id": number,
            "what": what,
            "completed": steps is not None,
            "pending": "" if steps is not None else _pending(machine),
            "state": machine.port.pnp.state,
            "steps": [{"what": step.what, "unit": step.unit or None, "outcome": step.outcome} for step in steps or ()],
        }

    def start(answer: Callable[[Callable[[], object]], None]) -> None:
        waiting = True

        def ended(steps: list[PnpStep]) -> None:
            nonlocal waiting
            machine.pending.pop(number, None)
            outcome = shown(steps)
            if waiting:
                waiting = False
                answer(lambda: outcome)
            else:
                call.parts.events.publish("inject", {"request": None, "sequence": outcome})

        def waited() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                outcome = shown(None)
                answer(lambda: outcome)

        machine.pending[number] = what
        try:
            begin(ended)
        except Busy as busy:
            waiting = False
            machine.pending.pop(number, None)
            why = Refused(f"{what}: {busy}", "see `hba show queues`")
            answer(lambda: _raise(why))
            return
        if waiting:
            call.parts.loop.clock.call_later(int(wait * S), waited)

    return Later(start)


def _raise(why: Refused) -> object:
    raise why


def _pending(machine: Machine) -> str:
    outstanding = machine.port.outstanding
    return f"{outstanding} requests at the miniport" if outstanding else "a request of its own"


def whole(call: Call, params: Whole) -> object:
    machine = _machine(call)
    begin: dict[str, Callable[[Callable[[list[PnpStep]], None]], None]] = {
        "sleep": lambda told: machine.sleep(STOR_POWER_ACTION_SLEEP, told),
        "hibernate": lambda told: machine.sleep(STOR_POWER_ACTION_HIBERNATE, told),
        "resume": machine.resume,
        "stop": machine.stop,
        "start": machine.start,
        "rebalance": machine.rebalance,
        "shutdown": machine.shutdown,
        "surprise-removal": machine.surprise_removal,
    }
    return _sequence(call, machine, params.what, params.wait, begin[params.what])


def _unknown(unit: tuple[int, int, int]) -> str:
    name = unit_name(*unit[1:])
    return f"the port knows no unit at {name} (nobody has sent it anything, or it is gone); `hba inject rescan` looks"


def remove(call: Call, params: Remove) -> object:
    machine = _machine(call)
    what = "surprise removal" if params.surprise else "removal"
    unit = params.unit

    def begin(told: Callable[[list[PnpStep]], None]) -> None:
        if not machine.port.knows(*unit):
            raise Busy(_unknown(unit))
        machine.port.remove_unit(*unit, params.surprise, told)

    return _sequence(call, machine, f"{what} of {unit_name(*unit[1:])}", params.wait, begin)


def dump(call: Call, params: Dump) -> object:
    machine = _machine(call)

    def begin(told: Callable[[list[PnpStep]], None]) -> None:
        if not machine.port.knows(*params.unit):
            raise Busy(_unknown(params.unit))
        machine.dump(DUMP_MODES[params.mode], params.unit, params.lba, params.blocks, told)

    return _sequence(call, machine, f"{params.mode} dump", params.wait, begin)


def rescan(call: Call, params: Rescan) -> object:
    machine = _machine(call)

    def start(answer: Callable[[Callable[[], object]], None]) -> None:
        def ended(found: list[FoundUnit]) -> None:
            answer(lambda: {"units": [_found(unit) for unit in found]})

        machine.rescan(ended)

    return Later(start)


def _found(unit: FoundUnit) -> dict[str, object]:
    return {
        "unit": unit_name(*unit.unit[1:]),
        "device_type": unit.device_type,
        "vendor": unit.vendor,
        "product": unit.product,
        "revision": unit.revision,
        "serial": unit.serial,
        "pages": list(unit.pages),
    }


def tracing(call: Call, params: Switch) -> object:
    port = _machine(call).port
    return {"enabled": params.enabled, "called": port.tracing_enabled(params.enabled), "model": port.model}


METHODS = (
    Method("inject.scsi", scsi, "Send a SCSI command to the port, as a pass-through request.", Scsi, Injected),
    Method(
        "inject.control",
        control,
        "Send a request that is a function and an address: FLUSH, SHUTDOWN, the queue functions, resets.",
        Control,
        Injected,
    ),
    Method("inject.io_control", io_control, "Send IO_CONTROL (IOCTL_SCSI_MINIPORT).", IoControl, Injected),
    Method("inject.wmi", wmi, "Send a WMI request, to a unit or to the adapter.", Wmi, Injected),
    Method("inject.power", power, "Send a POWER request, to a unit or to the adapter.", Power, Injected),
    Method("inject.pnp", pnp, "Send a PNP request, to a unit or to the adapter.", Pnp, Injected),
    Method("inject.remove", remove, "Take a unit out, in order or by surprise.", Remove, Sequence),
    Method(
        "inject.machine",
        whole,
        "Have the machine sleep, wake up, shut down; stop, start or take out the adapter.",
        Whole,
        Sequence,
    ),
    Method(
        "inject.dump",
        dump,
        "Have a second miniport read and write a few blocks in dump mode, after a crash that is none.",
        Dump,
        Sequence,
    ),
    Method("inject.rescan", rescan, "Look for units with INQUIRY and REPORT LUNS.", Rescan, UnitsFound),
    Method("inject.tracing", tracing, "Call the miniport's hw_tracing_enabled.", Switch, Tracing),
)
