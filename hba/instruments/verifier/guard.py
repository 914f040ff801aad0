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
from typing import Any, Final

from hba import srb as s
from hba.port.buffers import POISON
from hba.port.request import ISSUED, Request

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
    *s.SPECIAL_MEMBERS,
)
_COMMAND = frozenset({"cdb", "cdb_length", "queue_action", "queue_sort_key", "scsi_status"})
_DATA = frozenset({"data_buffer", "data_transfer_length"})
_SENSE = frozenset({"sense_info_buffer", "sense_info_buffer_length"})
_NEXT = frozenset({"next_srb"})
_LUN = frozenset({"lun"})
_TARGET = frozenset({"target_id"})
_POWER = frozenset({"srb_power_flags", "device_power_state", "power_action"})
_PNP = frozenset({"srb_pnp_flags", "pnp_action", "pnp_sub_function"})
_WMI = frozenset({"wmi_flags", "wmi_sub_function", "data_path"})
_SPECIAL: Final = _POWER | _PNP | _WMI  # of special versions of the block, one each

# OW-09: members that are not valid, by function (SCSI_REQUEST_BLOCK and its special versions).
INVALID: dict[int, frozenset[str]] = {
    s.SRB_FUNCTION_EXECUTE_SCSI: _NEXT | _SPECIAL,
    s.SRB_FUNCTION_IO_CONTROL: _COMMAND | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_RESET_BUS: _TARGET | _LUN | _COMMAND | _DATA | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_RESET_DEVICE: _LUN | _COMMAND | _DATA | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_RESET_LOGICAL_UNIT: _COMMAND | _DATA | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_ABORT_COMMAND: _COMMAND | _DATA | _SENSE | _SPECIAL,
    s.SRB_FUNCTION_TERMINATE_IO: _COMMAND | _DATA | _SENSE | _SPECIAL,
    s.SRB_FUNCTION_FLUSH: _COMMAND | _DATA | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_SHUTDOWN: _COMMAND | _DATA | _SENSE | _NEXT | _SPECIAL,
    s.SRB_FUNCTION_POWER: _COMMAND | _DATA | _SENSE | _NEXT | _PNP | _WMI,
    s.SRB_FUNCTION_PNP: _COMMAND | _DATA | _SENSE | _NEXT | _POWER | _WMI,
    s.SRB_FUNCTION_WMI: _COMMAND | _SENSE | _NEXT | _POWER | _PNP,
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


class GuardedSrb:
    """One trip of an SRB through the miniport. Attribute access is the documented SRB's; see the module.

    While the miniport owns a command, `lent` of its request is the SRB: nothing is wrong with reading a member then.
    All else is looked at by `_ask`. An object of its own, and not an SRB, so that it is the same when it is compiled.
    """

    __slots__ = ("_policy", "_port")

    _port: Request  # the name under which the port, which the miniport gives it back to, finds it
    _policy: GuardPolicy

    def __init__(self, request: Request, policy: GuardPolicy) -> None:
        _set_port(self, request)
        _set_policy(self, policy)
        srb = request.srb
        if not srb.function:
            request.lent = srb

    def _ask(self, name: str) -> Any:
        """A member that may not be read as it is."""
        request = self._port
        srb = request.srb
        if request.state != ISSUED:
            rule = "OW-08" if name == "srb_extension" else "OW-01"
            self._policy.report(rule, f"srb.{name} read after the request was completed", request)
        elif name in INVALID.get(srb.function, _NEXT):
            self._policy.report(
                "OW-09", f"srb.{name} read, which is not valid for function {srb.function:#04x}", request
            )
            return POISON_VALUES.get(name, POISON)
        elif name == "srb_extension" and not self._policy.has_extension:
            self._policy.report("OW-08", "srb.srb_extension used although srb_extension_size is 0", request)
        value = getattr(srb, name)
        if name == "next_srb" and value is not None and value._port is not None:
            return value._port.handed  # the victim as the miniport knows it
        return value

    def _refuse(self, name: str) -> Any:
        """What is no member of an SRB, though ours has it."""
        self._policy.report("OW-09", f"srb.{name} read, which is no member of an SRB", self._port)
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        request, policy = self._port, self._policy
        if request.state == ISSUED and (name in policy.writable or self._may_write(name, value)):
            setattr(request.srb, name, value)
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
            flags = self._port.srb.srb_flags
            return flags & _DIRECTION == _DIRECTION and (flags ^ value) & ~_DIRECTION == 0
        return False

    def __repr__(self) -> str:
        return f"<GuardedSrb of {self._port.srb!r}>"

    # -- the members ----------------------------------------------------------------------------------------------

    @property
    def length(self) -> Any:
        srb = self._port.lent
        return srb.length if srb is not None else self._ask("length")

    @property
    def function(self) -> Any:
        srb = self._port.lent
        return srb.function if srb is not None else self._ask("function")

    @property
    def srb_status(self) -> Any:
        srb = self._port.lent
        return srb.srb_status if srb is not None else self._ask("srb_status")

    @property
    def scsi_status(self) -> Any:
        srb = self._port.lent
        return srb.scsi_status if srb is not None else self._ask("scsi_status")

    @property
    def path_id(self) -> Any:
        srb = self._port.lent
        return srb.path_id if srb is not None else self._ask("path_id")

    @property
    def target_id(self) -> Any:
        srb = self._port.lent
        return srb.target_id if srb is not None else self._ask("target_id")

    @property
    def lun(self) -> Any:
        srb = self._port.lent
        return srb.lun if srb is not None else self._ask("lun")

    @property
    def queue_tag(self) -> Any:
        srb = self._port.lent
        return srb.queue_tag if srb is not None else self._ask("queue_tag")

    @property
    def queue_action(self) -> Any:
        srb = self._port.lent
        return srb.queue_action if srb is not None else self._ask("queue_action")

    @property
    def cdb_length(self) -> Any:
        srb = self._port.lent
        return srb.cdb_length if srb is not None else self._ask("cdb_length")

    @property
    def sense_info_buffer_length(self) -> Any:
        srb = self._port.lent
        return srb.sense_info_buffer_length if srb is not None else self._ask("sense_info_buffer_length")

    @property
    def srb_flags(self) -> Any:
        srb = self._port.lent
        return srb.srb_flags if srb is not None else self._ask("srb_flags")

    @property
    def data_transfer_length(self) -> Any:
        srb = self._port.lent
        return srb.data_transfer_length if srb is not None else self._ask("data_transfer_length")

    @property
    def time_out_value(self) -> Any:
        srb = self._port.lent
        return srb.time_out_value if srb is not None else self._ask("time_out_value")

    @property
    def data_buffer(self) -> Any:
        srb = self._port.lent
        return srb.data_buffer if srb is not None else self._ask("data_buffer")

    @property
    def sense_info_buffer(self) -> Any:
        srb = self._port.lent
        return srb.sense_info_buffer if srb is not None else self._ask("sense_info_buffer")

    @property
    def original_request(self) -> Any:
        srb = self._port.lent
        return srb.original_request if srb is not None else self._ask("original_request")

    @property
    def queue_sort_key(self) -> Any:
        srb = self._port.lent
        return srb.queue_sort_key if srb is not None else self._ask("queue_sort_key")

    @property
    def internal_status(self) -> Any:
        srb = self._port.lent
        return srb.internal_status if srb is not None else self._ask("internal_status")

    @property
    def cdb(self) -> Any:
        srb = self._port.lent
        return srb.cdb if srb is not None else self._ask("cdb")

    @property
    def srb_extension(self) -> Any:
        srb = self._port.lent
        return srb.srb_extension if srb is not None and self._policy.has_extension else self._ask("srb_extension")

    @property
    def next_srb(self) -> Any:
        return self._ask("next_srb")

    # -- of requests that are no commands: seldom, and asked about each time ------------------------------------------

    @property
    def srb_power_flags(self) -> Any:
        return self._ask("srb_power_flags")

    @property
    def device_power_state(self) -> Any:
        return self._ask("device_power_state")

    @property
    def power_action(self) -> Any:
        return self._ask("power_action")

    @property
    def srb_pnp_flags(self) -> Any:
        return self._ask("srb_pnp_flags")

    @property
    def pnp_action(self) -> Any:
        return self._ask("pnp_action")

    @property
    def pnp_sub_function(self) -> Any:
        return self._ask("pnp_sub_function")

    @property
    def wmi_flags(self) -> Any:
        return self._ask("wmi_flags")

    @property
    def wmi_sub_function(self) -> Any:
        return self._ask("wmi_sub_function")

    @property
    def data_path(self) -> Any:
        return self._ask("data_path")

    # -- what are none --------------------------------------------------------------------------------------------

    @property
    def mdl(self) -> Any:
        return self._refuse("mdl")

    @property
    def completion(self) -> Any:
        return self._refuse("completion")

    @property
    def context(self) -> Any:
        return self._refuse("context")


# Past `__setattr__`: one is made for every request.
_set_port: Callable[[GuardedSrb, Request], None] = vars(GuardedSrb)["_port"].__set__
_set_policy: Callable[[GuardedSrb, GuardPolicy], None] = vars(GuardedSrb)["_policy"].__set__
