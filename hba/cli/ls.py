"""hba ls"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import running, understood
from hba.control.client import NobodyThere
from hba.errors import ControlError, SocketError
from hba.runtime import runtime_dir
from hba.vfio_user.server import remove_stale


@click.command("ls")
@click.option("--clean", is_flag=True, help="Remove the sockets of adapters that have ended without doing so.")
@output.json_option
def command(clean: bool, as_json: bool) -> None:
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
                dead.append((client.path, error))
    removed = [path for path, error in dead if clean and isinstance(error, NobodyThere) and _remove(path)]
    dead = [(path, error) for path, error in dead if path not in removed]
    if as_json:
        silent = [{"control": str(path), "why": str(why)} for path, why in dead]
        output.print_json({"adapters": summaries, "silent": silent, "removed": [str(path) for path in removed]})
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
    for path in removed:
        output.say(f"removed: {path}")
    if any(isinstance(error, NobodyThere) for _, error in dead):
        output.say("--clean removes the sockets of adapters that have ended", err=True)


def _remove(control: Path) -> bool:
    """Remove what an adapter left, its vfio-user socket beside the control socket included; False when it lives."""
    try:
        remove_stale(control)
    except (OSError, SocketError):
        return False
    with suppress(OSError, SocketError):
        remove_stale(control.with_suffix(".sock"))
    return True


def client(summary: dict[str, Any]) -> str:
    """Who has the adapter's socket: `pid 4711 (qemu-system-x86)`, "-" for nobody."""
    return str(summary.get("client") or ("connected" if summary["connected"] else "-"))


def _row(summary: dict[str, Any]) -> tuple[object, ...]:
    return (
        summary["name"],
        summary["type"],
        summary["port"],
        summary["miniport"],
        summary["pid"],
        client(summary),
        summary["luns"],
        summary["violations"],
        summary["socket"],
    )
