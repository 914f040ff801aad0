"""hba serve CONFIG"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
from pathlib import Path

import click

from hba.config.load import load
from hba.config.model import AdapterConfig
from hba.errors import ConfigError
from hba.terminal.suggest import did_you_mean


@click.command("serve")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("-a", "--adapter", "names", metavar="NAME", multiple=True, help="Only this adapter; may be repeated.")
@click.option("--socket-path", type=click.Path(path_type=Path), help="Listen there instead (one adapter only).")
@click.option("--fd", type=click.IntRange(min=0), help="Use this open socket instead (one adapter only).")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON lines.")
@click.option("--print-capabilities", is_flag=True, help="Print what this vfio-user back end is, as JSON, and exit.")
def command(
    config: Path | None,
    names: tuple[str, ...],
    socket_path: Path | None,
    fd: int | None,
    as_json: bool,
    print_capabilities: bool,
) -> int:
    """Run the adapters of CONFIG, a process each, until SIGTERM or Ctrl-C. Never goes to the background.

    Prints a line for each adapter when it listens. One that fails says why and does not touch the others; one that dies
    (a signal, a defect) is started again, at most 5 times in 60 s, but not with --fd. The exit code at the end is that
    of the first that failed.
    """
    if print_capabilities:
        click.echo(json.dumps({"type": "scsi", "features": []}))
        return 0
    if config is None:
        raise click.UsageError("missing argument 'CONFIG'")
    if socket_path is not None and fd is not None:
        raise click.UsageError("--socket-path and --fd exclude each other")
    checked = load(config)
    adapters = _chosen(checked.adapters, names)
    if len(adapters) > 1 and (socket_path is not None or fd is not None):
        raise click.UsageError(f"{len(adapters)} adapters cannot share one socket: choose one with --adapter")
    if socket_path is not None:
        adapters[0].socket = str(socket_path.absolute())
    if fd is not None:
        adapters[0].socket = _name_of(fd)

    gc.disable()  # until the adapter runs: everything made meanwhile stays anyway, and we want to listen soon
    from hba.server.assemble import Assembler
    from hba.server.report import Report

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    report = Report(as_json)
    assemble = Assembler(fd, checked)
    if fd is not None:  # a connection cannot be made again, and a second owner would keep it open after our end
        from hba.server.process import serve

        return serve(adapters[0], checked.directory, report, assemble)
    from hba.server.supervisor import supervise

    return supervise(adapters, checked.directory, report, assemble)


def _name_of(fd: int) -> str:
    """The path of a socket that somebody else opened; empty for one that has none. What is no socket is told later."""
    try:
        with socket.socket(fileno=os.dup(fd)) as opened:
            name = opened.getsockname()
    except OSError:
        return ""
    return name if isinstance(name, str) else ""


def _chosen(adapters: tuple[AdapterConfig, ...], names: tuple[str, ...]) -> list[AdapterConfig]:
    known = {adapter.name: adapter for adapter in adapters}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"--adapter {name}: the configuration has no such adapter{hint}; it has {', '.join(known)}"
            )
    return [known[name] for name in names] if names else list(adapters)
