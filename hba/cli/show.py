"""hba show [ADAPTER] [SUBJECT]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import connect, understood
from hba.cli.views import config, counters, dma, glance, irq, luns, queues, regs, verifier

View = Callable[[Any], None]

# subject -> (method of the control protocol, how people see it)
SUBJECTS: dict[str, tuple[str, View]] = {
    "regs": ("show.regs", regs.view),
    "queues": ("show.queues", queues.view),
    "luns": ("show.luns", luns.view),
    "irq": ("show.irq", irq.view),
    "dma": ("show.dma", dma.view),
    "counters": ("show.counters", counters.view),
    "verifier": ("show.verifier", verifier.view),
    "config": ("show.config", config.view),
}


@click.command("show", epilog="Subjects: " + ", ".join([*SUBJECTS, "all"]) + ". Without one: everything at a glance.")
@click.argument("words", metavar="[ADAPTER] [SUBJECT]", nargs=-1)
@output.json_option
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Show the inside of a running adapter: registers, rings, queues and requests, units, interrupts, DMA, counters."""
    name, subject = _sort_out(words)
    with connect(name) as client:
        if subject in SUBJECTS:
            method, view = SUBJECTS[subject]
            value = client.call(method)
            if as_json:
                output.print_json(value)
            else:
                with understood(client):
                    view(value)
            return
        value = client.call("show.all")
    if as_json:
        output.print_json(value)
        return
    with understood(client):
        if subject is None:
            glance.view(value)
            return
        for key, (_, view) in SUBJECTS.items():
            output.heading(key)
            view(value[key])


def _sort_out(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """A word that is a subject is one; the other is the adapter."""
    subjects = [*SUBJECTS, "all"]
    if len(words) > 2:
        raise click.UsageError("At most an adapter and a subject.")
    if len(words) == 2:
        if words[1] not in subjects:
            raise click.UsageError(f"There is no subject {words[1]!r}; choose one of {', '.join(subjects)}.")
        return words[0], words[1]
    if len(words) == 1:
        return (None, words[0]) if words[0] in subjects else (words[0], None)
    return None, None
