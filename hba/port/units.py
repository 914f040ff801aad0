"""Per logical unit: what the port keeps for each path:target:lun, whatever the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar

from hba.port.request import ISSUED, RequestOf

ALL = 0xFF  # LUN (and target, path) value that means "all" (OW-10, ER-15)


class PortUnit:
    """State of one logical unit at the port. Times are ns on the port's clock; None: not so."""

    __slots__ = (
        "active",
        "completed",
        "extension",
        "lock_owner",
        "locked_at",
        "lun",
        "path",
        "started",
        "target",
        "timeout_left",
    )

    def __init__(self, path: int, target: int, lun: int) -> None:
        self.path = path
        self.target = target
        self.lun = lun
        self.active: dict[RequestOf[Self], None] = {}  # what the miniport owns, oldest first
        self.timeout_left = -1  # ticks until the oldest active request is overdue (ER-09); -1: nothing outstanding
        self.locked_at: int | None = None
        self.lock_owner: Any = None
        self.extension: Any = None  # the miniport's logical unit extension
        self.started = 0
        self.completed = 0

    @property
    def name(self) -> str:
        return f"{self.path}:{self.target}:{self.lun}"


def unit_key(path: int, target: int, lun: int) -> int:
    return path << 16 | target << 8 | lun


U = TypeVar("U", bound=PortUnit)


def owned(units: Iterable[U], path: int, target: int = ALL, lun: int = ALL) -> list[RequestOf[U]]:
    """What the miniport owns at an address; ALL is the wildcard (ER-15)."""
    return [
        request
        for unit in units
        if path in (ALL, unit.path) and target in (ALL, unit.target) and lun in (ALL, unit.lun)
        for request in unit.active
        if request.state == ISSUED
    ]
