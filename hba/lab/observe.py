"""What the device saw: asked of the server's control socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hba.control.client import ControlClient


@dataclass
class Seen:
    """One adapter's view of an experiment."""

    name: str
    port_model: str
    commands: int
    bytes_read: int
    bytes_written: int
    interrupts: int
    findings: list[dict[str, Any]] = field(default_factory=list)  # the newest, in full
    counts: dict[str, int] = field(default_factory=dict)  # findings by rule
    severities: dict[str, int] = field(default_factory=dict)  # findings by severity
    everything: dict[str, Any] = field(default_factory=dict)  # `show.all`


def port_model(control: Path) -> str:
    """The port model of a running adapter."""
    with ControlClient(control) as client:
        return str(client.call("show.summary")["port"])


def look(control: Path) -> Seen:
    """Ask a running adapter."""
    with ControlClient(control) as client:
        everything = client.call("show.all")
    summary, units = everything["summary"], everything["luns"]
    return Seen(
        name=summary["name"],
        port_model=summary["port"],
        commands=everything["counters"]["adapter"]["requests"],
        bytes_read=sum(unit.get("read_bytes", 0) for unit in units),
        bytes_written=sum(unit.get("written_bytes", 0) for unit in units),
        interrupts=sum(everything["irq"]["sent"].values()),
        findings=everything["verifier"]["findings"],
        counts=everything["verifier"]["counts"],
        severities=everything["verifier"]["severities"],
        everything=everything,
    )
