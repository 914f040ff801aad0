"""hba events (and hba watch)"""

from __future__ import annotations

from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import connect, understood
from hba.control.events import TOPICS


@click.command("events")
@click.argument("adapter", required=False)
@click.option(
    "-t", "--topic", "topics", multiple=True, type=click.Choice(list(TOPICS)), help="Only this topic; may be repeated."
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after that many events.")
@output.json_option
def command(adapter: str | None, topics: tuple[str, ...], count: int | None, as_json: bool) -> None:
    """Print what happens in an adapter as it happens, until Ctrl-C: all topics but `trace`, or those named."""
    with connect(adapter) as client:
        client.call("events.subscribe", topics=list(topics))
        for number, event in enumerate(client.events(), 1):
            if as_json:
                output.print_json_line(event)
            else:
                with understood(client):
                    output.say(_line(event["event"], event["data"]))
            if number == count:
                return


def _line(topic: str, data: Any) -> str:
    if topic == "verifier":
        place = f" at {data['where']}" if data.get("where") else ""
        return f"{topic}  {data['severity']} {data['rule']}: {data['message']}{place}"
    if topic == "trace":
        srb = f" #{data['srb']}" if data.get("srb") else ""
        return f"{topic}  {data['time'] / 1e9:.6f} {data['kind']}{srb} {output.text(data.get('detail')) or ''}".rstrip()
    return f"{topic}  {output.text(data)}"
