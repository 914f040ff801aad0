"""hba trace"""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from hba.cli import output
from hba.cli.adapters import connect, understood
from hba.control.client import ControlClient
from hba.errors import ControlError


@click.command("trace")
@click.argument("adapter", required=False)
@click.option("--last", type=click.IntRange(min=1), help="Only the newest that many events.")
@output.json_option
def command(adapter: str | None, last: int | None, as_json: bool) -> None:
    """Print the recorded trace: every step of every request, in order. Needs `enabled = true` in [adapter.trace].

    Times are seconds on the adapter's clock; with --json nanoseconds, in an object a line.
    """
    with connect(adapter) as client:
        for time, kind, srb, detail in read(client, last):
            if as_json:
                output.print_json_line({"time": time, "kind": kind, "srb": srb, "detail": detail})
                continue
            with understood(client):
                number = f"#{srb}" if srb else ""
                output.say(f"{time / 1e9:.6f} {kind:24} {number:8} {output.text(detail) or ''}".rstrip())


Line = tuple[int, str, int, object]


class _Page(msgspec.Struct):
    """A reply of `trace.read`: events from number `start` on, and the number of the one after them."""

    start: int
    next: int
    recorded: int
    events: list[Line]


def read(client: ControlClient, last: int | None = None) -> Iterator[Line]:
    """All events recorded and kept until now, or the `last` ones; a page at a time."""
    page = _page(client, limit=1)
    end = page.recorded
    start = page.start if last is None else max(page.start, end - last)
    while start < end:
        page = _page(client, start=start)
        if page.next <= start:
            raise ControlError(
                f"the adapter at {client.path} says that its trace has more, and does not give it; use the hba that "
                "started it"
            )
        yield from page.events[: max(0, end - page.start)]
        start = page.next


def _page(client: ControlClient, **params: int) -> _Page:
    page = client.call("trace.read", **params)
    with understood(client):
        return msgspec.convert(page, _Page)
