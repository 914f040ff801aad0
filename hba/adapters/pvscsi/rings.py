"""The rings in guest memory: request, completion and message ring, and the page that holds their indices.

Who owns what: the guest writes reqProdIdx, cmpConsIdx and msgConsIdx, the device all the rest. A guest-owned index is
never written here: register writes are posted, so the guest may have moved it before the set-up command arrives.

Indices are free-running 32-bit numbers; the slot is the index modulo the number of entries, a power of two.
"""

from __future__ import annotations

import sys

from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    CMP_NUM_ENTRIES_LOG2,
    CMP_PROD_IDX,
    COMPLETION_FIELDS,
    COMPLETION_SIZE,
    MESSAGE_SIZE,
    MSG_CONS_IDX,
    MSG_NUM_ENTRIES_LOG2,
    MSG_PROD_IDX,
    PAGE_SHIFT,
    PAGE_SIZE,
    REQ_CALL_THRESHOLD,
    REQ_CONS_IDX,
    REQ_NUM_ENTRIES_LOG2,
    REQ_PROD_IDX,
    REQUEST_SIZE,
    completions,
)
from hba.errors import DmaFault
from hba.pci.memory import GuestMemory

MASK32 = 0xFFFFFFFF


class IndexPage:
    """The rings state page. Reads and writes of one index are single 32-bit accesses, never torn."""

    def __init__(self, memory: GuestMemory, address: int) -> None:
        if sys.byteorder != "little":
            raise DmaFault(address, PAGE_SIZE, "a big-endian host cannot access ring indices in one piece")
        self.memory = memory
        self.address = address
        self._words: memoryview | None = None
        self.bind()

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


class Ring:
    """Slots of equal size in pages that need not be adjacent."""

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
        self.bind()

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

    def load(self, index: int) -> tuple[bytes | memoryview, int]:
        """(buffer, offset) of a slot's bytes."""
        if self.slots:
            return self.slots[index & self.mask]
        return self.memory.read(self.slot_address(index), self.entry_size), 0

    def stretch(self, index: int, count: int) -> tuple[bytes | memoryview, int]:
        """The bytes of slot `index` and of those behind it that lie in the same page, `count` at most; and how many."""
        if not self.slots:
            return self.memory.read(self.slot_address(index), self.entry_size), 1
        slot = index & self.mask
        view, at = self.slots[slot]
        count = min(count, self.per_page - slot % self.per_page)
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


class Rings:
    """What SETUP_RINGS set up: request and completion ring; the message ring when the guest wants one."""

    def __init__(
        self, memory: GuestMemory, state_ppn: int, request_pages: list[int], completion_pages: list[int]
    ) -> None:
        """Raises `DmaFault` when a page is not in guest memory."""
        self.memory = memory
        self.state = IndexPage(memory, state_ppn << PAGE_SHIFT)
        self.requests = Ring(memory, request_pages, REQUEST_SIZE, False)
        self.completions = Ring(memory, completion_pages, COMPLETION_SIZE, True)
        self.messages: Ring | None = None
        self.generation = memory.generation
        self.request_cons = 0
        self.completion_prod = 0
        self.message_prod = 0
        self.most_pending = 0  # requests on the ring when it was looked at
        for offset in (REQ_CONS_IDX, CMP_PROD_IDX, REQ_CALL_THRESHOLD, MSG_PROD_IDX, MSG_NUM_ENTRIES_LOG2):
            self.state.store(offset, 0)
        self.state.store(REQ_NUM_ENTRIES_LOG2, self.requests.log2)
        self.state.store(CMP_NUM_ENTRIES_LOG2, self.completions.log2)

    @property
    def shared(self) -> bool:
        """All of the request and completion rings can be written without a message to the client."""
        return self.state.direct and bool(self.completions.slots)

    def setup_messages(self, pages: list[int]) -> None:
        """Raises `DmaFault`."""
        self.messages = Ring(self.memory, pages, MESSAGE_SIZE, True)
        self.message_prod = 0
        self.state.store(MSG_PROD_IDX, 0)
        self.state.store(MSG_NUM_ENTRIES_LOG2, self.messages.log2)

    def rebind(self) -> None:
        """Follow a change of the DMA maps. Raises `DmaFault` when a page is gone."""
        self.state.bind()
        self.requests.bind()
        self.completions.bind()
        if self.messages is not None:
            self.messages.bind()
        self.generation = self.memory.generation

    @property
    def completions_free(self) -> int:
        """Slots the guest has consumed; negative or too many when its index makes no sense."""
        used = (self.completion_prod - self.state.load(CMP_CONS_IDX)) & MASK32
        return self.completions.entries - used

    def post_completions(self, fields: list[int]) -> int:
        """Write completion descriptors (COMPLETION_FIELDS numbers each, one after the other) and cmpProdIdx; returns
        how many there was room for: none where the ring is only reached by message. Raises `DmaFault`."""
        ring = self.completions
        if not ring.slots:
            return 0
        count = max(0, min(len(fields) // COMPLETION_FIELDS, self.completions_free))
        first, posted = self.completion_prod, 0
        while posted < count:
            slot = (first + posted) & ring.mask
            view, at = ring.slots[slot]
            stretch = min(count - posted, ring.per_page - slot % ring.per_page)
            begin = posted * COMPLETION_FIELDS
            completions(stretch).pack_into(view, at, *fields[begin : begin + stretch * COMPLETION_FIELDS])
            posted += stretch
        if posted:
            following = (first + posted) & MASK32
            self.state.store(CMP_PROD_IDX, following)
            self.completion_prod = following
        return posted

    def post_completion(self, data: bytes) -> bool:
        """As `post_completions` for one, also where the ring is only reached by message; False when it is full."""
        if self.completions_free <= 0:
            return False
        self.completions.store(self.completion_prod, data)
        following = (self.completion_prod + 1) & MASK32
        self.state.store(CMP_PROD_IDX, following)
        self.completion_prod = following
        return True

    @property
    def messages_unread(self) -> int:
        """Messages on the ring the guest has not taken; more than its entries when msgConsIdx makes no sense."""
        return (self.message_prod - self.state.load(MSG_CONS_IDX)) & MASK32

    def post_message(self, data: bytes) -> bool:
        """Queue a message; False when there is no ring or it is full. Raises `DmaFault`."""
        ring = self.messages
        if ring is None or self.messages_unread >= ring.entries:
            return False
        ring.store(self.message_prod, data)
        following = (self.message_prod + 1) & MASK32
        self.state.store(MSG_PROD_IDX, following)
        self.message_prod = following
        return True

    def describe(self) -> dict[str, object]:
        """Indices as the guest sees them, for `hba show`."""
        load = self.state.load
        result: dict[str, object] = {
            "state_page": self.state.address,
            "request": {
                "entries": self.requests.entries,
                "prod": load(REQ_PROD_IDX),
                "cons": self.request_cons,
                "pending": (load(REQ_PROD_IDX) - self.request_cons) & MASK32,
                "most_pending": self.most_pending,
                "pages": self.requests.addresses,
                "call_threshold": load(REQ_CALL_THRESHOLD),
            },
            "completion": {
                "entries": self.completions.entries,
                "prod": self.completion_prod,
                "cons": load(CMP_CONS_IDX),
                "unconsumed": (self.completion_prod - load(CMP_CONS_IDX)) & MASK32,
                "pages": self.completions.addresses,
            },
        }
        if self.messages is not None:
            result["message"] = {
                "entries": self.messages.entries,
                "prod": self.message_prod,
                "cons": load(MSG_CONS_IDX),
                "pages": self.messages.addresses,
            }
        return result
