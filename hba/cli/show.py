"""hba show [ADAPTER] [SUBJECT]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hba.cli import output
from hba.cli.adapters import connect, object_of, understood
from hba.cli.views import config, counters, dma, glance, irq, luns, queues, regs, verifier
from hba.runtime import control_sockets
from hba.terminal.suggest import did_you_mean, nearest

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
LISTS = {"luns": "units", "dma": "ranges"}  # what --json calls those that are lists: it prints objects
ALL = (*SUBJECTS, "all")


@click.command("show", epilog="Subjects: " + ", ".join(ALL) + ". Without one: everything at a glance.")
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
                output.print_json({LISTS[subject]: value} if subject in LISTS else object_of(client, value))
            else:
                with understood(client):
                    view(value)
            return
        value = client.call("show.all")
    if as_json:
        output.print_json(object_of(client, value))
        return
    with understood(client):
        if subject is None:
            glance.view(value)
            return
        for key, (_, view) in SUBJECTS.items():
            output.heading(key)
            view(value[key])


def _sort_out(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """A word that is a subject is one; the other is the adapter, whichever comes first."""
    if len(words) > 2:
        raise click.UsageError("there is at most an adapter and a subject")
    if len(words) == 2:
        first, second = words
        if second in ALL:
            return first, second
        if first in ALL:
            return second, first
        wrong = first if nearest(first, ALL) and not nearest(second, ALL) else second
        raise click.UsageError(f'there is no subject "{wrong}"{did_you_mean(wrong, ALL)}; subjects: {", ".join(ALL)}')
    if len(words) == 1:
        word = words[0]
        if word in ALL:
            return None, word
        if (meant := nearest(word, ALL)) and "/" not in word and not _known(word):
            raise click.UsageError(f'there is no subject and no adapter "{word}"; did you mean "{meant}"?')
        return word, None
    return None, None


def _known(word: str) -> bool:
    """Whether an adapter may be meant."""
    names = [socket.stem for socket in control_sockets()]
    return nearest(word, names) is not None
