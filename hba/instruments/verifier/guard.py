"""The SRB a miniport gets while the verifier watches: same fields, every access checked.

Without the verifier the miniport gets the SRB itself. With it, it gets a `GuardedSrb` that stands for one trip of
one SRB through the miniport and knows who owns it at the moment of the access:

- OW-01: nothing is read or written after RequestComplete;
- OW-06: only the documented members are written;
- OW-08: the extension exists only when asked for, and is gone after completion (see `extension`);
- OW-09: only the members that are valid for the function are read; the others read as poison.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from hba import srb as s
from hba.port.buffers import POISON
from hba.port.request import ISSUED, Request
from hba.srb import Srb

FIELDS = (
    "length",
    "function",
    "srb_status",
    "scsi_status",
    "path_id",
    "target_id",
    "lun",
    "queue_tag",
    "queue_action",
    "cdb_length",
    "sense_info_buffer_length",
    "srb_flags",
    "data_transfer_length",
    "time_out_value",
    "data_buffer",
    "sense_info_buffer",
    "next_srb",
    "original_request",
    "srb_extension",
    "queue_sort_key",
    "internal_status",
    "cdb",
)
# Of who made the request and of the port: not what a driver sees of an SRB, and a way to data that are not mapped.
NO_MEMBERS = ("mdl", "completion", "context")
_COMMAND = frozenset({"cdb", "cdb_length", "queue_action", "queue_sort_key", "scsi_status"})
_DATA = frozenset({"data_buffer", "data_transfer_length"})
_SENSE = frozenset({"sense_info_buffer", "sense_info_buffer_length"})
_NEXT = frozenset({"next_srb"})
_LUN = frozenset({"lun"})
_TARGET = frozenset({"target_id"})

# OW-09: members that are not valid, by function (SCSI_REQUEST_BLOCK).
INVALID: dict[int, frozenset[str]] = {
    s.SRB_FUNCTION_EXECUTE_SCSI: _NEXT,
    s.SRB_FUNCTION_IO_CONTROL: _COMMAND | _SENSE | _NEXT,
    s.SRB_FUNCTION_RESET_BUS: _TARGET | _LUN | _COMMAND | _DATA | _SENSE | _NEXT,
    s.SRB_FUNCTION_RESET_DEVICE: _LUN | _COMMAND | _DATA | _SENSE | _NEXT,
    s.SRB_FUNCTION_RESET_LOGICAL_UNIT: _COMMAND | _DATA | _SENSE | _NEXT,
    s.SRB_FUNCTION_ABORT_COMMAND: _COMMAND | _DATA | _SENSE,
    s.SRB_FUNCTION_TERMINATE_IO: _COMMAND | _DATA | _SENSE,
    s.SRB_FUNCTION_FLUSH: _COMMAND | _DATA | _SENSE | _NEXT,
    s.SRB_FUNCTION_SHUTDOWN: _COMMAND | _DATA | _SENSE | _NEXT,
    s.SRB_FUNCTION_POWER: _COMMAND | _DATA | _SENSE | _NEXT,
}
POISON_VALUES: dict[str, Any] = {
    "cdb": bytes((POISON,)) * 16,
    "data_buffer": None,
    "sense_info_buffer": b"",
    "next_srb": None,
    "data_transfer_length": POISON * 0x01010101,
    "queue_sort_key": POISON * 0x01010101,
}
# OW-06: always writable. The others with a condition are in `_may_write`.
WRITABLE = frozenset(
    {"srb_status", "scsi_status", "data_transfer_length", "sense_info_buffer", "sense_info_buffer_length"}
)
_DIRECTION = s.SRB_FLAGS_UNSPECIFIED_DIRECTION

_set = object.__setattr__
# (rule, message, request): reports; raises at level strict.
Report = Callable[[str, str, Request], None]


class GuardPolicy:
    """What the guards of one port need to know of it."""

    __slots__ = ("has_extension", "report", "writable")

    def __init__(self, report: Report, has_extension: bool, lun_writable: bool) -> None:
        self.report = report
        self.has_extension = has_extension  # srb_extension_size != 0
        # lun: only where more than 8 logical units are mapped
        self.writable = WRITABLE.union(["lun"] * lun_writable)


def _reader(name: str) -> Any:
    read = attrgetter(name)

    def get(guard: GuardedSrb) -> Any:
        request = guard._request
        if request.state != ISSUED:
            rule = "OW-08" if name == "srb_extension" else "OW-01"
            guard._policy.report(rule, f"srb.{name} read after the request was completed", request)
        elif name in INVALID.get(function := request.srb.function, _NEXT):
            guard._policy.report("OW-09", f"srb.{name} read, which is not valid for function {function:#04x}", request)
            return POISON_VALUES.get(name, POISON)
        elif name == "srb_extension":
            return guard._read_extension()
        value = read(request.srb)
        if name == "next_srb" and value is not None and value._port is not None:
            return value._port.handed  # the victim as the miniport knows it
        return value

    return _Member(get)


class _Member:
    """A member of the SRB that asks `get` when it is read, unless the guard has it as an attribute of its own."""

    def __init__(self, get: Callable[[GuardedSrb], Any]) -> None:
        self.get = get

    def __get__(self, guard: GuardedSrb | None, owner: type) -> Any:
        return self if guard is None else self.get(guard)


class _NoMember:
    """Asks about what is not the miniport's to see, whatever the guard shares with the SRB."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, guard: GuardedSrb | None, owner: type) -> Any:
        if guard is not None:
            request = guard._request
            guard._policy.report("OW-09", f"srb.{self.name} read, which is no member of an SRB", request)
        return None

    def __set__(self, guard: GuardedSrb, value: object) -> None:
        raise AttributeError(self.name)  # a guard's __setattr__ has seen to it


