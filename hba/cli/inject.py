"""hba inject scsi|io-control|wmi|power|pnp|send|remove|machine|dump|rescan|tracing"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hba.cli import output
from hba.cli.adapters import adapter_option, connect, object_of, understood
from hba.cli.lun import ADDRESS
from hba.cli.views import inject as views
from hba.control.methods.inject import ACTIONS, CONTROLS, DUMP_MODES, MOST_DATA, PNP_ACTIONS, STATES, TAGS, WHOLES
from hba.srb import FLAG_NAMES
from hba.terminal.groups import SuggestingGroup

F = TypeVar("F", bound=Callable[..., Any])

MARGIN = 10.0  # s an adapter has for its answer beyond what it was told to wait


class HexBytes(click.ParamType[str]):
    """Bytes in hexadecimal, with or without blanks and colons between them."""

    name = "HEX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).replace(" ", "").replace(":", "")
        try:
            data = bytes.fromhex(text)
        except ValueError:
            self.fail(f"{value!r} is not hexadecimal: expected pairs of digits, such as 12000000ff00", param, ctx)
        if len(data) > MOST_DATA:
            self.fail(f"{len(data)} bytes; at most {MOST_DATA}", param, ctx)
        return data.hex()


class Whole32(click.ParamType[int]):
    """A number of 32 bits, decimal or with 0x."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = value if isinstance(value, int) else int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r} is no number: expected decimal, or 0x and hexadecimal", param, ctx)
        if not 0 <= number <= 0xFFFFFFFF:
            self.fail(f"{value!r} has more than 32 bits", param, ctx)
        return number


HEX = HexBytes()
NUMBER = Whole32()


class Seconds(click.FloatRange):
    """A number of seconds; "nan", which is within any range, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def wait_option(default: float) -> Callable[[F], F]:
    """--wait, with the default of its method."""
    return click.option(
        "--wait",
        type=Seconds(0, 600),
        default=default,
        show_default=True,
        help="Seconds for its end; after that the event `inject` tells it.",
    )


time_out_option = click.option(
    "--time-out", type=click.IntRange(1, 3600), default=10, show_default=True, help="TimeOutValue in seconds."
)
owner_option = click.option("--owner", metavar="NAME", default="", help="The driver that sends it, as owner of a lock.")
length_option = click.option(
    "--length", type=click.IntRange(0, MOST_DATA), default=0, help="Bytes that may come in; the buffer is that large."
)
data_option = click.option("--data", type=HEX, default="", help="Bytes to send.")


@click.group("inject", cls=SuggestingGroup, no_args_is_help=False)
def command() -> None:
    """Send to the port what a Windows machine sends, past the guest; the answer is how it ended.

    A UNIT is an address such as 0:1:0. Where it may be left out, the request is for the adapter.
    """


@command.command("scsi")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.argument("cdb", metavar="CDB", type=HEX)
@data_option
@length_option
@click.option("--tag", type=click.Choice([*TAGS, "none"]), default="simple", show_default=True, help="Queue action.")
@click.option("--sort-key", type=NUMBER, default=0, help="QueueSortKey.")
@click.option(
    "--flag",
    "flags",
    multiple=True,
    type=click.Choice(sorted(FLAG_NAMES.values()), case_sensitive=False),
    help="One more of SRB_FLAGS_*; may be repeated.",
)
@owner_option
@time_out_option
@wait_option(5.0)
@adapter_option
@output.json_option
def scsi(
    unit: tuple[int, int],
    cdb: str,
    data: str,
    length: int,
    tag: str,
    sort_key: int,
    flags: tuple[str, ...],
    owner: str,
    time_out: int,
    wait: float,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Send a SCSI command: its CDB in hexadecimal, 6 to 16 bytes."""
    if not 6 <= len(cdb) // 2 <= 16:
        raise click.UsageError(f"a CDB of {len(cdb) // 2} bytes; it has 6 to 16")
    if data and length:
        raise click.UsageError("--data and --length exclude each other: a command moves data one way")
    _send(
        adapter,
        as_json,
        wait,
        "inject.scsi",
        **_unit(unit),
        cdb=cdb,
        data=data,
        length=length,
        tag=None if tag == "none" else tag,
        sort_key=sort_key,
        flags=list(flags),
        owner=owner,
        time_out=time_out,
    )


