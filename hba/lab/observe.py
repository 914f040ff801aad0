"""What the device saw: asked of the server's control socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hba.control.client import ControlClient
from hba.scsi.address import unit_name


@dataclass
class Seen:
    """One adapter's view of an experiment."""

    name: str
    port_model: str
    engine: str
    commands: int
    bytes_read: int
    bytes_written: int
    interrupts: int
    counts: dict[str, int] = field(default_factory=dict)  # findings by rule
    storage_errors: list[str] = field(default_factory=list)  # a line for each unit that has had any
    everything: dict[str, Any] = field(default_factory=dict)  # `show.all`


def model(control: Path) -> tuple[str, str]:
    """The type and the port model of a running adapter."""
    with ControlClient(control) as client:
        summary = client.call("show.summary")
    return str(summary["type"]), str(summary["port"])


def look(control: Path) -> Seen:
    """Ask a running adapter."""
    with ControlClient(control) as client:
        everything = client.call("show.all")
    summary, units = everything["summary"], everything["luns"]
    return Seen(
        name=summary["name"],
        port_model=summary["port"],
        engine=summary["engine"],
        commands=everything["counters"]["adapter"]["requests"],
        bytes_read=sum(unit.get("read_bytes", 0) for unit in units),
        bytes_written=sum(unit.get("written_bytes", 0) for unit in units),
        interrupts=sum(everything["irq"]["sent"].values()),
        counts=everything["verifier"]["counts"],
        storage_errors=[_storage_errors(unit) for unit in units if unit.get("storage_errors")],
        everything=everything,
    )


def _storage_errors(unit: dict[str, Any]) -> str:
    where = unit.get("storage") or {}
    name = where.get("path") or where.get("uri") or where.get("kind", "no medium")
    return (
        f"unit {unit_name(unit['target'], unit['lun'])} ({name}): storage errors: {unit['storage_errors']}, "
        f"the latest: {unit['latest_storage_error']}"
    )
