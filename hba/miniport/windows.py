"""What the chip may reach by DMA right now: the check behind MB-13.

A port with a verifier opens a window when a miniport gets an SRB and closes it when the miniport completes it. The
chip asks before a command moves data, and again when a command ends that took longer.
"""

from __future__ import annotations

from collections.abc import Callable

from hba.dma import DmaBuffer
from hba.scsi.task import DATA_IN, DATA_NONE, Task
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, Srb

Report = Callable[[str, str, Srb | None], None]  # (rule, message, srb)


class DmaWindows:
    """Windows by the request's memory descriptor list, plus fixed ones (uncached extension, SRB extensions)."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: dict[DmaBuffer, Srb] = {}
        self._fixed: list[tuple[int, int]] = []  # (first, last + 1)
        self._moving: dict[DmaBuffer, Task] = {}
        self.moved: dict[DmaBuffer, int] = {}  # bytes moved per open window, for ST-13 and OW-07

    def open(self, srb: Srb) -> None:
        """The miniport gets the SRB."""
        if srb.mdl is not None:
            self._open[srb.mdl] = srb
            self.moved[srb.mdl] = 0

    def close(self, srb: Srb) -> None:
        """The miniport completed the SRB."""
        mdl = srb.mdl
        if mdl is None or self._open.pop(mdl, None) is None:
            return
        self.moved.pop(mdl, None)
        if mdl in self._moving:
            self._report("MB-13", "completed while the device still moves its data", srb)

    def add_fixed(self, first: int, length: int) -> None:
        self._fixed.append((first, first + length))

    def clear_fixed(self) -> None:
        self._fixed.clear()

    def transferred(self, srb: Srb) -> int:
        """Bytes the chip moved for this SRB so far."""
        return self.moved.get(srb.mdl, 0) if srb.mdl is not None else 0

    def begin(self, task: Task) -> None:
        """A command is being started."""
        data = task.data
        if data is not None and task.direction != DATA_NONE:
            srb = self._open.get(data)
            needed = SRB_FLAGS_DATA_IN if task.direction == DATA_IN else SRB_FLAGS_DATA_OUT
            if srb is None or not srb.srb_flags & needed:
                self._check(data, task, "command started")
            self._moving[data] = task

    def end(self, task: Task) -> None:
        """A command has ended, the chip moves nothing for it any more."""
        data = task.data
        if data is None or self._moving.pop(data, None) is None:
            return
        if data in self.moved:
            self.moved[data] += task.transferred
        elif task.transferred and data not in self._open and not self._inside(data):
            self._report("MB-13", "DMA went on after the request was completed", _srb_of(task))

    def _check(self, data: DmaBuffer, task: Task, when: str) -> None:
        srb = self._open.get(data)
        if srb is None:
            srb = self._covering(data, task, when)
            if srb is None:
                return
        needed = SRB_FLAGS_DATA_IN if task.direction == DATA_IN else SRB_FLAGS_DATA_OUT
        if not srb.srb_flags & needed:
            way = "to" if task.direction == DATA_IN else "from"
            self._report("MB-13", f"{when}: DMA {way} the data buffer against the direction in srb_flags", srb)

    def _inside(self, data: DmaBuffer) -> bool:
        return all(
            self._fixed_covers(address, length) or self._owner_of(address, length) for address, length in data.segments
        )

    def _fixed_covers(self, address: int, length: int) -> bool:
        return any(first <= address and address + length <= end for first, end in self._fixed)

    def _covering(self, data: DmaBuffer, task: Task, when: str) -> Srb | None:
        """The SRB whose window holds all segments of a list the miniport made itself; reports when there is none."""
        owner: Srb | None = None
        for address, length in data.segments:
            if length == 0:
                continue
            if self._fixed_covers(address, length):
                continue
            found = self._owner_of(address, length)
            if found is None:
                self._report(
                    "MB-13",
                    f"{when}: DMA at {address:#x}+{length:#x} is outside every request the miniport has",
                    _srb_of(task),
                )
                return None
            owner = found
        return owner

    def _owner_of(self, address: int, length: int) -> Srb | None:
        for mdl, srb in self._open.items():
            if _covers(mdl, address, length):
                return srb
        return None


def _srb_of(task: Task) -> Srb | None:
    """The request a command says it belongs to."""
    return task.owner if isinstance(task.owner, Srb) else None


def _covers(mdl: DmaBuffer, address: int, length: int) -> bool:
    """Whether consecutive segments of `mdl` hold [address, address + length)."""
    for first, size in mdl.segments:
        if first <= address < first + size:
            taken = min(length, first + size - address)
            address += taken
            length -= taken
            if length == 0:
                return True
    return False
