"""What an engine serves: the small interface between the wire and a PCI function.

Two directions. The engine calls a `Device` (regions, interrupts, DMA maps, reset); the device reaches back through the
`Client` it was given when somebody connected (DMA by message, for guest RAM that came without a file descriptor).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Final, Protocol

# vfio_region_info flags (vfio.h)
REGION_READ: Final = 1
REGION_WRITE: Final = 2
REGION_MMAP: Final = 4

# vfio_irq_info flags
IRQ_EVENTFD: Final = 1
IRQ_MASKABLE: Final = 2
IRQ_AUTOMASKED: Final = 4
IRQ_NORESIZE: Final = 8

# vfio_irq_set flags: what the data is, what to do with it
IRQ_SET_DATA_NONE: Final = 1
IRQ_SET_DATA_BOOL: Final = 2
IRQ_SET_DATA_EVENTFD: Final = 4
IRQ_SET_ACTION_MASK: Final = 8
IRQ_SET_ACTION_UNMASK: Final = 16
IRQ_SET_ACTION_TRIGGER: Final = 32

DMA_READ: Final = 1  # the device may read the range
DMA_WRITE: Final = 2  # the device may write it


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """VFIO_USER_DEVICE_GET_REGION_INFO: size in bytes, flags, and for an mmap-able region the one fd behind it."""

    size: int = 0
    flags: int = 0
    fd: int | None = None
    offset: int = 0
    sparse: tuple[tuple[int, int], ...] = field(default=())  # (offset, size) areas; empty: all of it


@dataclass(frozen=True, slots=True)
class IrqInfo:
    """VFIO_USER_DEVICE_GET_IRQ_INFO."""

    count: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class IoEventFd:
    """A part of a region where a write only says that something happened, whatever its value: it may come as an event
    on `fd` instead of a message. `offset` in the region, `size` of the access, in bytes."""

    offset: int
    size: int
    fd: int


class RequestError(Exception):
    """A request the device refuses; the engine replies with this errno."""

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(why)
        self.errno = errno


Done = Callable[[RequestError | None], None]  # called once, with why it could not be done


class Client(Protocol):
    """The way back to whoever is connected."""

    def dma_read(self, address: int, length: int) -> bytes:
        """DMA_READ by message, split as the negotiated limits and QEMU's socket need. Raises `hba.errors.DmaFault`.

        Blocks until the client has answered. A request of the client that is being carried out is acknowledged first.
        """
        ...

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        """DMA_WRITE by message. Raises `hba.errors.DmaFault`."""
        ...


class Wire(Protocol):
    """Where the interrupts of one vector go."""

    def trigger(self) -> None:
        """Interrupt the client. Raises OSError when it cannot be reached."""
        ...

    def close(self) -> None:
        """Nobody triggers it any more."""
        ...


class Device(Protocol):
    """A PCI function as the engine sees it. Region indices are vfio-pci's: 0-5 BARs, 6 ROM, 7 config, 8 VGA.

    Calls arrive in the order of the messages, in the loop's thread. The engine has already checked that offset and
    count lie inside the region and that flags allow the access. Any method may raise `RequestError`. Region sizes and
    flags do not change while a client is connected.

    While the device waits inside `Client.dma_read` or `Client.dma_write`, the engine may call it for what the client
    must have answered at once: `region_info`, `irq_info`, `region_read`, `dma_map`, `dma_map_here`, `dma_unmap`,
    `dma_unmap_all`, `set_irqs` and `connect_irqs`. Register writes wait until the device has returned, but for those
    that may be had `at_once`, and so does `reset`.
    """

    num_regions: int
    num_irqs: int

    def region_info(self, index: int) -> RegionInfo: ...

    def irq_info(self, index: int) -> IrqInfo: ...

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Exactly `count` bytes. No DMA by message from in here: the client waits for the answer."""
        ...

    def region_write(self, index: int, offset: int, data: bytes | memoryview) -> None:
        """`data` is at least one byte, and valid during the call only: copy what has to stay."""
        ...

    def at_once(self, index: int, offset: int, count: int) -> bool:
        """Whether such a write does so little that it may be carried out while the device waits for memory. What the
        client reads meanwhile is answered on the spot, and should not be from before its write."""
        ...

    def dma_map(self, iova: int, size: int, prot: int, fd: int | None, offset: int) -> None:
        """`prot`: DMA_READ | DMA_WRITE. The device owns `fd` from here on, also when it raises."""
        ...

    def dma_map_here(self, iova: int, size: int, prot: int, memory: mmap, at: int) -> None:
        """The same with memory the engine has mapped already, from `at` in it on. The device owns it from here on."""
        ...

    def dma_unmap(self, iova: int, size: int) -> int:
        """All earlier maps in a range that cuts through none; how many they were. Raises `RequestError(ENOENT/EINVAL)`
        otherwise."""
        ...

    def dma_unmap_all(self) -> None: ...

    def uses(self, iova: int, size: int) -> bool:
        """A request that is under way may touch memory in a range, in place."""
        ...

    def rest(self, done: Done) -> None:
        """Begin nothing new; `done(None)` when nothing is under way any more, `done(error)` when that does not come.
        `release` afterwards, in either case."""
        ...

    def release(self) -> None:
        """Go on, after `rest`."""
        ...

    def set_irqs(self, index: int, flags: int, start: int, count: int, fds: list[int], data: bytes) -> None:
        """VFIO_USER_DEVICE_SET_IRQS after its header was checked. `fds`: eventfds in vector order (owned by the device
        from here on); `data`: one byte a vector for DATA_BOOL. count 0 with TRIGGER|DATA_NONE disables the index."""
        ...

    def connect_irqs(self, index: int, start: int, wires: Sequence[Wire | None]) -> None:
        """SET_IRQS with EVENTFD and TRIGGER, from an engine that keeps the eventfds to itself: vectors from `start` on
        go there, or nowhere. The device owns the wires from here on. Raises `RequestError`, and has closed them."""
        ...

    def region_io_fds(self, index: int) -> tuple[IoEventFd, ...]:
        """Where in a region writes may come as events. The descriptors stay the device's."""
        ...

    def reset(self) -> None:
        """As after power on, and running."""
        ...

    # Migration (`hba.vfio_user.migration` knows the states and calls these in their order):

    @property
    def can_migrate(self) -> bool:
        """It has a state to save."""
        ...

    def stop(self, done: Done) -> None:
        """End what is under way and come to rest: afterwards nothing in here changes by itself, no memory of the
        client's is touched and nobody is interrupted. `done(error)`: it cannot, and runs on."""
        ...

    def resume(self) -> None:
        """Run again, after `stop`."""
        ...

    def save(self) -> bytes:
        """The state of a stopped device. Raises `RequestError` when it cannot be had."""
        ...

    def restore(self, state: bytes) -> None:
        """Take the place of the (stopped) device that `state` is of. Whatever it is, it is checked; raises
        `RequestError(EINVAL)`, and the device is then as after power on."""
        ...

    def log_dma(self, done: Done) -> None:
        """From `done(None)` on, know which pages of the client's memory are written."""
        ...

    def stop_logging_dma(self) -> None: ...

    def dirty_bitmap(self, iova: int, length: int, page_size: int) -> bytes:
        """A bit for each page of a range that was written since it was asked for last, the lowest first, in whole
        64-bit words. Raises `RequestError`: EINVAL when nothing is logged, ENOENT for memory that is not mapped."""
        ...

    def connected(self, client: Client) -> None: ...

    def disconnected(self) -> None:
        """The client left: drop its DMA maps and interrupt fds, and be as after power on for the next one."""
        ...


class Engine(Protocol):
    """Serves one device on one UNIX socket, inside an event loop, to one client after the other. The device cannot tell
    which engine it is."""

    on_refused: Callable[[str], None] | None
    """Called when a second client was sent away: who it was, and who has the socket."""

    def start(self) -> None:
        """Listen. Raises `hba.errors.SocketError` with the cause (taken, too long, no permission)."""
        ...

    def close(self) -> None: ...

    def snapshot(self) -> dict[str, object]:
        """Connection state, negotiated capabilities and message counters, for `hba show`."""
        ...


__all__ = [
    "DMA_READ",
    "DMA_WRITE",
    "Client",
    "Device",
    "Done",
    "Engine",
    "IoEventFd",
    "IrqInfo",
    "RegionInfo",
    "RequestError",
    "Wire",
]