class GuardedSrb(Srb):
    """One trip of an SRB through the miniport. Attribute access is the documented SRB's; see the module.

    While the miniport owns a command, the guard and the SRB have one dictionary of attributes: nothing can be wrong
    with reading what is set, and it costs what it costs in an SRB. `ended` parts them. What is not in there, and all
    members of an SRB that is no command, are asked for through `_reader`.
    """

    _request: Request
    _policy: GuardPolicy

    def __init__(self, request: Request, policy: GuardPolicy) -> None:
        srb = request.srb
        state: dict[str, Any] = {}
        if not srb.function and srb.next_srb is None:
            state = srb.__dict__
            if srb.srb_extension is None:
                state.pop("srb_extension", None)  # so that it is asked for through `_reader`
            if "queue_action" not in state:
                state["queue_action"] = srb.queue_action  # every miniport reads it
        state["_request"] = request
        state["_policy"] = policy
        state["_port"] = request
        _set(self, "__dict__", state)

    def ended(self) -> None:
        """The miniport has completed it, or lost it: from now on every access is looked at (OW-01)."""
        state = self.__dict__
        request = state.pop("_request")
        _set(self, "__dict__", {"_request": request, "_policy": state.pop("_policy"), "_port": request})

    def _read_extension(self) -> Any:
        request = self._request
        if not self._policy.has_extension:
            self._policy.report("OW-08", "srb.srb_extension used although srb_extension_size is 0", request)
        return request.srb.srb_extension

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        request = state["_request"]
        srb = request.srb
        policy = state["_policy"]
        if request.state == ISSUED and (name in policy.writable or self._may_write(name, value)):
            if name == "sense_info_buffer":
                srb.sense_info_buffer = value  # copied
            else:
                srb.__dict__[name] = value
            return
        if request.state != ISSUED:
            rule = "OW-08" if name == "srb_extension" else "OW-01"
            policy.report(rule, f"srb.{name} written after the request was completed; not written", request)
        elif name == "srb_extension":
            why = (
                "the memory is the port's; write to it, or set attributes on it"
                if policy.has_extension
                else "size is 0"
            )
            policy.report("OW-08", f"srb.srb_extension = {value!r}: {why}; not written", request)
        else:
            where = "read-only to a miniport" if name in FIELDS else "no member; private state goes to the extension"
            policy.report("OW-06", f"srb.{name} = {value!r}: {where}; not written", request)

    def _may_write(self, name: str, value: Any) -> bool:
        if name == "srb_flags":
            # Only an unspecified direction may be made definite (subordinate DMA adapters).
            flags = self._request.srb.srb_flags
            return flags & _DIRECTION == _DIRECTION and (flags ^ value) & ~_DIRECTION == 0
        return False

    def __repr__(self) -> str:
        return f"<GuardedSrb of {self._request.srb!r}>"


for _name in FIELDS:
    setattr(GuardedSrb, _name, _reader(_name))
for _name in NO_MEMBERS:
    setattr(GuardedSrb, _name, _NoMember(_name))
