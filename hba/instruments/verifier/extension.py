"""The SRB extension a watched miniport gets: filled with poison, and looked at when used after completion (OW-08).

What the port lends is marked as unused with poison when it comes back; a byte that changed until it is lent again was
written by somebody who had no right to.
"""

from __future__ import annotations

from typing import Any

from hba.instruments.verifier.guard import Report
from hba.miniport.memory import SrbExtension
from hba.port.buffers import POISON
from hba.port.request import ISSUED, Request


class WatchedExtension(SrbExtension):
    """Stands for the one the port lends, for one request."""

    __slots__ = ("_bytes", "_report")

    def __init__(self, lent: SrbExtension, request: Request, report: Report) -> None:
        _set(self, "_bytes", lent.memory)
        _set(self, "_physical", lent._physical)
        _set(self, "_request", request)
        _set(self, "_report", report)

    def _check(self, how: str) -> None:
        if self._request.state != ISSUED:
            self._report("OW-08", f"the SRB extension was {how} after its request was completed", self._request)

    @property
    def memory(self) -> memoryview:  # type: ignore[override]
        self._check("used")
        view: memoryview = self._bytes
        return view

    def __len__(self) -> int:
        return len(self._bytes)

    def __getattr__(self, name: str) -> Any:
        self._check("read")
        raise AttributeError(f"the SRB extension has no attribute {name!r}: the port does not initialise it")

    def __setattr__(self, name: str, value: Any) -> None:
        self._check("written")
        _set(self, name, value)

    def ended(self) -> None:
        """The request is the port's again. What is asked for from now on comes to `__getattr__`."""
        self.__dict__.clear()

    def __repr__(self) -> str:
        return f"<SrbExtension of {len(self._bytes)} bytes>"


_set = object.__setattr__


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
