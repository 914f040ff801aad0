"""A signal that ends us: what is under way is named, cleaned up, and the exit code says which signal it was."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

from hba.terminal.telling import as_object

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Raised in the main thread by a signal; everything is cleaned up on its way out.

    Steps that it passes through leave their names as its notes, the innermost first (`hba.lab.progress`).
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listen() -> None:
    """From here on, signals that end us are `Interrupted`."""
    for number in ENDING:
        signal.signal(number, _interrupt)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """The same for a while, in the main thread."""
    before = {number: signal.getsignal(number) for number in ENDING}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    # Cleaning up has begun and takes a few seconds at most; a second Ctrl-C must not leave half of it undone.
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def told(interrupted: Interrupted, as_json: bool = False) -> int:
    """Say what was interrupted, as JSON like any error; the exit code, 128 and the signal's number."""
    steps = getattr(interrupted, "__notes__", [])
    during = f" while {steps[0]}" if steps else ""
    name = signal.Signals(interrupted.number).name
    what = f"interrupted by {name}{during}; everything is cleaned up"
    code = 128 + interrupted.number
    click.echo(as_object(what, code) if as_json else what, err=True)
    return code
