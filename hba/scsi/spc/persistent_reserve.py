"""PERSISTENT RESERVE IN and OUT (SPC-4), all service actions but SPEC_I_PT. The rules are in hba.scsi.reservations.

An initiator port is named by a SCSI Parallel Interface TransportID: the adapter's own id on the bus.
"""

from __future__ import annotations

from collections.abc import Callable

from hba.errors import StorageError
from hba.scsi.command import CommandTable
from hba.scsi.reservations import ALL_REGISTRANTS, MAX_REGISTRATIONS, TYPES, Snapshot
from hba.scsi.sense import (
    INSUFFICIENT_REGISTRATION_RESOURCES,
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
    PARAMETER_LIST_LENGTH_ERROR,
    REGISTRATIONS_PREEMPTED,
    RESERVATIONS_PREEMPTED,
    RESERVATIONS_RELEASED,
    CheckCondition,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.server import RESERVATION_CONFLICT, DeviceServer, Steps
from hba.scsi.spc.vpd import RELATIVE_PORT
from hba.scsi.task import Task

commands = CommandTable()

_TYPE_MASK = 0xEA01  # all six types, REPORT CAPABILITIES bytes 4 and 5
_SPI_TRANSPORT_ID = 0x01
_TRANSPORT_ID_LENGTH = 24
_APTPL, _ALL_TG_PT, _SPEC_I_PT, _UNREG = 0x01, 0x04, 0x08, 0x02


class _Conflict(Exception):
    """The command ends with RESERVATION CONFLICT."""


# -- PERSISTENT RESERVE IN --------------------------------------------------------------------------------------------


def _shut_out(unit: DeviceServer, task: Task) -> bool:
    """SPC-2: while RESERVE holds the unit, persistent reservation commands are a conflict for everybody."""
    if unit.reservations.legacy_holder is None:
        return False
    task.status = RESERVATION_CONFLICT
    return True


@commands.add("5e 00 0000000000 ffff 00", "PERSISTENT RESERVE IN, READ KEYS", service=True, allocation=(7, 2))
def read_keys(unit: DeviceServer, task: Task) -> bytes | None:
    if _shut_out(unit, task):
        return None
    keys = b"".join(key.to_bytes(8, "big") for key in unit.reservations.keys.values())
    return unit.reservations.generation.to_bytes(4, "big") + len(keys).to_bytes(4, "big") + keys


@commands.add("5e 01 0000000000 ffff 00", "PERSISTENT RESERVE IN, READ RESERVATION", service=True, allocation=(7, 2))
def read_reservation(unit: DeviceServer, task: Task) -> bytes | None:
    if _shut_out(unit, task):
        return None
    state = unit.reservations
    head = state.generation.to_bytes(4, "big")
    if not state.type:
        return head + bytes(4)
    key = 0 if state.type in ALL_REGISTRANTS or state.holder is None else state.keys.get(state.holder, 0)
    return head + (16).to_bytes(4, "big") + key.to_bytes(8, "big") + bytes((0, 0, 0, 0, 0, state.type, 0, 0))


@commands.add("5e 02 0000000000 ffff 00", "PERSISTENT RESERVE IN, REPORT CAPABILITIES", service=True, allocation=(7, 2))
def report_capabilities(unit: DeviceServer, task: Task) -> bytes | None:
    if _shut_out(unit, task):
        return None
    state = unit.reservations
    flags = 0x01 if state.can_persist else 0x00  # PTPL_C
    active = 0x01 if state.aptpl else 0x00  # PTPL_A
    return (8).to_bytes(2, "big") + bytes((flags, 0x80 | active)) + _TYPE_MASK.to_bytes(2, "big") + bytes(2)


def _transport_id(initiator: int) -> bytes:
    return (
        bytes((_SPI_TRANSPORT_ID, 0))
        + initiator.to_bytes(2, "big")
        + bytes(2)
        + RELATIVE_PORT.to_bytes(2, "big")
        + bytes(16)
    )


@commands.add("5e 03 0000000000 ffff 00", "PERSISTENT RESERVE IN, READ FULL STATUS", service=True, allocation=(7, 2))
def read_full_status(unit: DeviceServer, task: Task) -> bytes | None:
    if _shut_out(unit, task):
        return None
    state = unit.reservations
    body = bytearray()
    for initiator, key in state.keys.items():
        holds = state.holds(initiator)
        body += key.to_bytes(8, "big") + bytes(4) + bytes((0x01 if holds else 0, state.type if holds else 0)) + bytes(4)
        body += RELATIVE_PORT.to_bytes(2, "big") + _TRANSPORT_ID_LENGTH.to_bytes(4, "big") + _transport_id(initiator)
    return state.generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + bytes(body)


# -- PERSISTENT RESERVE OUT -------------------------------------------------------------------------------------------


class _Parameters:
    """The basic parameter list."""

    def __init__(self, data: bytes) -> None:
        self.key = int.from_bytes(data[0:8], "big")
        self.action_key = int.from_bytes(data[8:16], "big")
        self.flags = data[20]


def _out(unit: DeviceServer, task: Task, action: Callable[[DeviceServer, Task], None]) -> Steps | None:
    """Run one service action; what it changed is saved before the command ends, or undone."""
    if _shut_out(unit, task):
        return None
    state = unit.reservations
    before = state.snapshot()
    try:
        action(unit, task)
    except _Conflict:
        task.status = RESERVATION_CONFLICT
        return None
    except BaseException:
        state.restore(before)
        raise
    finally:
        unit.refresh()
    return _saving(unit, before)


def _saving(unit: DeviceServer, before: Snapshot) -> Steps:
    try:
        yield unit.reservations.save
    except StorageError:
        unit.reservations.restore(before)
        raise
    finally:
        unit.refresh()


def _basic(unit: DeviceServer, task: Task) -> _Parameters:
    length = int.from_bytes(task.cdb[5:9], "big")
    if length != 24:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    data = unit.parameters(task, length)
    if len(data) < length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    parameters = _Parameters(data)
    if parameters.flags & _SPEC_I_PT:
        raise invalid_parameter(20, 3)  # SIP_C=0
    if parameters.flags & _ALL_TG_PT:
        raise invalid_parameter(20, 2)  # ATP_C=0
    return parameters


def _check_registered(unit: DeviceServer, task: Task, key: int) -> None:
    if unit.reservations.keys.get(task.initiator) != key:
        raise _Conflict


def _check_type(cdb: bytes) -> int:
    """The scope and type byte: logical unit scope, one of the six types."""
    if cdb[2] >> 4:
        raise invalid_cdb(2, 7)
    kind = cdb[2] & 0x0F
    if kind not in TYPES:
        raise invalid_cdb(2, 3)
    return kind


def _set_key(unit: DeviceServer, task: Task, parameters: _Parameters) -> None:
    """REGISTER's effect, once it is allowed."""
    state = unit.reservations
    persist = bool(parameters.flags & _APTPL)
    if persist and not state.can_persist:
        raise invalid_parameter(20, 0)
    initiator = task.initiator
    if not parameters.action_key:
        if initiator not in state.keys:
            return  # SPC-4 table "Register behaviors for an unregistered I_T nexus": do nothing
        state.unregister(initiator)
        state.aptpl = persist
        return
    if initiator not in state.keys and len(state.keys) >= MAX_REGISTRATIONS:
        raise CheckCondition(INSUFFICIENT_REGISTRATION_RESOURCES)
    state.register(initiator, parameters.action_key)
    state.aptpl = persist


@commands.add("5f 00 00 0000 ffffffff 00", "PERSISTENT RESERVE OUT, REGISTER", service=True, barrier=True)
def register(unit: DeviceServer, task: Task) -> Steps | None:
    def action(unit: DeviceServer, task: Task) -> None:
        parameters = _basic(unit, task)
        if unit.reservations.keys.get(task.initiator, 0) != parameters.key:
            raise _Conflict
        _set_key(unit, task, parameters)

    return _out(unit, task, action)


@commands.add(
    "5f 06 00 0000 ffffffff 00",
    "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY",
    service=True,
    barrier=True,
)
def register_and_ignore(unit: DeviceServer, task: Task) -> Steps | None:
    return _out(unit, task, lambda unit, task: _set_key(unit, task, _basic(unit, task)))


@commands.add("5f 01 ff 0000 ffffffff 00", "PERSISTENT RESERVE OUT, RESERVE", service=True, barrier=True)
def reserve(unit: DeviceServer, task: Task) -> Steps | None:
    def action(unit: DeviceServer, task: Task) -> None:
        kind = _check_type(task.cdb)
        state = unit.reservations
        _check_registered(unit, task, _basic(unit, task).key)
        if not state.type:
            state.reserve(task.initiator, kind)
        elif not state.holds(task.initiator) or state.type != kind:
            raise _Conflict

    return _out(unit, task, action)


@commands.add("5f 02 ff 0000 ffffffff 00", "PERSISTENT RESERVE OUT, RELEASE", service=True, barrier=True)
def release(unit: DeviceServer, task: Task) -> Steps | None:
    def action(unit: DeviceServer, task: Task) -> None:
        state = unit.reservations
        _check_registered(unit, task, _basic(unit, task).key)
        if not state.holds(task.initiator):
            return
        if task.cdb[2] != state.type:
            raise CheckCondition(INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
        state.release(task.initiator)

    return _out(unit, task, action)


@commands.add("5f 03 00 0000 ffffffff 00", "PERSISTENT RESERVE OUT, CLEAR", service=True, barrier=True)
def clear(unit: DeviceServer, task: Task) -> Steps | None:
    def action(unit: DeviceServer, task: Task) -> None:
        state = unit.reservations
        _check_registered(unit, task, _basic(unit, task).key)
        for initiator in state.keys:
            if initiator != task.initiator:
                unit.attentions.establish(RESERVATIONS_PREEMPTED, initiator)
        state.clear()

    return _out(unit, task, action)


@commands.add("5f 04 ff 0000 ffffffff 00", "PERSISTENT RESERVE OUT, PREEMPT", service=True, barrier=True)
def preempt(unit: DeviceServer, task: Task) -> Steps | None:
    return _out(unit, task, lambda unit, task: _preempt(unit, task, abort=False))


@commands.add("5f 05 ff 0000 ffffffff 00", "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", service=True, barrier=True)
def preempt_and_abort(unit: DeviceServer, task: Task) -> Steps | None:
    return _out(unit, task, lambda unit, task: _preempt(unit, task, abort=True))


def _preempt(unit: DeviceServer, task: Task, abort: bool) -> None:
    """SPC-4 "Preempting a persistent reservation and/or registration"."""
    state = unit.reservations
    me = task.initiator
    parameters = _basic(unit, task)
    _check_registered(unit, task, parameters.key)
    victim = parameters.action_key
    takes = False
    if state.type in ALL_REGISTRANTS:
        takes = victim == 0
    elif state.type and state.holder is not None:
        takes = victim != 0 and state.keys.get(state.holder) == victim
    if not victim and not takes:
        raise invalid_parameter(8)
    if victim and victim not in state.keys.values():
        raise _Conflict
    kind = _check_type(task.cdb) if takes else 0
    removed = [other for other, key in state.keys.items() if other != me and (not victim or key == victim)]
    if not takes and victim and state.keys.get(me) == victim:
        removed.append(me)  # an initiator may take its own registration away like this
    before = state.type
    state.remove(removed)
    state.generation = (state.generation + 1) & 0xFFFFFFFF
    for other in removed:
        if other != me:
            unit.attentions.establish(REGISTRATIONS_PREEMPTED, other)
    if takes:
        state.reserve(me, kind)
        if kind != before:
            for other in state.keys:
                if other != me:
                    unit.attentions.establish(RESERVATIONS_RELEASED, other)
    elif state.type in ALL_REGISTRANTS and not state.keys:
        state.release(me)
    if abort:
        for other in removed:
            if other != me:
                unit.abort_initiator(other)


@commands.add("5f 07 00 0000 ffffffff 00", "PERSISTENT RESERVE OUT, REGISTER AND MOVE", service=True, barrier=True)
def register_and_move(unit: DeviceServer, task: Task) -> Steps | None:
    """Hands the reservation to another initiator, named by its TransportID."""

    def action(unit: DeviceServer, task: Task) -> None:
        state = unit.reservations
        length = int.from_bytes(task.cdb[5:9], "big")
        if length != 24 + _TRANSPORT_ID_LENGTH:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        data = unit.parameters(task, length)
        if len(data) < length:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        key, new_key = int.from_bytes(data[0:8], "big"), int.from_bytes(data[8:16], "big")
        _check_registered(unit, task, key)
        if not state.type or not state.holds(task.initiator):
            raise _Conflict
        if state.type in ALL_REGISTRANTS:
            raise _Conflict
        if not new_key:
            raise invalid_parameter(8)
        if data[17] & _APTPL and not state.can_persist:
            raise invalid_parameter(17, 0)
        if int.from_bytes(data[18:20], "big") != RELATIVE_PORT:
            raise invalid_parameter(18)
        if int.from_bytes(data[20:24], "big") != _TRANSPORT_ID_LENGTH:
            raise invalid_parameter(20)
        if data[24] != _SPI_TRANSPORT_ID:
            raise invalid_parameter(24)
        other = int.from_bytes(data[26:28], "big")
        if other == task.initiator or other > 0xFF:
            raise invalid_parameter(26)
        state.register(other, new_key)
        state.reserve(other, state.type)
        state.aptpl = bool(data[17] & _APTPL)
        if data[17] & _UNREG:
            state.remove([task.initiator])

    return _out(unit, task, action)
