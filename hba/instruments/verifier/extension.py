"""The SRB extension a watched miniport gets: filled with poison, and looked at when used after completion (OW-08).

What the port lends is marked as unused with poison when it comes back; a byte that changed until it is lent again was
written by somebody who had no right to.
"""

from __future__ import annotations

from typing import Any

from hba.instruments.verifier.guard import Report
from hba.miniport.memory import SrbExtension
from hba.port.buffers import POISON
from hba.port.request import Request


class WatchedExtension(SrbExtension):
    """Stands for the one the port lends, for one request. While the miniport has that, nothing can be wrong with using
    it, and it costs what it costs without the verifier; then it becomes a `GoneExtension`."""

    __slots__ = ("_report",)

    def __init__(self, lent: SrbExtension, request: Request, report: Report) -> None:
        self.memory = lent.memory
        self._physical = lent._physical
        self._request = request
        self._report = report

    def ended(self) -> None:
        """The request is the port's again."""
        self.__dict__.clear()
        self.__class__ = GoneExtension


class GoneExtension(WatchedExtension):
    """Every use is a finding."""

    __slots__ = ()

    def _used(self, how: str) -> None:
        self._report("OW-08", f"the SRB extension was {how} after its request was completed", self._request)

    @property
    def memory(self) -> memoryview:  # type: ignore[override]
        self._used("used")
        view: memoryview = _memory(self, GoneExtension)
        return view

    def __getattr__(self, name: str) -> Any:
        self._used("read")
        raise AttributeError(f"the SRB extension has no attribute {name!r} any more: its request was completed")

    def __setattr__(self, name: str, value: Any) -> None:
        self._used("written")
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(_memory(self, GoneExtension))

    def __repr__(self) -> str:
        return "<SrbExtension of a request that was completed>"


_memory: Any = SrbExtension.__dict__["memory"].__get__


class ExtensionPoison:
    """Fills and compares. One port's. `used`: reports use by whoever runs; `late`: what nobody was seen doing."""

    def __init__(self, used: Report, late: Report, size: int) -> None:
        self._report = used
        self._late = late
        self._poison = bytes((POISON,)) * size
        self._last: dict[SrbExtension, Request] = {}  # who had those that are back

    def lend(self, lent: SrbExtension, request: Request) -> WatchedExtension:
        last = self._last.pop(lent, None)
        if last is None:
            lent.memory[:] = self._poison
        elif lent.memory != self._poison:
            self._late("OW-08", "the SRB extension was written after its request was completed", last)
            lent.memory[:] = self._poison
        return WatchedExtension(lent, request, self._report)

    def back(self, lent: SrbExtension, request: Request) -> None:
        lent.memory[:] = self._poison
        self._last[lent] = request
