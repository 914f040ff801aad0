"""hba lun ls|add|remove|eject|insert|resize|read-only"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import tomli

from hba.cli import output
from hba.cli.adapters import adapter_option, connect, object_of, understood
from hba.cli.views import luns
from hba.control.client import CallRefused, ControlClient
from hba.errors import ControlError
from hba.scsi.address import parse_unit
from hba.terminal.files import exists
from hba.terminal.groups import SuggestingGroup

F = TypeVar("F", bound=Callable[..., Any])


class UnitAddress(click.ParamType[tuple[int, int]]):
    """A unit as it is shown, `BUS:TARGET:LUN`, or shorter (`hba.scsi.address`)."""

    name = "[BUS:]TARGET[:LUN]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            return parse_unit(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS = UnitAddress()
OPENING = 60.0  # s; the adapter gives a store up that does not open, and says so, after half of it
CLOSING = 120.0  # s; a store is flushed before it is closed


def storage_options(command: F) -> F:
    """How a medium is given on the command line."""
    command = click.option("--read-only", is_flag=True, help="Open it read-only.")(command)
    command = click.option(
        "--storage", metavar="TOML", help='Any storage, as in the configuration: \'kind = "nbd", uri = "..."\'.'
    )(command)
    command = click.option("--size", metavar="SIZE", help="For --memory, or a --file to create: 64M, 1G, ...")(command)
    command = click.option("--memory", is_flag=True, help="Sparse memory of --size.")(command)
    return click.option("--file", "path", type=click.Path(path_type=Path), help="A raw file.")(command)


# What a store asks for in the words of a configuration, and how it is said here.
_OPTIONS = (
    ("give create = true and a size", "say --size to make it"),
    ("set read_only = true", "say --read-only"),
    ("with read_only = true", "with --read-only"),
    ('use kind = "host" for it', 'give it as --storage \'kind = "host", path = "..."\''),
)


def _in_options(message: str) -> str:
    for key, option in _OPTIONS:
        message = message.replace(key, option)
    return message


def storage_of(path: Path | None, memory: bool, size: str | None, storage: str | None, read_only: bool) -> Any:
    """The storage table that the options mean; None without any."""
    given = sum((path is not None, memory, storage is not None))
    if given > 1:
        raise click.UsageError("--file, --memory and --storage exclude each other")
    table: dict[str, Any]
    if storage is not None:
        try:
            table = tomli.loads(f"storage = {{ {storage} }}")["storage"]
        except tomli.TOMLDecodeError as error:
            raise click.UsageError(f"--storage is no inline table of TOML: {error}") from error
    elif path is not None:
        # The server may stand in another folder than we do.
        table = {"kind": "file", "path": str(path.absolute())}
        if size is not None:
            table |= {"size": size} if exists(path) else {"size": size, "create": True}
    elif memory:
        if size is None:
            raise click.UsageError("--memory needs --size")
        table = {"kind": "memory", "size": size}
    else:
        return None
    return table | {"read_only": True} if read_only else table


@click.group("lun", cls=SuggestingGroup, no_args_is_help=False)
def command() -> None:
    """List, add, remove and change the logical units of a running adapter."""


@command.command("ls")
@click.argument("adapter", required=False)
@output.json_option
def ls(adapter: str | None, as_json: bool) -> None:
    """List the units with their storage."""
    with connect(adapter) as client:
        value = client.call("lun.ls")
    if as_json:
        output.print_json({"units": value})
        return
    with understood(client):
        luns.brief(value)


@command.command("add")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--type", "kind", type=click.Choice(["disk", "cdrom", "enclosure"]), default="disk", show_default=True)
@storage_options
@click.option("--removable", is_flag=True, help="The medium can be ejected.")
@click.option(
    "--set", "options", metavar="TOML", multiple=True, help="Any key of [[adapter.lun]]: 'block_size = 4096'."
)
@adapter_option
@output.json_option
def add(
    unit: tuple[int, int],
    kind: str,
    path: Path | None,
    memory: bool,
    size: str | None,
    storage: str | None,
    read_only: bool,
    removable: bool,
    options: tuple[str, ...],
    adapter: str | None,
    as_json: bool,
) -> None:
    """Add the UNIT, such as 0:1:0; the guest is told, if its adapter has a way."""
    table: dict[str, Any] = {"type": kind, "target": unit[0], "lun": unit[1]}
    medium = storage_of(path, memory, size, storage, read_only)
    if medium is not None:
        table["storage"] = medium
    if removable:
        table["removable"] = True
    for option in options:
        try:
            table |= tomli.loads(option)
        except tomli.TOMLDecodeError as error:
            raise click.UsageError(f"--set {option!r} is no line of TOML: {error}") from error
    with connect(adapter, OPENING) as client:
        _change(client, as_json, "lun.add", unit=table)


@command.command("remove")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@adapter_option
@output.json_option
def remove(unit: tuple[int, int], adapter: str | None, as_json: bool) -> None:
    """Remove the unit; its requests end, its storage is flushed and closed."""
    with connect(adapter, CLOSING) as client:
        value = client.call("lun.remove", target=unit[0], lun=unit[1])
    if as_json:
        output.print_json(object_of(client, value))
        return
    with understood(client):
        luns.announcement(value)


@command.command("eject")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--force", is_flag=True, help="Also when the guest has locked the medium.")
@adapter_option
@output.json_option
def eject(unit: tuple[int, int], force: bool, adapter: str | None, as_json: bool) -> None:
    """Take the medium out of a removable unit."""
    with connect(adapter, CLOSING) as client:
        _change(client, as_json, "lun.eject", target=unit[0], lun=unit[1], force=force)


@command.command("insert")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@storage_options
@adapter_option
@output.json_option
def insert(
    unit: tuple[int, int],
    path: Path | None,
    memory: bool,
    size: str | None,
    storage: str | None,
    read_only: bool,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Put a medium into a removable unit that has none."""
    medium = storage_of(path, memory, size, storage, read_only)
    if medium is None:
        raise click.UsageError("say what to insert: --file, --memory or --storage")
    with connect(adapter, OPENING) as client:
        _change(client, as_json, "lun.insert", target=unit[0], lun=unit[1], storage=medium)


@command.command("resize")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.argument("size")
@adapter_option
@output.json_option
def resize(unit: tuple[int, int], size: str, adapter: str | None, as_json: bool) -> None:
    """Give the medium the SIZE (bytes, or 64M, 1G, ...); the guest is told by a unit attention."""
    with connect(adapter) as client:
        _change(client, as_json, "lun.resize", target=unit[0], lun=unit[1], size=size)


@command.command("read-only")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.argument("state", type=click.Choice(["on", "off"]), default="on")
@adapter_option
@output.json_option
def read_only_(unit: tuple[int, int], state: str, adapter: str | None, as_json: bool) -> None:
    """Write-protect the unit, or with `off` no longer."""
    with connect(adapter) as client:
        _change(client, as_json, "lun.read_only", target=unit[0], lun=unit[1], read_only=state == "on")


def _change(client: ControlClient, as_json: bool, method: str, **params: Any) -> None:
    """Have the adapter do something to a unit, and show what it is then."""
    try:
        unit = client.call(method, **params)
    except CallRefused as error:
        raise ControlError(_in_options(str(error))) from error
    if as_json:
        output.print_json(object_of(client, unit))
        return
    with understood(client):
        luns.brief([unit])
        luns.announcement(unit)
