"""hba ls"""

from __future__ import annotations

import click

from hba.cli import output
from hba.cli.adapters import running
from hba.errors import ControlError
from hba.runtime import runtime_dir


@click.command("ls")
@output.json_option
def command(as_json: bool) -> None:
    """List the adapters that run, and the control sockets that do not answer."""
    clients, dead = running()
    rows = []
    for client in clients:
        with client:
            try:
                rows.append(client.call("show.summary"))
            except ControlError as error:
                dead.append((client.path, str(error)))
    if as_json:
        output.print_json({"adapters": rows, "silent": [{"control": str(path), "why": why} for path, why in dead]})
        return
    if not rows and not dead:
        click.echo(f"no adapter runs ({runtime_dir()} has none)")
    output.table(
        ("name", "type", "port", "miniport", "pid", "client", "units", "violations", "socket"),
        [
            (
                row["name"],
                row["type"],
                row["port"],
                row["miniport"],
                row["pid"],
                "connected" if row["connected"] else "-",
                row["luns"],
                row["violations"],
                row["socket"],
            )
            for row in rows
        ],
        indent=0,
    )
    for path, why in dead:
        click.echo(f"silent: {path}: {why}", err=True)
