"""The scatter/gather list a watched miniport gets: read-only, and gone when its request completes (MB-11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from hba.dma import Segment
from hba.port.base import AnyPort
from hba.port.request import ISSUED, Request


class ScatterGatherList(Sequence[Segment]):
    """MB-11 with the verifier: read-only, and gone when the request completes."""

    __slots__ = ("_elements", "_port", "_request")

    def __init__(self, request: Request, elements: Sequence[Segment], port: AnyPort) -> None:
        self._elements = elements
        self._request = request
        self._port = port

    def _live(self) -> Sequence[Segment]:
        if self._request.state != ISSUED:
            self._port.offence("MB-11", "scatter/gather list used after its request was completed", self._request)
        return self._elements

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Segment]: ...
    def __getitem__(self, index: int | slice) -> Segment | Sequence[Segment]:
        return self._live()[index]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._live())

    def __len__(self) -> int:
        return len(self._live())

    def __eq__(self, other: object) -> bool:
        if other is self._elements and self._request.state == ISSUED:
            return True
        live = self._live()
        return list(live) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __setitem__(self, index: int | slice, value: object) -> None:
        self._port.offence("MB-11", "scatter/gather list written; it is read-only", self._request)

    def __repr__(self) -> str:
        return f"<ScatterGatherList of {len(self._elements)} elements>"
