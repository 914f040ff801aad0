"""Registers where a write only says that something has happened, as events instead of messages.

A client that asks (vfio-user, `VFIO_USER_DEVICE_GET_REGION_IO_FDS`) gets an eventfd for each, which it can hand to KVM
as an ioeventfd: the guest's write then comes here without a way through the client, and the guest does not wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from hba.loop import EventLoop
from hba.pci.bars import Bar
from hba.pci.registers import Cell
from hba.vfio_user.device import IoEventFd


class Doorbells:
    """Those of one function. `rung(bar, cell)` is called for an event.

    Each client has its own: one that has left cannot ring for the next.
    """

    def __init__(self, loop: EventLoop, bars: Mapping[int, Bar], rung: Callable[[int, Cell], None]) -> None:
        self._loop = loop
        self._rung = rung
        self._cells = {
            index: [
                (start + register.offset, block.cell(register.name))
                for start, block in bar.blocks
                for register in block.registers
                if register.doorbell
            ]
            for index, bar in bars.items()
        }
        self._offered: dict[int, tuple[IoEventFd, ...]] = {}

    def of(self, index: int) -> tuple[IoEventFd, ...]:
        """The doorbells in a BAR, with an event for each."""
        offered = self._offered.get(index)
        if offered is None:
            offered = tuple(self._make(index, offset, cell) for offset, cell in self._cells.get(index, ()))
            self._offered[index] = offered
        return offered

    def _make(self, index: int, offset: int, cell: Cell) -> IoEventFd:
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop.add_reader(fd, partial(self._readable, fd, index, cell))
        return IoEventFd(offset, cell.size, fd)

    def _readable(self, fd: int, index: int, cell: Cell) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return  # the client has read it itself
        self._rung(index, cell)

    def forget(self) -> None:
        """The client has left."""
        for offered in self._offered.values():
            for doorbell in offered:
                self._loop.remove_reader(doorbell.fd)
                os.close(doorbell.fd)
        self._offered.clear()
