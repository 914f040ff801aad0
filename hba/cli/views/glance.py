"""`hba show` without a subject: what a storage engineer looks for first, on one screen."""

from __future__ import annotations

from typing import Any

from hba.cli.output import heading, pairs, size
from hba.cli.views import luns, queues, verifier
from hba.cli.views.dma import total


def view(value: dict[str, Any]) -> None:
    summary = value["summary"]
    regs = value["regs"]
    irq = value["irq"] or {}
    counters = value["counters"]
    heading(f"{summary['name']}: {summary['type']} on {summary['port']}, miniport {summary['miniport']}")
    memory = value["dma"]
    pairs(
        [
            ("client", _client(summary)),
            ("socket", summary["socket"]),
            ("process", f"pid {summary['pid']}, {size(counters['process'].get('VmRSS'))} resident"),
            ("pci", f"power {regs.get('power_state')}, bus master {'on' if regs.get('bus_master') else 'off'}"),
            ("interrupts", f"{irq.get('mode')}, {irq.get('signals')} signalled" if irq else None),
            ("dma", total(memory) if isinstance(memory, list) else None),
            ("verifier", verifier.totals(value["verifier"])),
        ]
    )
    heading("counters")
    pairs([(layer, _flat(counters.get(layer))) for layer in ("adapter", "port")])
    heading("queues")
    queues.view(value["queues"])
    heading("units")
    luns.brief(value["luns"])


def _client(summary: dict[str, Any]) -> str:
    """Who has the socket, which is taken from the moment of the connection on."""
    who = summary.get("client")
    if summary["connected"]:
        return f"connected, {who}" if who else "connected"
    return f"{who} has the socket and has not said what it is yet" if who else "none"


def _flat(value: Any) -> dict[str, Any]:
    """Counters that are not zero."""
    return {key: item for key, item in (value or {}).items() if item and key != "type" and not isinstance(item, dict)}
