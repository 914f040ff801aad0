"""Pages of the guest's memory with indices and with slots in them: what a PVSCSI ring is made of."""

from __future__ import annotations

import sys

from hba.adapters.pvscsi.structures import PAGE_SHIFT, PAGE_SIZE
from hba.errors import DmaFault
from hba.native import mypyc_attr
from hba.pci.memory import GuestMemory


class IndexPage:
    """The rings state page; `bind` looks its memory up. Reads and writes of one index are single 32-bit accesses, never
    torn."""

    def __init__(self, memory: GuestMemory, address: int) -> None:
        if sys.byteorder != "little":
            raise DmaFault(address, PAGE_SIZE, "a big-endian host cannot access ring indices in one piece")
        self.memory = memory
        self.address = address
        self._words: memoryview | None = None

    def bind(self) -> None:
        """Look the page up again, after the maps changed. Raises `DmaFault`."""
        self.memory.view(self.address, PAGE_SIZE, False)  # both ways: a client may have given it for one only
        view = self.memory.view(self.address, PAGE_SIZE, True)
        # Native 32-bit items: an explicit byte order would read byte by byte and could see half an update.
        self._words = view.cast("I") if view is not None else None

    @property
    def direct(self) -> bool:
        """Whether an access is one of ours to memory, not a message to the client."""
        return self._words is not None

    def load(self, offset: int) -> int:
        words = self._words
        if words is not None:
            value: int = words[offset >> 2]
            return value
        return int.from_bytes(self.memory.read(self.address + offset, 4), "little")

    def store(self, offset: int, value: int) -> None:
        words = self._words
        if words is not None:
            words[offset >> 2] = value
        else:
            self.memory.write(self.address + offset, value.to_bytes(4, "little"))


@mypyc_attr(allow_interpreted_subclasses=True)
class Ring:
    """Slots of equal size in pages that need not be adjacent; `bind` looks their memory up."""

    def __init__(self, memory: GuestMemory, pages: list[int], entry_size: int, write: bool) -> None:
        self.memory = memory
        self.addresses = [ppn << PAGE_SHIFT for ppn in pages]
        self.entry_size = entry_size
        self.per_page = PAGE_SIZE // entry_size
        self.entries = self.per_page * len(pages)
        self.log2 = self.entries.bit_length() - 1
        self.mask = self.entries - 1
        self.write = write
        # (view of the page, offset) by slot; empty when a page is only reachable by message
        self.slots: list[tuple[memoryview, int]] = []

    def bind(self) -> None:
        """Look the pages up again, after the maps changed. Raises `DmaFault`."""
        views = [self.memory.view(address, PAGE_SIZE, self.write) for address in self.addresses]
        size = self.entry_size
        slots: list[tuple[memoryview, int]] = []
        for view in views:
            if view is None:
                # Check reachability now, so that a set-up command with an address outside memory fails.
                for address in self.addresses:
                    self.memory.buffer([(address, PAGE_SIZE)], self.write)
                slots = []
                break
            slots.extend((view, at * size) for at in range(self.per_page))
        self.slots = slots

    def stretch(self, index: int, count: int) -> tuple[bytes | memoryview, int]:
        """The bytes of slot `index` and of those behind it that lie in the same page, `count` at most; and how many."""
        if not self.slots:
            return self.memory.read(self.slot_address(index), self.entry_size), 1
        slot = index & self.mask
        view, at = self.slots[slot]
        here = self.per_page - slot % self.per_page
        if count > here:
            count = here
        return view[at : at + count * self.entry_size], count

    def store(self, index: int, data: bytes) -> None:
        if self.slots:
            view, at = self.slots[index & self.mask]
            view[at : at + self.entry_size] = data
        else:
            self.memory.write(self.slot_address(index), data)

    def slot_address(self, index: int) -> int:
        slot = index & self.mask
        return self.addresses[slot // self.per_page] + slot % self.per_page * self.entry_size
