"""Logical units and their storage."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, say, size, table
from hba.scsi.address import unit_name
from hba.scsi.names import RESERVATIONS, condition_name

STORAGE = ("storage", "backend", "medium")  # where a unit keeps what its back end says


def view(value: list[dict[str, Any]]) -> None:
    brief(value)
    for unit in value:
        rest = {key: item for key, item in unit.items() if key not in ("unit", "target", "lun")}
        if isinstance(rest.get("unit_attentions"), dict):
            rest["unit_attentions"] = {
                f"initiator {initiator}": [_named(condition) for condition in pending]
                for initiator, pending in rest["unit_attentions"].items()
            }
        if isinstance(rest.get("reservations"), dict):
            held = rest["reservations"]
            rest["reservations"] = {**held, "type": RESERVATIONS.get(held.get("type"), held.get("type"))}
        generic({f"{unit_name(unit['target'], unit['lun'])}": rest})


def _named(condition: str) -> str:
    """`062901` -> `POWER ON OCCURRED (062901)`."""
    name = condition_name(int(condition, 16))
    return f"{name} ({condition})" if name else condition


def brief(value: list[dict[str, Any]]) -> None:
    rows = []
    for unit in value:
        store = storage(unit)
        rows.append(
            (
                f"{unit_name(unit['target'], unit['lun'])}",
                unit.get("type"),
                " ".join(str(unit[key]).strip() for key in ("vendor", "product") if unit.get(key)),
                unit.get("serial"),
                size(store.get("size", unit.get("size"))),
                store.get("kind"),
                store.get("path") or store.get("uri"),
                "ro" if store.get("read_only") or unit.get("read_only") else "rw",
            )
        )
    table(("unit", "type", "identity", "serial", "size", "storage", "where", "access"), rows)
    for unit in value:
        if count := unit.get("storage_errors"):
            latest = unit["latest_storage_error"]
            say(f"unit {unit_name(unit['target'], unit['lun'])}: storage errors: {count}, the latest: {latest}")


def announcement(unit: dict[str, Any]) -> None:
    """Says so when the guest was not told of a unit that was added or removed."""
    told = unit.get("announcement") or {"state": "posted"}
    if told["state"] != "posted":
        yet = " yet" if told["state"] == "waiting" else ""
        say(f"unit {unit_name(unit['target'], unit['lun'])}: the guest was not told{yet}: {told['why']}")


def storage(unit: dict[str, Any]) -> dict[str, Any]:
    for key in STORAGE:
        if isinstance(unit.get(key), dict):
            found: dict[str, Any] = unit[key]
            return found
    return {}
