"""hba events (and hba watch)"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import connect, understood
from hba.cli.views import inject
from hba.control.client import Gone
from hba.control.events import TOPICS


@click.command("events")
@click.argument("adapter", required=False)
@click.option(
    "-t", "--topic", "topics", multiple=True, type=click.Choice(list(TOPICS)), help="Only this topic; may be repeated."
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after that many events.")
@output.json_option
def command(adapter: str | None, topics: tuple[str, ...], count: int | None, as_json: bool) -> None:
    """Print what happens in an adapter as it happens: all topics but `trace`, or those named.

    Until Ctrl-C, or until the adapter ends, which is no error unless --count asked for more. Times are this host's, of
    when the event arrived.
    """
    seen = 0
    with connect(adapter) as client:
        client.call("events.subscribe", topics=list(topics))
        try:
            for event in client.events():
                now = datetime.now().astimezone()
                if as_json:
                    stamp = now.isoformat(timespec="milliseconds")
                    output.print_json_line({"time": stamp, "adapter": client.adapter, **event})
                else:
                    with understood(client):
                        said = _line(event["event"], event["data"])
                    output.say(f"{now.time().isoformat('milliseconds')} {client.adapter} {said}")
                seen += 1
                if seen == count:
                    return
        except Gone:
            if count is not None:
                raise
            output.say(f"{client.adapter} has ended", err=True)


def _line(topic: str, data: Any) -> str:
    if topic == "verifier":
        place = f" at {data['where']}" if data.get("where") else ""
        return f"{topic}  {data['severity']} {data['rule']}: {data['message']}{place}"
    if topic == "trace":
        srb = f" #{data['srb']}" if data.get("srb") else ""
        return f"{topic}  {data['time'] / 1e9:.6f} {data['kind']}{srb} {output.text(data.get('detail')) or ''}".rstrip()
    if topic == "inject":
        return f"{topic}  {inject.in_a_line(data)}"
    if "unit" in data:
        data = {key: item for key, item in data.items() if key not in ("target", "lun")}  # the unit's name has them
    return f"{topic}  {output.text(data)}"
