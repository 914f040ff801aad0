"""Calls of the miniport that come on their own: timers, work items, state changes. Never inside another callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hba.port.context import NO_CALLBACK
from hba.port.library.host import Host


class LaterHost(Host, Protocol):
    """A port that knows at which IRQL it calls."""

    def irql_of(self, callback: int) -> int: ...


class Later:
    """Of one port."""

    def __init__(self, port: LaterHost) -> None:
        self._port = port

    def soon(self, callback: int, routine: Callable[..., object], *arguments: Any) -> None:
        """Call `routine` as `callback` when the loop comes around."""
        self._port.loop.call_soon(lambda: self.now(callback, routine, *arguments))

    def now(self, callback: int, routine: Callable[..., object], *arguments: Any) -> None:
        """Call `routine` as `callback`, as soon as none runs; not at all when the adapter has stopped by then."""
        port = self._port
        if port.running or port.callback != NO_CALLBACK:
            self.soon(callback, routine, *arguments)
        elif port.started:
            port.call(callback, port.irql_of(callback), None, routine, *arguments)
            port.run()
