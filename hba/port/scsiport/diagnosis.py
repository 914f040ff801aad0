"""Why something stands still, and the view for `hba show queues` (Q-03, Q-09, Q-11, SP-07)."""

from __future__ import annotations

from hba.clock import MS, S
from hba.port.request import SrbState, snapshot
from hba.port.scsiport.slot import HOLD, NO_TAG, Slot
from hba.port.scsiport.status import ntstatus_name
from hba.port.scsiport.unit import FROZEN, ScsiPortRequest, ScsiPortUnit


def stuck(slot: Slot) -> list[tuple[str, str, str]]:
    """(rule, what, message) for everything that has stood still for `stuck_after` seconds."""
    now = slot.clock.now()
    limit = slot.options.stuck_after * S
    found: list[tuple[str, str, str]] = []
    for unit in slot.units.values():
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
        if unit.locked_at is not None and now - unit.locked_at >= limit:
            found.append(
                (
                    "Q-11",
                    unit.name,
                    f"LU {unit.name} locked since {unit.locked_at / S:.3f} s, never unlocked; {waiting}",
                )
            )
    silence = busy_seconds(slot)
    if slot.busy and silence * S >= limit and slot.queue:
        request = slot.busy_with
        name = f"#{request.number}" if request is not None else "the last request"
        found.append(
            (
                "SP-07",
                "adapter",
                f"no NextRequest since {name} was started {silence} s ago; {len(slot.queue)} requests wait",
            )
        )
    return found


def busy_seconds(slot: Slot) -> int:
    """Whole seconds the slot has been BUSY."""
    request = slot.busy_with
    return slot.busy_age if request is not None and request.number == slot.busy_seen else 0


def adapter_snapshot(slot: Slot, interrupts_held: bool) -> dict[str, object]:
    blocked = []
    if slot.busy:
        blocked.append(f"BUSY: no NextRequest since {_name(slot.busy_with)}")
    if slot.disconnect_owner is not None:
        blocked.append(f"{_name(slot.disconnect_owner)} holds the bus (DISABLE_DISCONNECT)")
    if slot.gate & HOLD:
        blocked.append(f"reset hold ({slot.hold_why})")
    if slot.gate & NO_TAG:
        blocked.append("no free tag")
    if interrupts_held:
        blocked.append("interrupts deferred")
    return {
        "state": "BUSY" if slot.busy else "READY",
        "blocked": blocked,
        "queue": [request.number for request in slot.queue],
        "free_tags": len(slot.free_tags),
        "map_buffers": slot.mapped,
        "overlap": slot.overlap,
    }


def unit_snapshot(unit: ScsiPortUnit, now: int) -> dict[str, object]:
    return {
        "timeout_left": _timeout_left(unit),
        "queued": [snapshot(request, now) for request in unit.queue],
        "blocked": unit.blocked(),
        "frozen": bool(unit.holds & FROZEN),
        "frozen_by": unit.frozen_by if unit.holds & FROZEN else "",
        "frozen_ms": (now - unit.frozen_at) // MS if unit.holds & FROZEN else None,
        "retrying": _name(unit.parked) if unit.parked is not None else "",
        "depth": unit.depth,
        "last_key": unit.queue.last_key,
    }


def _timeout_left(unit: ScsiPortUnit) -> int:
    """Seconds until the oldest request is overdue; the tick counts how old it is (ER-09)."""
    oldest = next(iter(unit.active), None)
    if oldest is None or oldest.number != unit.oldest:
        return unit.timeout_left  # no tick has seen it
    left = unit.timeout_left - unit.age
    return left if left > 0 else -1


def outcome(state: SrbState) -> str:
    """ER-16: what the I/O manager would see, for the trace."""
    return ntstatus_name(state[6])


def _name(request: ScsiPortRequest | None) -> str:
    return f"#{request.number}" if request is not None else "-"
