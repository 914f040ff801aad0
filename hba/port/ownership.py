"""Who owns an SRB: handing it to the miniport, taking it back, and the services that depend on it (OW-*, CF-04)."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Any

from hba.clock import Timer
from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.port import checks
from hba.port.buffers import MappedBuffer, OpaqueBuffer, physical_address
from hba.port.config import PortConfig
from hba.port.context import NO_CALLBACK
from hba.port.guard import GuardedSrb, GuardPolicy
from hba.port.memory import EXTENSION_BASE, SENSE_BASE, SENSE_SLOT, PortMemory
from hba.port.request import ISSUED, NOTIFIED, STATE_NAMES, Request
from hba.port.units import ALL, PortUnit
from hba.port.watch import PortWatch
from hba.srb import SRB_STATUS_QUEUE_FROZEN, Srb
from hba.trace.recorder import Recorder
from hba.verifier import Verifier


class Ownership(PortWatch):
    """Second part of `PortBase`."""

    def __init__(
        self,
        loop: EventLoop,
        miniport: Miniport,
        chip: Chip,
        config: PortConfig,
        verifier: Verifier | None,
        trace: Recorder | None,
    ) -> None:
        super().__init__(loop, miniport, chip, config, verifier, trace)
        self.info = PortConfigurationInformation()
        self.memory = PortMemory(chip)
        self.units: dict[int, PortUnit] = {}  # by hba.port.units.unit_key
        self.outstanding = 0  # what the miniport owns, all units
        self.finished: deque[Request] = deque()  # to go up in the next DPC
        self.running = False  # `PortBase.run` is on the stack
        self.dpc_pending = False
        self.tick_timer: Timer | None = None
        self.guard_policy: GuardPolicy | None = None

    @abstractmethod
    def run(self) -> None:
        """Act on what was latched."""

    @abstractmethod
    def arm_tick(self) -> None:
        """Something is outstanding: watch the time."""

    def issue(self, request: Request) -> Srb:
        """The miniport is about to get the request; what it gets as `srb`. Sets counters and the time-out (ER-09)."""
        unit = request.unit
        assert unit is not None
        srb = request.srb
        request.state = ISSUED
        request.length_at_issue = srb.data_transfer_length
        active = unit.active
        if not active:
            unit.timeout_left = srb.time_out_value or self.options.default_timeout
        active[request] = None
        unit.started += 1
        self.outstanding += 1
        if self.tick_timer is None:
            self.arm_tick()
        if self.verifier is None and self.trace is None:
            return srb
        request.issued_at = self.clock.now()
        if self.verifier is None:
            return srb
        request.sense_at_issue = srb.sense_info_buffer_length
        if self.chip.windows is not None:
            self.chip.windows.open(srb)
        assert self.guard_policy is not None
        guard = request.guard = GuardedSrb(request, self.guard_policy)
        return guard

    def request_of(self, srb: Any, rule: str = "OW-02") -> Request | None:
        """The live request behind what a miniport passed as `srb`; None (and a finding) when it is not its own."""
        request: Request | None
        if type(srb) is GuardedSrb:
            request = srb._request
        elif isinstance(srb, Srb):
            request = srb._port
        else:
            self.offence(rule, f"{srb!r} is no SRB")
            return None
        if request is None or request.state != ISSUED:
            state = "not the port's" if request is None else STATE_NAMES[request.state]
            self.count("double completions" if rule == "OW-02" else "stale SRBs")
            self.offence(rule, f"{self.doing()} an SRB the miniport does not own ({state})", request)
            return None
        return request

    def request_complete(self, srb: Any) -> None:
        """notification(RequestComplete, srb): the port owns it again; it goes up in the DPC."""
        request = srb._port if self.verifier is None and isinstance(srb, Srb) else self.request_of(srb)
        if request is None or request.state != ISSUED:
            if self.verifier is None:
                self.count("double completions")  # OW-02: ignored
            return
        if self.verifier is not None:
            checks.completion(self, request)
        elif request.srb.srb_status & SRB_STATUS_QUEUE_FROZEN:
            request.srb.srb_status &= ~SRB_STATUS_QUEUE_FROZEN  # the port's own bit
        request.state = NOTIFIED
        if type(request.guard) is GuardedSrb:
            request.guard.ended()
        self.finished.append(request)
        self.dpc_pending = True
        if self.callback == NO_CALLBACK and not self.running:
            self.run_later()

    def completed_in_place(self, guard: GuardedSrb, where: str) -> bool:
        """`request_complete` with the verifier and no trace, from a callback where it is allowed: the ordinary case at
        once. False: it is not that, nothing was done."""
        request = guard._request
        if request.state != ISSUED or request.history is None:
            return False
        request.history.append((self.clock.now(), "notification", where))
        checks.completion(self, request)
        request.state = NOTIFIED
        guard.ended()
        self.finished.append(request)
        self.dpc_pending = True
        return True

    def run_later(self) -> None:
        """Something was latched: if no callback is running that `run` follows, it comes on its own."""
        if self.callback == NO_CALLBACK and not self.running:
            self.loop.call_soon(self.run)

    def release(self, request: Request) -> bool:
        """Undo `issue`: the miniport has given the request back or lost it. Restarts the unit's time-out (ER-09).
        False: it was never issued, or is released already."""
        unit = request.unit
        if unit is None:
            return False
        active = unit.active
        if active.pop(request, self) is self:
            return False
        self.outstanding -= 1
        unit.completed += 1
        if active:
            oldest = next(iter(active)).srb
            unit.timeout_left = oldest.time_out_value or self.options.default_timeout
        else:
            unit.timeout_left = -1
        if self.chip.windows is not None:
            self.chip.windows.close(request.srb)
        return True

    def take_back(self, request: Request, srb_status: int) -> None:
        """The port ends a request the miniport owns (complete_request, lost at a reset, adapter reset)."""
        request.srb.srb_status = srb_status
        request.state = NOTIFIED
        if type(request.guard) is GuardedSrb:
            request.guard.ended()
        self.finished.append(request)
        self.dpc_pending = True

    def matching(self, path: int, target: int, lun: int) -> list[Request]:
        """What the miniport owns at an address; ALL is the wildcard (ER-15)."""
        return [
            request
            for unit in self.units.values()
            if path in (ALL, unit.path) and target in (ALL, unit.target) and lun in (ALL, unit.lun)
            for request in unit.active
            if request.state == ISSUED
        ]

    def get_physical_address(self, srb: Any, virtual_address: Any) -> tuple[int, int] | None:
        """CF-04, MB-12: an address is good if it lies in the data of a live SRB that is named, its extension, its
        sense buffer or the uncached extension."""
        if self.verifier is None and type(virtual_address) is OpaqueBuffer and not virtual_address.offset:
            mdl = virtual_address.request.srb.mdl
            if mdl is not None and mdl.segments:
                return mdl.segments[0]  # the start of the data, as most callers want it
        rule = "CF-04" if self.model == "scsiport" else "MB-12"
        request: Request | None
        if isinstance(virtual_address, (OpaqueBuffer, MappedBuffer)):
            request = virtual_address.request
            if self.verifier is not None:
                named = srb._request if type(srb) is GuardedSrb else getattr(srb, "_port", None)
                if named is not request or request.state != ISSUED:
                    self.offence(rule, "get_physical_address of a data buffer without its live SRB", request)
            mdl = request.srb.mdl
            found = physical_address(request, mdl, virtual_address.offset) if mdl is not None else None
            if found is None:
                self.offence(rule, f"get_physical_address beyond the data buffer ({virtual_address!r})", request)
            return found
        if isinstance(virtual_address, memoryview):
            found = self.memory.physical_address(virtual_address)
            if found is not None:
                return found
        elif srb is not None and virtual_address is not None:
            request = self.request_of(srb, rule)
            if request is not None:
                if virtual_address is request.srb.srb_extension:
                    size = max(1, self.info.srb_extension_size)
                    return EXTENSION_BASE + request.number * ((size + 15) & ~15), size
                if virtual_address is request.srb.sense_info_buffer:
                    return SENSE_BASE + request.number * SENSE_SLOT, request.srb.sense_info_buffer_length
        self.offence(rule, f"get_physical_address of {virtual_address!r}, which is no address the port gave out")
        return None

    def get_logical_unit(self, path_id: int, target_id: int, lun: int) -> Any:
        unit = self.units.get(path_id << 16 | target_id << 8 | lun)
        return unit.extension if unit is not None else None

    def log_error(self, srb: Any, path_id: int, target_id: int, lun: int, error_code: int, unique_id: int) -> None:
        """ER-02. OW-01: not with an SRB that was completed already."""
        self.count("errors logged")
        request = None
        if srb is not None:
            request = self.request_of(srb, "OW-01")
            if request is not None:
                request.logged = True
        if self.verifier is not None or self.trace is not None:
            self.note(request, "log_error", f"{path_id}:{target_id}:{lun} code {error_code:#06x} id {unique_id}")
