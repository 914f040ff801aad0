"""What the client says with DEVICE_SET_IRQS, to the device: the library keeps it to itself.

It triggers interrupts (vfu_irq_trigger), so which vectors have an eventfd is told as wires that go through it. Masking
is the device's own, and a resample eventfd, which the library drops, is the device's too.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.device import Device
from hba.vfio_user.eventfds import is_eventfd
from hba.vfio_user.framing import close_fds
from hba.vfio_user.libvfio_user.binding import Context
from hba.vfio_user.libvfio_user.incoming import Incoming

_ERR = 3  # VFIO_PCI_ERR_IRQ_INDEX; this and those after it cannot be triggered through the library


class LibraryWire:
    """`device.Wire` to a vector's eventfd, which the library has."""

    __slots__ = ("_context", "_vector")

    def __init__(self, context: Context, vector: int) -> None:
        self._context = context
        self._vector = vector

    def trigger(self) -> None:
        self._context.trigger(self._vector)

    def close(self) -> None:
        pass  # the library closes it


class IrqRequest(NamedTuple):
    """A DEVICE_SET_IRQS that the library has yet to judge. `fds`: copies, ours."""

    asked: p.SetIrqs
    data: bytes
    fds: list[int]

    def close(self) -> None:
        close_fds(self.fds)

    def tell(self, device: Device, context: Context) -> None:
        """The library has taken it; the descriptors are gone afterwards. Raises `RequestError`."""
        asked = self.asked
        if not asked.flags & dev.IRQ_SET_ACTION_TRIGGER:
            device.set_irqs(asked.index, asked.flags, asked.start, asked.count, self.fds, self.data)
            return
        wires: list[dev.Wire | None] = [None] * asked.count
        for at, fd in enumerate(self.fds):
            # It shares its flags with the library's copy: a full one must not hold up whoever triggers it.
            os.set_blocking(fd, False)
            if asked.index < _ERR and is_eventfd(fd):
                wires[at] = LibraryWire(context, asked.start + at)
        self.close()
        if asked.flags & dev.IRQ_SET_DATA_EVENTFD:
            device.connect_irqs(asked.index, asked.start, wires)
        elif not asked.count:
            device.set_irqs(asked.index, asked.flags, asked.start, asked.count, [], b"")
        # else the library has triggered them itself


def read(incoming: Incoming, size: int) -> IrqRequest | None:
    """The request that comes next, of `size` bytes; None for one that is too short to be one."""
    message, fds = incoming.look(size)
    body = message[p.HEADER_SIZE :]
    if len(body) < p.SET_IRQS_BODY.size:
        close_fds(fds)
        return None
    return IrqRequest(p.SET_IRQS_BODY.decode(body), body[p.SET_IRQS_BODY.size :], fds)
