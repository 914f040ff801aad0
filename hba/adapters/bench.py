"""The guest's side of an adapter without a guest, for benchmarks. Each type of adapter has a driver of its own."""

from __future__ import annotations

import os
import select
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hba.errors import GuestError, SocketError
from hba.scsi.address import unit_name
from hba.vfio_user.client import Disconnected, GuestRam, ReplyError, VfioUserClient

CONFIG = 7  # region index of config space (vfio-pci)
MSI = 1  # interrupt index
BASE = 0x1000_0000  # bus address of our memory
MOST_CAPABILITIES = 48  # that have room in the first 256 bytes; more would be a list without end
PATIENCE = 10_000  # ms without any completion before the server is given up
PAGE = 4096  # bytes; of a DMA map

Transfer = tuple[bool, int, int]  # (write?, offset in bytes, length in bytes)
Place = tuple[int, int]  # (target, LUN)
Self = TypeVar("Self", bound="BenchDriver")


class BenchDriver(ABC):
    """Brings an adapter up, runs lists of transfers on its units, and takes it down again. A context manager.

    Here is what any PCI function needs: the connection, `own_size` bytes of memory at BASE for what the driver shares
    with the adapter and behind them `data_size` for data, bus mastering, and MSI as an event.

    It is no kinder to the adapter than a driver in a guest: it hears of completions by the interrupt alone, and has
    every request bring room for sense data.
    """

    def __init__(self, socket: str | Path, own_size: int, data_size: int, target: int = 0, lun: int = 0) -> None:
        self._socket = socket
        self._target = target
        self._lun = lun
        self._data_at = own_size
        self._data_size = data_size
        self.ram = GuestRam(own_size + data_size, BASE)
        self._interrupt = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._client = VfioUserClient.connect(socket)
        try:
            self._connect()
            self._bring_up()
            self.settle()
        except BaseException:
            self.close()
            raise

    # -- each type's own ------------------------------------------------------------------------------------------

    @abstractmethod
    def _bring_up(self) -> None:
        """Set the adapter up, as its driver does; bus mastering and MSI are on. Raises `GuestError`."""

    @abstractmethod
    def _take_down(self) -> None:
        """Let go of what lies in our memory, and have the adapter do so. May raise what it likes."""

    @abstractmethod
    def command(self, cdb: bytes, length: int = 0, place: Place | None = None) -> int:
        """Run one command that reads `length` bytes (to the start of the data area), on the unit at `place` if not on
        its own; 0 when it ended well."""

    @abstractmethod
    def prepare(self, transfers: Sequence[Transfer], block_size: int, places: Sequence[Place] = ()) -> None:
        """Make everything ready to run `transfers`, over and over; each on the next of `places`, or all on its unit."""

    @abstractmethod
    def run(self, seconds: float, depth: int, most: int = 1 << 62, each: bool = False) -> tuple[int, float, array[int]]:
        """Keep `depth` commands outstanding for `seconds`, or until there were `most` of them.

        Returns (commands, seconds, latencies in ns). For each that has ended there is a new one at once; the adapter is
        told of those that come together once, or of `each`. Raises `GuestError` when a command fails or none ends for
        10 s.
        """

    # -- what they share ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        client = self._client
        try:
            client.version()
        except (Disconnected, ReplyError) as error:
            raise SocketError(
                f"{self._socket}: the adapter is busy with another client, such as QEMU ({error}); `hba ls` says which "
                "process that is, end that one first"
            ) from error
        client.map_ram(self.ram)
        client.region_write(CONFIG, 0x04, (0x0006).to_bytes(2, "little"))  # memory space, bus master
        control = self._capability(5) + 2
        value = int.from_bytes(client.region_read(CONFIG, control, 2), "little")
        client.region_write(CONFIG, control, (value | 1).to_bytes(2, "little"))
        client.set_eventfds(MSI, [self._interrupt])

    def _capability(self, wanted: int) -> int:
        at = self._client.region_read(CONFIG, 0x34, 1)[0]
        for _ in range(MOST_CAPABILITIES):
            if not at:
                break
            kind, following = self._client.region_read(CONFIG, at, 2)
            if kind == wanted:
                return at
            at = following
        raise GuestError(f"the adapter has no PCI capability {wanted:#x}")

    def _write(self, offset: int, value: int) -> None:
        """Write a 32-bit register of BAR 0."""
        self._client.region_write(0, offset, value.to_bytes(4, "little"))

    def _read(self, offset: int) -> int:
        return int.from_bytes(self._client.region_read(0, offset, 4), "little")

    def settle(self, place: Place | None = None) -> None:
        """Make a unit ready: take its unit attentions, as a driver's first commands do."""
        for _ in range(8):
            if self.command(bytes(6), place=place) == 0:
                return
        raise GuestError(f"unit {unit_name(*place or (self._target, self._lun))} does not become ready")

    def split_data(self, pieces: int) -> None:
        """Map the memory for data anew, in so many pieces (bytes of one: a multiple of a page)."""
        size = self._data_size // pieces // PAGE * PAGE
        self._client.dma_unmap(BASE, self.ram.size)
        self._client.dma_map(BASE, self._data_at, fd=self.ram.fd)
        for start in range(self._data_at, self.ram.size, size):
            length = min(size, self.ram.size - start)
            self._client.dma_map(BASE + start, length, fd=self.ram.fd, offset=start)

    def _sleep(self) -> None:
        """Until the adapter interrupts. Raises `GuestError` when it does not for `PATIENCE`."""
        ready, _, _ = select.select([self._interrupt], [], [], PATIENCE / 1000)
        if not ready:
            raise GuestError(f"the adapter completes nothing for {PATIENCE // 1000} s")
        os.eventfd_read(self._interrupt)

    def capacity(self) -> tuple[int, int]:
        """(blocks, bytes per block) by READ CAPACITY(16)."""
        status = self.command(bytes((0x9E, 0x10, *([0] * 11), 32, 0, 0)), 32)
        if status:
            raise GuestError(f"READ CAPACITY(16) ended with {status:#x}")
        raw = bytes(self.ram.view[self._data_at : self._data_at + 12])
        return int.from_bytes(raw[:8], "big") + 1, int.from_bytes(raw[8:], "big")

    def close(self) -> None:
        try:
            self._take_down()
        except Exception:
            pass  # it is gone already, which is what we want
        self._client.close()
        self.ram.close()
        os.close(self._interrupt)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def transfer_cdb(transfer: Transfer, block_size: int) -> bytes:
    """READ(16) or WRITE(16)."""
    write, offset, length = transfer
    return (
        bytes((0x8A if write else 0x88, 0))
        + (offset // block_size).to_bytes(8, "big")
        + (length // block_size).to_bytes(4, "big")
        + bytes(2)
    )


class InnerDriver(ABC):
    """A driver in the adapter's own process, for `hba bench --ports`: only the wire is missing.

    `slots`: as many different commands, and as many at once.
    """

    slots: int

    @abstractmethod
    def set_up(self, ram: memoryview, reads: Iterator[bytes], length: int) -> None:
        """Set the adapter up in `ram`, which lies at bus address 0, and make the next of `reads` ready in every slot:
        a CDB that reads `length` bytes of the unit at (0, 0)."""

    @abstractmethod
    def run(self, commands: int, depth: int, turn: Callable[[int], object]) -> None:
        """Run so many, `depth` of them with every kick; `turn(0)` turns the adapter's event loop."""

    @abstractmethod
    def check(self) -> None:
        """The latest command of the first slot ended well, or `GuestError`."""

    def close(self) -> None:  # noqa: B027 - not every driver keeps something
        """Let go of `ram`."""
