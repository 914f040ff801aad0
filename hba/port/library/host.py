"""What the library asks of the port it belongs to. A family takes the smallest of these it can do with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from hba.clock import Clock
from hba.loop import EventLoop

T = TypeVar("T")


class Caller(Protocol):
    """Where the call comes from, and whom to tell of it."""

    @property
    def callback(self) -> int: ...
    @property
    def irql(self) -> int: ...

    def offence(self, rule: str, message: str, request: Any = None, severity: str | None = None) -> None:
        """A broken rule; at level strict it is raised here."""

    def count(self, what: str) -> None: ...
    def note(self, request: Any, what: str, detail: object = None) -> None:
        """For the trace, and the history of an SRB."""


class Host(Caller, Protocol):
    """A port that can also call the miniport."""

    clock: Clock
    loop: EventLoop
    started: bool
    running: bool

    def call(self, callback: int, irql: int, default: T, routine: Callable[..., T], *arguments: Any) -> T: ...
    def run(self) -> None: ...
