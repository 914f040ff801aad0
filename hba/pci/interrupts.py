"""Interrupts of one function: INTx, MSI and MSI-X towards the client.

The adapter says what happened, `signal(vector)` for an event and `set_line(asserted)` for the level of INTA#, and does
not care which of them is in use: config space decides (`configure`), the others are ignored. SET_IRQS from the client
says where each interrupt goes (VFIO_DEVICE_SET_IRQS in linux/vfio.h, VFIO_USER_DEVICE_SET_IRQS in the vfio-user
protocol specification).

- Each vector ends in a `Wire`: an eventfd the client sent, or what the engine has instead (`connect`).
- A message vector that is masked, or has no wire yet, or may not be sent because bus mastering is off, is remembered
  as pending, shown in the MSI-X pending bit array, and sent when the reason goes away.
- INTx is automasked: after each trigger it waits for UNMASK and triggers again if the line is still asserted.
- ERR and REQ accept an eventfd; only `report_error` and `request_release` fire them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from hba.loop import EventLoop
from hba.native import mypyc_attr
from hba.pci.state import InterruptState
from hba.vfio_user.device import (
    IRQ_AUTOMASKED,
    IRQ_EVENTFD,
    IRQ_MASKABLE,
    IRQ_NORESIZE,
    IRQ_SET_ACTION_MASK,
    IRQ_SET_ACTION_TRIGGER,
    IRQ_SET_ACTION_UNMASK,
    IRQ_SET_DATA_BOOL,
    IRQ_SET_DATA_EVENTFD,
    IRQ_SET_DATA_NONE,
    IrqInfo,
    RequestError,
    Wire,
)
from hba.vfio_user.eventfds import is_eventfd

# Interrupt indexes of vfio-pci (linux/vfio.h)
INTX, MSI, MSIX, ERR, REQ = range(5)
NUM_IRQS: Final = 5
NAMES = ("intx", "msi", "msix", "err", "req")

_DATA: Final = IRQ_SET_DATA_NONE | IRQ_SET_DATA_BOOL | IRQ_SET_DATA_EVENTFD
_ACTION: Final = IRQ_SET_ACTION_MASK | IRQ_SET_ACTION_UNMASK | IRQ_SET_ACTION_TRIGGER


@mypyc_attr(allow_interpreted_subclasses=True)
class InterruptWatcher:
    """Watches what the adapter does with its interrupts, and does nothing."""

    def signalled(self, vector: int) -> None:
        """It sends a message; where INTx is in use, that is not sent."""

    def line(self, asserted: bool) -> None:
        """It drives INTA#, perhaps as before."""


class Eventfd:
    """A `Wire` to an eventfd of the client, which is ours."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def trigger(self) -> None:
        os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


class _Index:
    """One interrupt index: its vectors' wires, which of them are masked, which have something to tell."""

    __slots__ = ("count", "flags", "masked", "name", "pending", "wires")

    def __init__(self, name: str, count: int, flags: int) -> None:
        self.name = name
        self.count = count
        self.flags = flags if count else 0
        self.wires: list[Wire | None] = [None] * count
        self.masked = 0  # bit per vector
        self.pending = 0