@command.command("io-control")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--code", type=NUMBER, required=True, help="ControlCode of the SRB_IO_CONTROL.")
@click.option("--signature", default="", help="Its Signature, at most 8 characters.")
@data_option
@length_option
@time_out_option
@wait_option(5.0)
@adapter_option
@output.json_option
def io_control(
    unit: tuple[int, int],
    code: int,
    signature: str,
    data: str,
    length: int,
    time_out: int,
    wait: float,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Send IO_CONTROL, as IOCTL_SCSI_MINIPORT does."""
    if len(signature) > 8 or not all(" " <= character <= "~" for character in signature):
        raise click.UsageError(f"--signature {signature!r}: at most 8 characters of ASCII")
    params = {"code": code, "signature": signature, "data": data, "length": length, "time_out": time_out}
    _send(adapter, as_json, wait, "inject.io_control", **_unit(unit), **params)


@command.command("wmi")
@click.argument("unit", metavar="[UNIT]", type=ADDRESS, required=False)
@click.option("--minor", type=click.IntRange(0, 255), default=0, show_default=True, help="Minor code of the WMI IRP.")
@click.option("--data-path", type=NUMBER, default=0, help="DataPath.")
@data_option
@length_option
@time_out_option
@wait_option(5.0)
@adapter_option
@output.json_option
def wmi(
    unit: tuple[int, int] | None,
    minor: int,
    data_path: int,
    data: str,
    length: int,
    time_out: int,
    wait: float,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Send a WMI request, to a unit or to the adapter."""
    params = {"minor": minor, "data_path": data_path, "data": data, "length": length, "time_out": time_out}
    _send(adapter, as_json, wait, "inject.wmi", **_unit(unit), **params)


@command.command("power")
@click.argument("state", type=click.Choice(list(STATES)))
@click.argument("unit", metavar="[UNIT]", type=ADDRESS, required=False)
@click.option("--action", type=click.Choice(list(ACTIONS)), default="none", show_default=True, help="Power action.")
@click.option("--no-bypass", is_flag=True, help="Not past a locked queue.")
@owner_option
@wait_option(5.0)
@adapter_option
@output.json_option
def power(
    state: str,
    unit: tuple[int, int] | None,
    action: str,
    no_bypass: bool,
    owner: str,
    wait: float,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Send a POWER request, to a unit or to the adapter."""
    params = {"state": state, "action": action, "bypass": not no_bypass, "owner": owner}
    _send(adapter, as_json, wait, "inject.power", **_unit(unit), **params)


@command.command("pnp")
@click.argument("action", type=click.Choice(list(PNP_ACTIONS)))
@click.argument("unit", metavar="[UNIT]", type=ADDRESS, required=False)
@wait_option(5.0)
@adapter_option
@output.json_option
def pnp(action: str, unit: tuple[int, int] | None, wait: float, adapter: str | None, as_json: bool) -> None:
    """Send a PNP request, to a unit or to the adapter."""
    _send(adapter, as_json, wait, "inject.pnp", **_unit(unit), action=action)


_NAMES = [name.lower().replace("_", "-") for name in CONTROLS]


@command.command("send")
@click.argument("function", type=click.Choice(_NAMES))
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--no-bypass", is_flag=True, help="Without BYPASS_LOCKED_QUEUE: it waits behind a lock.")
@owner_option
@time_out_option
@wait_option(5.0)
@adapter_option
@output.json_option
def send(
    function: str,
    unit: tuple[int, int],
    no_bypass: bool,
    owner: str,
    time_out: int,
    wait: float,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Send a request that is no more than its FUNCTION: flush, shutdown, queue functions, resets."""
    name = function.upper().replace("-", "_")
    params = {"function": name, "bypass": not no_bypass, "owner": owner, "time_out": time_out}
    _send(adapter, as_json, wait, "inject.control", **_unit(unit), **params)


@command.command("remove")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--surprise", is_flag=True, help="Without a word before: surprise removal.")
@wait_option(5.0)
@adapter_option
@output.json_option
def remove(unit: tuple[int, int], surprise: bool, wait: float, adapter: str | None, as_json: bool) -> None:
    """Take a unit out, as the PnP manager does; `hba lun remove` takes its disk out of the target instead."""
    _sequence(adapter, as_json, wait, "inject.remove", **_unit(unit), surprise=surprise)


@command.command("machine")
@click.argument("what", type=click.Choice(WHOLES))
@wait_option(30.0)
@adapter_option
@output.json_option
def machine(what: str, wait: float, adapter: str | None, as_json: bool) -> None:
    """Have the machine sleep, resume or shut down; stop, start, rebalance or take out the adapter."""
    _sequence(adapter, as_json, wait, "inject.machine", what=what)


@command.command("dump")
@click.argument("unit", metavar="UNIT", type=ADDRESS)
@click.option("--mode", type=click.Choice(list(DUMP_MODES)), default="crash", show_default=True, help="DumpMode.")
@click.option("--lba", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="The first block.")
@click.option("--blocks", type=click.IntRange(1, 2048), default=8, show_default=True, help="How many; 1 MiB at most.")
@wait_option(30.0)
@adapter_option
@output.json_option
def dump(
    unit: tuple[int, int], mode: str, lba: int, blocks: int, wait: float, adapter: str | None, as_json: bool
) -> None:
    """Try the miniport's dump mode: a second one reads blocks of a disk, writes them as they were, reads them again.

    What the guest has under way meanwhile ends as by a bus reset.
    """
    _sequence(adapter, as_json, wait, "inject.dump", **_unit(unit), mode=mode, lba=lba, blocks=blocks)


@command.command("rescan")
@adapter_option
@output.json_option
def rescan(adapter: str | None, as_json: bool) -> None:
    """Look for units with INQUIRY and REPORT LUNS, as after BusChangeDetected."""
    with connect(adapter, MARGIN * 6) as client:
        found = client.call("inject.rescan")
        if as_json:
            output.print_json(object_of(client, found))
            return
        with understood(client):
            views.units(found)


@command.command("tracing")
@click.argument("state", type=click.Choice(["on", "off"]))
@adapter_option
@output.json_option
def tracing(state: str, adapter: str | None, as_json: bool) -> None:
    """Switch event tracing on or off for the miniport: hw_tracing_enabled."""
    with connect(adapter) as client:
        said = client.call("inject.tracing", enabled=state == "on")
        if as_json:
            output.print_json(object_of(client, said))
            return
        with understood(client):
            views.tracing(said)


def _unit(unit: tuple[int, int] | None) -> dict[str, int]:
    return {} if unit is None else {"target": unit[0], "lun": unit[1]}


def _send(adapter: str | None, as_json: bool, wait: float, method: str, **params: Any) -> None:
    _call(adapter, as_json, wait, method, views.request, params)


def _sequence(adapter: str | None, as_json: bool, wait: float, method: str, **params: Any) -> None:
    _call(adapter, as_json, wait, method, views.sequence, params)


def _call(
    adapter: str | None,
    as_json: bool,
    wait: float,
    method: str,
    show: Callable[[dict[str, Any]], None],
    params: dict[str, Any],
) -> None:
    with connect(adapter, wait + MARGIN) as client:
        answer = client.call(method, wait=wait, **params)
        if as_json:
            output.print_json(object_of(client, answer))
            return
        with understood(client):
            show(answer)
