"""hba trace"""

from __future__ import annotations

import click

from hba.cli import output
from hba.cli.adapters import connect
from hba.control.client import ControlClient


@click.command("trace")
@click.argument("adapter", required=False)
@click.option("--last", type=click.IntRange(min=1), help="Only the newest that many events.")
@output.json_option
def command(adapter: str | None, last: int | None, as_json: bool) -> None:
    """Print the recorded trace: every step of every request, in order. Needs `enabled = true` in [adapter.trace].

    Times are seconds on the adapter's clock; with --json each line is [time in ns, kind, SRB number, detail].
    """
    with connect(adapter) as client:
        for time, kind, srb, detail in read(client, last):
            if as_json:
                output.print_json_line([time, kind, srb, detail])
            else:
                number = f"#{srb}" if srb else ""
                click.echo(f"{time / 1e9:.6f} {kind:24} {number:8} {output.text(detail) or ''}".rstrip())


Line = tuple[int, str, int, object]


def read(client: ControlClient, last: int | None = None) -> list[Line]:
    """All events recorded and kept until now, or the `last` ones."""
    page = client.call("trace.read", limit=1)
    end = page["recorded"]
    start = page["start"] if last is None else max(page["start"], end - last)
    lines: list[Line] = []
    while start < end:
        page = client.call("trace.read", start=start)
        lines += [(event[0], event[1], event[2], event[3]) for event in page["events"]]
        start = page["next"]
    return lines if last is None else lines[-last:]
