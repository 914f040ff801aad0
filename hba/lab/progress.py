"""What the user sees while something slow happens: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import IO, Protocol

from rich.console import Console
from rich.text import Text  # not markup: a guest's own words may look like it

from hba.terminal import screen


class Step(Protocol):
    """One slow thing under way."""

    def update(self, detail: str) -> None:
        """Say what it is doing just now (one short line)."""


class Progress:
    """Shows steps on standard error, so that standard output stays the program's own."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        stream = stream or sys.stderr
        self._animated = screen.animated(stream)
        self._console = Console(file=stream, highlight=False, soft_wrap=True, force_terminal=self._animated)
        self._spinner = "dots" if screen.has_unicode(stream) else "line"

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Run a block as a named step ("booting the guest"); how it ended and its duration are printed at its end."""
        started = time.monotonic()
        outcome = "failed"
        try:
            if self._animated:
                with self._console.status(Text(title), spinner=self._spinner) as status:
                    yield _Spinner(title, status.update)
            else:
                self.say(f"{title} ...")
                yield _Lines(self)
            outcome = "done"
        except BaseException as error:
            if not isinstance(error, Exception):
                outcome = "interrupted"
                error.add_note(title)  # for whoever says what was interrupted
            raise
        finally:
            self.say(f"{title}: {outcome} ({time.monotonic() - started:.1f} s)")


class _Spinner:
    def __init__(self, title: str, show: object) -> None:
        self._title = title
        self._show = show

    def update(self, detail: str) -> None:
        if callable(self._show):
            self._show(Text(f"{self._title}: {detail[:100]}"))


class _Lines:
    """Where lines cannot be overwritten, one every few seconds is enough to see that it goes on."""

    _PAUSE = 5.0

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._next = 0.0

    def update(self, detail: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._PAUSE
            self._progress.say(f"  {detail}")
