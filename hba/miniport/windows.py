"""What the chip may reach by DMA right now: the check behind MB-13.

A port with a verifier opens a window when a miniport gets an SRB and closes it when the miniport completes it. The
chip asks before a command moves data, and again when a command ends that took longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.dma import HOST_MEMORY_BASE, DmaBuffer
from hba.miniport.seen import SeenSrb
from hba.scsi.task import DATA_IN, DATA_NONE, Task
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, Srb, is_srb

Report = Callable[[str, str, SeenSrb | None], None]  # (rule, message, srb)
Holder = Callable[[int, int], Srb | None]  # (bus address, bytes): whose SRB extension or sense buffer that is
Window = list[Any]  # the SRB, bytes moved for it so far, the command that moves them now


class DmaWindows:
    """Windows by the request's memory descriptor list, its SRB extension and sense buffer, plus fixed ones (uncached
    extension)."""

    def __init__(self, report: Report, holder: Holder) -> None:
        self._report = report
        self._holder = holder
        self.open_now: dict[DmaBuffer, Window] = {}
        # Segments of those by their bus address, as soon as a miniport makes lists of its own: what covers one, mostly.
        self._starts: dict[int, tuple[DmaBuffer, int]] | None = None
        self._fixed: list[tuple[int, int]] = []  # (first, last + 1)
        self._moving: dict[DmaBuffer, Task] = {}  # by commands that have no open window

    def open(self, srb: Srb) -> None:
        """The miniport gets the SRB."""
        mdl = srb.mdl
        if mdl is not None:
            self.open_now[mdl] = [srb, 0, None]
            if self._starts is not None:
                self._starts.update((address, (mdl, length)) for address, length in mdl.segments)

    def close(self, srb: Srb) -> None:
        """The miniport completed the SRB."""
        if self._moving:
            self._check_moving(srb)
        mdl = srb.mdl
        if mdl is None:
            return
        if self._starts is not None:
            for address, _ in mdl.segments:
                if address in self._starts and self._starts[address][0] is mdl:
                    del self._starts[address]
        window = self.open_now.pop(mdl, None)
        if window is not None and window[2] is not None:
            self._moving[mdl] = window[2]
            self._report("MB-13", "completed while the device still moves its data", srb)

    def _check_moving(self, srb: Srb) -> None:
        """Whether a command still moves data to or from the extension or sense buffer of an SRB that ends."""
        for data, task in self._moving.items():
            if task.owner is not None and any(
                address >= HOST_MEMORY_BASE and self._owner_of(address, length) is srb
                for address, length in data.segments
            ):
                self._report("MB-13", "completed while the device still uses its SRB extension or sense buffer", srb)

    def abandon(self) -> None:
        """The system has crashed: what its commands still move is not looked at any more."""
        self._moving.clear()
        for window in self.open_now.values():
            window[2] = None

    def add_fixed(self, first: int, length: int) -> None:
        self._fixed.append((first, first + length))

    def clear_fixed(self) -> None:
        self._fixed.clear()

    def transferred(self, srb: Srb) -> int:
        """Bytes the chip moved for this SRB so far (ST-13, OW-07)."""
        window = self.open_now.get(srb.mdl) if srb.mdl is not None else None
        return window[1] if window is not None else 0

    def begin(self, task: Task) -> None:
        """A command is being started."""
        data = task.data
        if data is not None and (direction := task.direction) != DATA_NONE:
            window = self.open_now.get(data)
            needed = SRB_FLAGS_DATA_IN if direction == DATA_IN else SRB_FLAGS_DATA_OUT
            if window is None or not window[0].srb_flags & needed:
                self._check(data, task, "command started")
            if window is not None:
                window[2] = task
            else:
                self._moving[data] = task

    def end(self, task: Task) -> None:
        """A command has ended, the chip moves nothing for it any more."""
        data = task.data
        if data is None:
            return
        window = self.open_now.get(data)
        if window is not None:
            if window[2] is not None:
                window[2] = None
                window[1] += task.transferred
        elif self._moving.pop(data, None) is not None and task.transferred and not self._inside(data):
            self._report("MB-13", "DMA went on after the request was completed", _srb_of(task))

    def _check(self, data: DmaBuffer, task: Task, when: str) -> None:
        window = self.open_now.get(data)
        srb = window[0] if window is not None else self._covering(data, task, when)
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

    def access(self, address: int, length: int, what: str) -> None:
        """The chip reads or writes a few bytes of its own accord (`what`): a command block, a completion."""
        if not self._fixed_covers(address, length) and self._owner_of(address, length) is None:
            self._report("MB-13", f"{what} at {address:#x}+{length:#x} is outside every request the miniport has", None)

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
            if address < HOST_MEMORY_BASE:  # an extension or sense buffer has no direction
                owner = found
        return owner

    def _owner_of(self, address: int, length: int) -> Srb | None:
        if address >= HOST_MEMORY_BASE:
            return self._holder(address, length)
        srb: Srb
        if self._starts is None:
            self._starts = {first: (mdl, size) for mdl in self.open_now for first, size in mdl.segments}
        start = self._starts.get(address)
        if start is not None and length <= start[1]:
            srb = self.open_now[start[0]][0]
            return srb
        for mdl, window in self.open_now.items():
            if _covers(mdl, address, length):
                srb = window[0]
                return srb
        return None


def _srb_of(task: Task) -> SeenSrb | None:
    """The request a command says it belongs to."""
    return task.owner if is_srb(task.owner) else None


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
