"""hba ls"""

from __future__ import annotations

from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import running, understood
from hba.errors import ControlError
from hba.runtime import runtime_dir


@click.command("ls")
@output.json_option
def command(as_json: bool) -> None:
    """List the adapters that run, and the control sockets that do not answer."""
    clients, dead = running()
    summaries: list[Any] = []
    rows: list[tuple[object, ...]] = []
    for client in clients:
        with client:
            try:
                summary = client.call("show.summary")
                with understood(client):
                    rows.append(_row(summary))
                summaries.append(summary)
            except ControlError as error:
                dead.append((client.path, str(error)))
    if as_json:
        output.print_json({"adapters": summaries, "silent": [{"control": str(path), "why": why} for path, why in dead]})
        return
    if not rows and not dead:
        output.say(f"no adapter runs ({runtime_dir()} has none)")
    output.table(
        ("name", "type", "port", "miniport", "pid", "client", "units", "violations", "socket"),
        rows,
        indent=0,
    )
    for path, why in dead:
        output.say(f"silent: {path}: {why}", err=True)


def _row(summary: dict[str, Any]) -> tuple[object, ...]:
    return (
        summary["name"],
        summary["type"],
        summary["port"],
        summary["miniport"],
        summary["pid"],
        "connected" if summary["connected"] else "-",
        summary["luns"],
        summary["violations"],
        summary["socket"],
    )
