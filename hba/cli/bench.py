"""hba bench [ADAPTER|CONFIG]"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from hba import compiled
from hba.adapters.registry import ADAPTERS
from hba.adapters.types import AdapterType
from hba.cli import output
from hba.cli.adapters import connect, understood
from hba.cli.lun import ADDRESS
from hba.cli.views.luns import storage
from hba.control.client import ControlClient
from hba.errors import EXIT_OK, ControlError
from hba.lab.accelerator import VARIABLE, Wanted
from hba.scsi.address import unit_name
from hba.terminal import screen
from hba.terminal.files import is_file
from hba.visible import visible


class _Summary(msgspec.Struct):
    """What a benchmark takes from an adapter's word."""

    name: str
    type: str
    port: str
    miniport: str | None
    socket: str | None
    pid: int
    connected: bool
    compiled: bool
    client: str | None = None


@click.command("bench")
@click.argument("what", metavar="[ADAPTER|CONFIG]", required=False)
@click.option(
    "--type", "kind", type=click.Choice(ADAPTERS.names), default=ADAPTERS.default.name, show_default=True,
    help="Of the adapter that is started for it.",
)  # fmt: skip
@click.option("--port", type=click.Choice(["storport", "scsiport"]), default="storport", show_default=True)
@click.option("--verifier", type=click.Choice(["off", "report"]), help="Default: off; with --guest, report.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True, help="MiB of the temporary disk.")
@click.option("--unit", type=ADDRESS, default="0:0:0", show_default=True, help="The unit to measure.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Of each side and case."
)
@click.option("--writes", is_flag=True, help="Write cases too; they destroy what is on the unit.")
@click.option("--ports", is_flag=True, help="What the port models and the verifier cost, in this process; no server.")
@click.option("--levels", is_flag=True, help="Both port models: no instruments, verifier, trace; with peers.")
@click.option("--guest", is_flag=True, help="Boot a guest: fio on our adapter and on QEMU's own, in turns.")
@click.option("--rounds", type=click.IntRange(min=5), default=5, show_default=True, help="With --guest and --levels.")
@click.option(
    "--accel",
    type=click.Choice(get_args(Wanted)),
    default="auto",
    show_default=True,
    envvar=VARIABLE,
    show_envvar=True,
    help="With --guest: KVM, or emulation.",
)
@output.json_option
def command(
    what: str | None,
    kind: str,
    port: str,
    verifier: str | None,
    size: int,
    unit: tuple[int, int],
    seconds: float,
    writes: bool,
    ports: bool,
    levels: bool,
    guest: bool,
    rounds: int,
    accel: Wanted,
    as_json: bool,
) -> int:
    """Measure commands per second, bandwidth, latency, memory and CPU, beside a plain os.preadv loop on the same file.

    Without an argument, an adapter is started with a temporary disk (--type, --port, --verifier, --size are for that
    one), and the write cases run too. CONFIG (a file) is started likewise; ADAPTER runs already and must have no
    client.

    With --levels, adapters of both port models without instruments, with the verifier and with the trace take turns.
    Their peers: an echo of messages, the preadv and pwritev loop, and they themselves with one unit and one map.

    With --guest, a Linux guest has our adapter (as the first of CONFIG, if given, but with a disk of the benchmark's
    own) and QEMU's own model of it, and runs fio on both.
    """
    from hba.lab import interruption

    if ports and what is not None:
        raise click.UsageError("--ports measures in this process: it takes no ADAPTER or CONFIG")
    if levels and what is not None:
        raise click.UsageError("--levels starts adapters of its own: it takes no ADAPTER or CONFIG")
    with interruption.listening():
        try:
            if ports:
                _ports(ADAPTERS[kind], as_json)
            elif levels:
                _levels(kind, size << 20, seconds, rounds, as_json)
            elif guest:
                _guest(what, kind, port, verifier, size << 20, seconds, rounds, accel, as_json)
            else:
                _adapter(what, kind, port, verifier, size, unit, seconds, writes, as_json)
        except interruption.Interrupted as interrupted:
            if screen.animated(sys.stderr):
                click.echo("\r\033[K", nl=False, err=True)
            interrupted.add_note("measuring")
            return interruption.told(interrupted, as_json)
    return EXIT_OK


def _adapter(
    what: str | None,
    kind: str,
    port: str,
    verifier: str | None,
    size: int,
    unit: tuple[int, int],
    seconds: float,
    writes: bool,
    as_json: bool,
) -> None:
    from hba.bench import measure, own_server

    started: Any = None
    with ExitStack() as stack:
        if what is None or is_file(what):
            config = None if what is None else Path(what)
            started = stack.enter_context(
                own_server.start(config, kind=kind, port=port, verifier=verifier or "off", size=size << 20)
            )
            client = ControlClient(started.control)
            writes = writes or config is None
        else:
            client = connect(what)
        stack.enter_context(client)
        answer = client.call("show.summary")
        with understood(client):
            summary = msgspec.convert(answer, _Summary)
        if summary.connected:
            who = f", {summary.client}" if summary.client else ""
            raise ControlError(
                f"adapter {summary.name} has a client{who}; a benchmark needs it alone: end that one first"
            )
        if summary.socket is None:
            raise ControlError(f"adapter {summary.name} serves a descriptor without a name: a benchmark cannot connect")
        if summary.type not in ADAPTERS.names:
            raise ControlError(
                f"adapter {summary.name} says that it is a {summary.type}, which this program has no driver for; "
                "measure with the version of hba that serves it"
            )
        result = measure.measure(
            ADAPTERS[summary.type].bench_driver,
            summary.socket,
            summary.pid,
            _file_of(client, unit),
            [*measure.CASES, *(measure.WRITING_CASES if writes else ())],
            target=unit[0],
            lun=unit[1],
            seconds=seconds,
            progress=_progress,
        )
        findings = client.call("show.verifier")
        with understood(client):
            level = str(findings["level"])
    report = {
        "adapter": summary.name,
        "type": summary.type,
        "port": summary.port,
        "miniport": summary.miniport,
        "verifier": level,
        "compiled": summary.compiled,
        "listen_s": None if started is None else started.listen_seconds,
        **result,
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report)


def _ports(kind: AdapterType[Any], as_json: bool) -> None:
    from hba.bench import ports

    cases = ports.measure(kind, progress=_progress)
    if as_json:
        output.print_json(
            {
                "compiled": compiled.in_use(),
                "port_share_limit": ports.PORT_SHARE,
                "report_ratio_limit": ports.REPORT_RATIO,
                "cases": cases,
            }
        )
        return
    if screen.animated(sys.stderr):
        click.echo("\r\033[K", nl=False, err=True)
    way = "compiled" if compiled.in_use() else "not compiled"
    output.heading(f"4 KiB reads through {kind.title}, port ({way}), DMA miniport and disk: CPU µs per command")
    output.table(
        ("port", "per kick", "no port", "off", "report", "trace", "port/command", "report/off", "trace/off"),
        [
            (
                case["model"],
                case["depth"],
                *(f"{case['cpu_us'][kind]:.1f}" for kind in ports.KINDS),
                *(f"{case[ratio]:.2f}" for ratio in ("port_share", "report_ratio", "trace_ratio")),
            )
            for case in cases
        ],
    )
    click.echo(
        f"  port/command: share of the port with the verifier off, at most {ports.PORT_SHARE:.2f}; "
        f"report/off: at most {ports.REPORT_RATIO:.0f}"
    )


def _levels(kind: str, size: int, seconds: float, rounds: int, as_json: bool) -> None:
    from hba.bench import levels

    rows = levels.measure(kind, size=size, seconds=seconds, rounds=rounds, progress=_progress)
    if as_json:
        output.print_json({"type": kind, "compiled": compiled.in_use(), "rows": rows})
        return
    if screen.animated(sys.stderr):
        click.echo("\r\033[K", nl=False, err=True)
    way = "compiled" if compiled.in_use() else "not compiled"
    output.heading(f"{kind}, {way}; a client that kicks for a batch or for each, and hears by interrupts")
    output.table(
        (
            "port", "instruments", "32: cpu µs", "to off", "each: cpu µs", "to off", "1: p50 µs", "to echo",
            "512 KiB reads", "writes", "many",
        ),
        [
            (
                row["port"],
                row["level"],
                f"{row['cpu_us_batch']:.1f}",
                f"{row['cpu_ratio_batch']:.2f}",
                f"{row['cpu_us_each']:.1f}",
                f"{row['cpu_ratio_each']:.2f}",
                f"{row['p50_us']:.0f}",
                f"{row['echo_ratio']:.1f}",
                f"{row['large_reads_ratio']:.2f}",
                f"{row['large_writes_ratio']:.2f}",
                f"{row['many_ratio']:.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip
    click.echo(
        "  32, each: the server's CPU for a 4 KiB read, 32 outstanding, one kick for those that come together or for "
        "each; 1: median latency,\n  to that of an echo; 512 KiB: rate to that of the loop; many: rate with 64 units, "
        "500 outstanding and 1,000 DMA maps, to one unit and map"
    )


def _guest(
    what: str | None,
    kind: str,
    port: str,
    verifier: str | None,
    size: int,
    seconds: float,
    rounds: int,
    accel: Wanted,
    as_json: bool,
) -> None:
    from hba.bench import guest

    if what is not None and not is_file(what):
        raise click.UsageError(f"--guest starts an adapter of its own: {what} is no configuration file")
    adapter: dict[str, Any] = {"type": kind, "port": port} if what is None else guest.adapter_of(Path(what))
    if verifier is not None:
        adapter["verifier"] = {"level": verifier}
    report = guest.measure(
        adapter=adapter, size=size, rounds=rounds, seconds=seconds, accelerator=accel, progress=_progress
    )
    if as_json:
        output.print_json(report)
        return
    if screen.animated(sys.stderr):
        click.echo("\r\033[K", nl=False, err=True)
    output.heading(
        f"fio in Linux {report['kernel']} ({report['accelerator']}, processors: {report['cpus']}): "
        f"our {report['type']} on {report['port']}, verifier {report['verifier']}, {_way(report)}, and QEMU's own; "
        f"{rounds} rounds of {seconds:g} s"
    )
    output.table(
        ("case", "commands/s", "QEMU's/s", "ratio", "kicks", "interrupts", "server µs", "QEMU %", "QEMU's own %"),
        [
            (
                case["name"],
                f"{case['adapter']['commands_per_s']:.0f}",
                f"{case['qemu']['commands_per_s']:.0f}",
                f"{case['ratio']:.2f}",
                f"{case['adapter']['kicks_per_command']:.3f}",
                f"{case['adapter']['interrupts_per_command']:.3f}",
                f"{case['adapter']['server_cpu_us_per_command']:.0f}",
                f"{case['adapter']['qemu_cpu_percent']:.0f}",
                f"{case['qemu']['qemu_cpu_percent']:.0f}",
            )
            for case in report["cases"]
        ],
    )
    click.echo(
        "  ratio: our rate to that of QEMU's own device; kicks, interrupts, server µs (CPU): per command of ours; "
        "QEMU %: of a processor, fio's start included"
    )


def _file_of(client: ControlClient, unit: tuple[int, int]) -> Path | None:
    """The file behind the unit, to run the loop on."""
    units = client.call("lun.ls")
    with understood(client):
        for found in units:
            if (found["target"], found["lun"]) == unit:
                store = storage(found)
                return Path(store["path"]) if store.get("kind") == "file" else None
    raise ControlError(f"the adapter has no unit {unit_name(*unit)}; `hba lun ls` shows those it has")


def _way(report: dict[str, Any]) -> str:
    return "compiled" if report["compiled"] else "not compiled"


def _progress(text: str) -> None:
    if screen.animated(sys.stderr):
        click.echo(f"\r\033[K{visible(text)}", nl=False, err=True)


def _print(report: dict[str, Any]) -> None:
    if screen.animated(sys.stderr):
        click.echo("\r\033[K", nl=False, err=True)
    output.heading(
        f"{report['adapter']}: {report['type']} on {report['port']}, verifier {report['verifier']}, {_way(report)}"
    )
    output.table(
        ("case", "commands/s", "MB/s", "loop/s", "ratio", "cpu µs", "loop µs", "p50 µs", "p99 µs", "max µs"),
        [
            (
                case["name"],
                f"{case['adapter']['commands_per_s']:.0f}",
                f"{case['adapter']['mb_per_s']:.0f}",
                f"{case['loop']['commands_per_s']:.0f}" if case["loop"] else None,
                f"{case['ratio']:.2f}" if case["loop"] else None,
                f"{case['adapter']['cpu_us_per_command']:.1f}",
                f"{case['loop']['cpu_us_per_command']:.1f}" if case["loop"] else None,
                *(f"{case['adapter']['latency_us'][key]:.0f}" for key in ("p50", "p99", "max")),
            )
            for case in report["cases"]
        ],
    )
    memory = report["memory"]
    output.pairs(
        [
            ("memory", f"{output.size(memory['uss'])} own, {output.size(memory['pss'])} with its share of libraries"),
            ("idle", f"{report['idle_cpu_percent']:.1f} % of a CPU"),
            ("listened", None if report["listen_s"] is None else f"{report['listen_s']:.2f} s after its start"),
        ]
    )
    click.echo(
        "  ratio: the adapter's rate to the loop's; cpu: of the server's process; memory without the guest's own"
    )
