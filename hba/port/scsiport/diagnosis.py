"""Why something stands still, and the view for `hba show queues` (Q-03, Q-09, Q-11, SP-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.clock import MS, S
from hba.port.scsiport.status import ntstatus_name
from hba.port.scsiport.unit import FROZEN, LOCKED, ScsiPortRequest, ScsiPortUnit

if TYPE_CHECKING:
    from hba.port.scsiport.driver import ScsiPort


def stuck(port: ScsiPort) -> list[tuple[str, str, str]]:
    """(rule, what, message) for everything that has stood still for `stuck_after` seconds."""
    now = port.clock.now()
    limit = port.options.stuck_after * S
    found: list[tuple[str, str, str]] = []
    for unit in port.units.values():
        waiting = f"{len(unit.queue)} requests wait"
        if unit.holds & FROZEN and now - unit.frozen_at >= limit:
            found.append(
                (
                    "Q-09",
                    unit.name,
                    f"LU {unit.name} frozen since {unit.frozen_at / S:.3f} s by {unit.frozen_by}, never released; "
                    f"{waiting}",
                )
            )
        if unit.holds & LOCKED and unit.locked_at is not None and now - unit.locked_at >= limit:
            found.append(
                (
                    "Q-11",
                    unit.name,
                    f"LU {unit.name} locked since {unit.locked_at / S:.3f} s, never unlocked; {waiting}",
                )
            )
    silence = busy_seconds(port)
    if port.busy and silence * S >= limit and port.adapter_queue:
        request = port.busy_with
        name = f"#{request.number}" if request is not None else "the last request"
        found.append(
            (
                "SP-07",
                "adapter",
                f"no NextRequest since {name} was started {silence} s ago; {len(port.adapter_queue)} requests wait",
            )
        )
    return found


def busy_seconds(port: ScsiPort) -> int:
    """Whole seconds the slot has been BUSY."""
    request = port.busy_with
    return port.busy_age if request is not None and request.number == port.busy_seen else 0


def adapter_snapshot(port: ScsiPort) -> dict[str, object]:
    blocked = []
    if port.busy:
        blocked.append(f"BUSY: no NextRequest since {_name(port.busy_with)}")
    if port.disconnect_owner is not None:
        blocked.append(f"{_name(port.disconnect_owner)} holds the bus (DISABLE_DISCONNECT)")
    if port.hold.active:
        blocked.append(f"reset hold ({port.hold.why})")
    if port.gate & 8:
        blocked.append("no free tag")
    if port.interrupts_held:
        blocked.append("interrupts deferred")
    return {
        "state": "BUSY" if port.busy else "READY",
        "blocked": blocked,
        "queue": [request.number for request in port.adapter_queue],
        "free_tags": len(port.free_tags),
        "timer_armed": port.timer.armed,
        "map_buffers": port.mapped,
        "overlap": port.overlap,
    }


def unit_snapshot(port: ScsiPort, unit: ScsiPortUnit, now: int) -> dict[str, object]:
    return {
        "queued": [port.request_snapshot(request, now) for request in unit.queue],
        "blocked": unit.blocked(),
        "frozen": bool(unit.holds & FROZEN),
        "frozen_by": unit.frozen_by if unit.holds & FROZEN else "",
        "frozen_ms": (now - unit.frozen_at) // MS if unit.holds & FROZEN else None,
        "retrying": _name(unit.parked) if unit.parked is not None else "",
        "depth": unit.depth,
        "last_key": unit.queue.last_key,
    }


def outcome(request: ScsiPortRequest) -> str:
    """ER-16: what the I/O manager would see, for the trace."""
    return ntstatus_name(request.srb.srb_status)


def _name(request: ScsiPortRequest | None) -> str:
    return f"#{request.number}" if request is not None else "-"