class Interrupts:
    """`msi_vectors`, `msix_vectors`: how many the capabilities offer; 0 without the capability."""

    def __init__(self, loop: EventLoop, msi_vectors: int = 1, msix_vectors: int = 0, intx: bool = True) -> None:
        self._loop = loop
        message = IRQ_EVENTFD | IRQ_MASKABLE
        self._indexes = (
            _Index("intx", int(intx), IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED),
            _Index("msi", msi_vectors, message),
            _Index("msix", msix_vectors, message),
            _Index("err", 1, IRQ_EVENTFD | IRQ_NORESIZE),
            _Index("req", 1, IRQ_EVENTFD | IRQ_NORESIZE),
        )
        self._intx = self._indexes[INTX]
        self._watched: dict[tuple[int, int, int], int] = {}  # (index, vector, MASK or UNMASK) -> eventfd
        self._mode = "intx" if intx else "none"
        self._blocked = False
        self._allocated = 1
        self._message: _Index | None = None  # the message index in use
        self._live: list[Wire | None] = []  # its wire by vector where one may be triggered now
        self.asserted = False  # the level of INTA#
        self.watchers: tuple[InterruptWatcher, ...] = ()
        self.on_line: Callable[[bool], None] | None = None  # told when that changes
        self.signals = 0  # asked for by the adapter
        self.sent = dict.fromkeys(NAMES, 0)
        self.held = 0  # became pending
        self.ignored = 0  # events while no message interrupt is in use
        self.failed = 0  # wires that could not be triggered

    # -- for the adapter --------------------------------------------------------------------------------------

    @property
    def mode(self) -> str:
        """What delivers interrupts now: "msix", "msi", "intx" or "none"."""
        return self._mode

    def signal(self, vector: int = 0) -> None:
        """An event on message vector `vector`. Does nothing while INTx is in use (that follows `set_line`)."""
        self.signals += 1
        for watcher in self.watchers:
            watcher.signalled(vector)
        if vector < len(self._live) and (wire := self._live[vector]) is not None:
            try:
                wire.trigger()
                self.sent[self._mode] += 1
            except OSError:
                self.failed += 1  # full: the client has not looked at 2**64 - 2 interrupts, one more tells it nothing
            return
        self._hold(vector)

    def set_line(self, asserted: bool) -> None:
        """The level the device drives INTA# with. Reaches the client only while INTx is in use."""
        for watcher in self.watchers:
            watcher.line(asserted)
        if asserted == self.asserted:
            return
        self.asserted = asserted
        if self.on_line is not None:
            self.on_line(asserted)
        if asserted:
            self._update_intx()

    def report_error(self) -> bool:
        """Fire ERR: QEMU answers an unrecoverable error by stopping the machine. False: no client listens."""
        return self._write(ERR, 0)

    def request_release(self) -> bool:
        """Fire REQ: ask the client to give the device back (QEMU unplugs it). False: no client listens."""
        return self._write(REQ, 0)

    def pending_bits(self, first: int, count: int = 64) -> int:
        """MSI-X pending bits of vectors [first, first + count), as the pending bit array shows them."""
        return self._indexes[MSIX].pending >> first & ((1 << count) - 1)

    # -- from config space ------------------------------------------------------------------------------------

    def configure(self, mode: str, *, blocked: bool = False, allocated: int = 1) -> None:
        """Which mechanism is in use. `blocked`: it may not be sent now (MSI-X function mask, bus mastering off, the
        function is stopped). `allocated`: MSI vectors software granted; a higher vector is sent as its remainder."""
        if mode != self._mode:
            for index in (MSI, MSIX):
                if NAMES[index] != mode:
                    self._indexes[index].pending = 0
        self._mode = mode
        self._blocked = blocked
        self._allocated = max(1, allocated)
        self._message = self._indexes[NAMES.index(mode)] if mode in ("msi", "msix") else None
        self._refresh()
        self._update_intx()

    def reset(self) -> None:
        """The device was reset: line low, nothing pending. The client's eventfds and masks stay, as with a real one."""
        for index in self._indexes:
            index.pending = 0
        self.set_line(False)

    def save(self) -> InterruptState:
        """What the device has signalled and nobody has been told yet. Masks and eventfds are the client's."""
        pending = {NAMES[index]: self._indexes[index].pending for index in (MSI, MSIX)}
        return InterruptState(line=self.asserted, pending=pending)

    def check_saved(self, state: InterruptState) -> None:
        """Raises ValueError unless the vectors are those of this function."""
        for index in (MSI, MSIX):
            where = self._indexes[index]
            if not 0 <= state.pending.get(where.name, 0) < 1 << where.count:
                raise ValueError(f"interrupts: a vector of {where.name} is pending; this function has {where.count}")

    def restore(self, state: InterruptState) -> None:
        """Take over what `check_saved` found good, while nothing is sent."""
        for index in (MSI, MSIX):
            self._indexes[index].pending = state.pending.get(NAMES[index], 0)
        self.asserted = state.line
        if self.on_line is not None:
            self.on_line(state.line)

    # -- from the client --------------------------------------------------------------------------------------

    def info(self, index: int) -> IrqInfo:
        """Raises `RequestError(EINVAL)` for an index that does not exist."""
        if not 0 <= index < NUM_IRQS:
            raise RequestError(errno.EINVAL, f"interrupt index {index} does not exist")
        return IrqInfo(self._indexes[index].count, self._indexes[index].flags)

    def set_irqs(self, index: int, flags: int, start: int, count: int, fds: list[int], data: bytes) -> None:
        """VFIO_USER_DEVICE_SET_IRQS. Owns `fds`, also when it raises.

        Raises `RequestError`: EINVAL for what makes no sense, ENOTTY for masking an index that cannot be masked.
        """
        try:
            self._check(index, flags, start, count, fds, data)
        except RequestError:
            _close_all(fds)
            raise
        if flags & IRQ_SET_ACTION_TRIGGER:
            if flags & IRQ_SET_DATA_EVENTFD:
                self._connect(index, start, [Eventfd(fd) for fd in fds] if fds else [None] * count)
            elif count == 0:
                self._disable(index)
            else:
                for vector in _selected(flags, start, count, data):
                    self._write(index, vector)  # loopback: the client tests its own wiring
            return
        action = flags & _ACTION
        if flags & IRQ_SET_DATA_EVENTFD:
            self._watch(index, action, start, count, fds)
            return
        for vector in _selected(flags, start, count, data):
            self._set_mask(index, vector, action)

    def connect(self, index: int, start: int, wires: Sequence[Wire | None]) -> None:
        """`Device.connect_irqs`. Raises `RequestError(EINVAL)` for vectors there are not."""
        if start < 0 or start + len(wires) > self.info(index).count:
            _close_wires(wires)
            raise RequestError(errno.EINVAL, f"{NAMES[index]} has no interrupts {start} to {start + len(wires) - 1}")
        self._connect(index, start, wires)

    def disconnect(self) -> None:
        """The client left: close all of its wires. What is pending stays, and reaches the next client."""
        for index in range(NUM_IRQS):
            pending = self._indexes[index].pending
            self._disable(index)
            self._indexes[index].pending = pending

    def _check(self, index: int, flags: int, start: int, count: int, fds: list[int], data: bytes) -> None:
        available = self.info(index).count
        kind, action = flags & _DATA, flags & _ACTION
        if flags & ~(_DATA | _ACTION) or kind.bit_count() != 1 or action.bit_count() != 1:
            raise RequestError(errno.EINVAL, f"SET_IRQS flags 0x{flags:x} are not one kind of data and one action")
        if start < 0 or count < 0 or start + count > available:
            raise RequestError(
                errno.EINVAL, f"{NAMES[index]} has {available} interrupts, not number {start} to {start + count - 1}"
            )
        if count == 0 and (kind != IRQ_SET_DATA_NONE or action != IRQ_SET_ACTION_TRIGGER):
            raise RequestError(errno.EINVAL, "SET_IRQS without a vector only disables an index (NONE, TRIGGER)")
        if kind == IRQ_SET_DATA_BOOL and len(data) < count:
            raise RequestError(errno.EINVAL, f"SET_IRQS of {count} vectors with {len(data)} bytes of data")
        if fds and kind != IRQ_SET_DATA_EVENTFD:
            raise RequestError(errno.EINVAL, "file descriptors, but the data is not said to be eventfds")
        if kind == IRQ_SET_DATA_EVENTFD and len(fds) not in (0, count):
            raise RequestError(errno.EINVAL, f"{len(fds)} eventfds for {count} vectors")
        if action != IRQ_SET_ACTION_TRIGGER and index in (ERR, REQ):
            raise RequestError(errno.ENOTTY, f"{NAMES[index]} cannot be masked")
        for fd in fds:
            if not is_eventfd(fd):
                raise RequestError(errno.EINVAL, "a file descriptor that is not an eventfd")

    def _connect(self, index: int, start: int, wires: Sequence[Wire | None]) -> None:
        where = self._indexes[index]
        enabled = any(where.wires)
        for vector, wire in enumerate(wires, start):
            old, where.wires[vector] = where.wires[vector], wire
            if old is not None:
                old.close()
        if index == INTX:
            if not enabled:
                where.masked = 0  # INTx starts unmasked
            self._update_intx()
        self._refresh()

    def _disable(self, index: int) -> None:
        where = self._indexes[index]
        for key in [key for key in self._watched if key[0] == index]:
            self._unwatch(key)
        _close_wires(where.wires)
        where.wires = [None] * where.count
        where.masked = 0
        where.pending = 0
        self._refresh()

    def _set_mask(self, index: int, vector: int, action: int) -> None:
        where = self._indexes[index]
        if action == IRQ_SET_ACTION_MASK:
            where.masked |= 1 << vector
        else:
            where.masked &= ~(1 << vector)
        if index == INTX:
            self._update_intx()
        else:
            self._refresh()

    def _watch(self, index: int, action: int, start: int, count: int, fds: list[int]) -> None:
        """MASK or UNMASK whenever an eventfd fires: the resample eventfd of INTx under KVM."""
        for vector in range(start, start + count):
            key = (index, vector, action)
            self._unwatch(key)
            if fds:
                fd = fds[vector - start]
                os.set_blocking(fd, False)
                self._watched[key] = fd
                self._loop.add_reader(fd, partial(self._fired, key, fd))

    def _unwatch(self, key: tuple[int, int, int]) -> None:
        fd = self._watched.pop(key, None)
        if fd is not None:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _fired(self, key: tuple[int, int, int], fd: int) -> None:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return  # somebody else read it first
        self._set_mask(*key)

    # -- delivery ---------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Work out which vectors can be sent now, and send those that waited for it."""
        where = self._message
        if where is None:
            self._live = []
            return
        granted = min(self._allocated, where.count) if where is self._indexes[MSI] else where.count
        open_ = [
            None if self._blocked or where.masked >> vector & 1 else wire for vector, wire in enumerate(where.wires)
        ]
        self._live = [open_[vector % granted] for vector in range(where.count)]
        waiting = where.pending
        vector = 0
        while waiting:
            if waiting & 1 and self._live[vector] is not None:
                where.pending &= ~(1 << vector)
                self._write(MSI if where is self._indexes[MSI] else MSIX, vector % granted)
            waiting >>= 1
            vector += 1

    def _hold(self, vector: int) -> None:
        """Remember an event that cannot be sent now."""
        where = self._message
        if where is None or not 0 <= vector < where.count:
            self.ignored += 1
            return
        self.held += 1
        where.pending |= 1 << vector

    def _update_intx(self) -> None:
        """Trigger INTx if the line is asserted and nothing stands in the way; then it is masked until UNMASK."""
        where = self._intx
        open_ = not (self._blocked or where.masked)
        if self.asserted and self._mode == "intx" and open_ and where.wires[0] is not None:
            where.masked = 1
            self._write(INTX, 0)

    def _write(self, index: int, vector: int) -> bool:
        wire = self._indexes[index].wires[vector]
        if wire is None:
            return False
        try:
            wire.trigger()
        except OSError:
            self.failed += 1
            return False
        self.sent[NAMES[index]] += 1
        return True

    def snapshot(self) -> dict[str, object]:
        """For `hba show interrupts`; JSON-able."""
        return {
            "mode": self._mode,
            "blocked": self._blocked,
            "line": self.asserted,
            "signals": self.signals,
            "sent": dict(self.sent),
            "held": self.held,
            "ignored": self.ignored,
            "failed": self.failed,
            "indexes": [
                {
                    "index": number,
                    "name": where.name,
                    "vectors": where.count,
                    "connected": [vector for vector, wire in enumerate(where.wires) if wire is not None],
                    "masked": [vector for vector in range(where.count) if where.masked >> vector & 1],
                    "pending": [vector for vector in range(where.count) if where.pending >> vector & 1],
                    "resample": any(key[0] == number for key in self._watched),
                }
                for number, where in enumerate(self._indexes)
            ],
        }


def _selected(flags: int, start: int, count: int, data: bytes) -> list[int]:
    """The vectors a SET_IRQS with NONE (all of them) or BOOL (those with a byte that is not 0) means."""
    vectors = range(start, start + count)
    if flags & IRQ_SET_DATA_BOOL:
        return [vector for vector in vectors if data[vector - start]]
    return list(vectors)


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _close_wires(wires: Iterable[Wire | None]) -> None:
    for wire in wires:
        if wire is not None:
            wire.close()
