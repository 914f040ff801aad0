"""The rings in guest memory: request, completion and message ring, and the page that holds their indices.

Who owns what: the guest writes reqProdIdx, cmpConsIdx and msgConsIdx, the device all the rest. A guest-owned index is
never written here: register writes are posted, so the guest may have moved it before the set-up command arrives.

Indices are free-running 32-bit numbers; the slot is the index modulo the number of entries, a power of two.
"""

from __future__ import annotations

from hba.adapters.pvscsi.messages import MessageRing
from hba.adapters.pvscsi.pages import IndexPage, Ring
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    CMP_NUM_ENTRIES_LOG2,
    CMP_PROD_IDX,
    COMPLETION,
    COMPLETION_FIELDS,
    COMPLETION_SIZE,
    MSG_NUM_ENTRIES_LOG2,
    MSG_PROD_IDX,
    PAGE_SHIFT,
    REQ_CALL_THRESHOLD,
    REQ_CONS_IDX,
    REQ_NUM_ENTRIES_LOG2,
    REQ_PROD_IDX,
    REQUEST_SIZE,
    completions,
)
from hba.adapters.ring.rings import MASK32, NOT_YET
from hba.adapters.ring.rings import Rings as RingsOfAny
from hba.pci.memory import GuestMemory


class Rings(RingsOfAny):
    """What SETUP_RINGS set up: request and completion ring; the message ring when the guest wants one.

    `set_up` tells the driver; those of an adapter that was saved know where they are, and are looked up when they are
    used first.
    """

    def __init__(
        self, memory: GuestMemory, state_ppn: int, request_pages: list[int], completion_pages: list[int]
    ) -> None:
        state = IndexPage(memory, state_ppn << PAGE_SHIFT)
        requests = Ring(memory, request_pages, REQUEST_SIZE, False)
        completions = Ring(memory, completion_pages, COMPLETION_SIZE, True)
        # A driver may not have more in flight than it can get completions for (reqProdIdx - cmpConsIdx).
        super().__init__(NOT_YET, requests.entries, min(requests.entries, completions.entries))
        self.memory = memory
        self.state = state
        self.requests = requests
        self.completions = completions
        self.messages: MessageRing | None = None
        self.no_mailbox = "its driver has set up no message ring"

    def set_up(self) -> None:
        """Raises `DmaFault` when a page is not in guest memory."""
        self.rebind()
        for offset in (REQ_CONS_IDX, CMP_PROD_IDX, REQ_CALL_THRESHOLD, MSG_PROD_IDX, MSG_NUM_ENTRIES_LOG2):
            self.state.store(offset, 0)
        self.state.store(REQ_NUM_ENTRIES_LOG2, self.requests.log2)
        self.state.store(CMP_NUM_ENTRIES_LOG2, self.completions.log2)

    def setup_messages(self, pages: list[int]) -> None:
        """Raises `DmaFault`."""
        messages = MessageRing(self.memory, self.state, pages)
        messages.set_up()
        self.mailbox = self.messages = messages

    def rebind(self) -> None:
        self.state.bind()
        self.requests.bind()
        self.completions.bind()
        if self.messages is not None:
            self.messages.bind()
        self.generation = self.memory.generation
        self.cheap = self.state.direct

    # -- requests -----------------------------------------------------------------------------------------------------

    def ready(self) -> int:
        return (self.state.load(REQ_PROD_IDX) - self.request_cons) & MASK32

    def absurd(self, ready: int) -> str:
        return f"reqProdIdx is {ready} ahead of reqConsIdx; the ring has {self.requests.entries} entries"

    def taken(self) -> None:
        self.state.store(REQ_CONS_IDX, self.request_cons)

    # -- completions --------------------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        return self.state.direct and bool(self.completions.slots)

    def completions_free(self) -> int:
        """Slots the guest has consumed; negative or too many when its index makes no sense."""
        used = (self.completion_prod - self.state.load(CMP_CONS_IDX)) & MASK32
        return self.completions.entries - used

    def post(self, fields: list[int]) -> None:
        """`fields`: COMPLETION_FIELDS of each, as they lie in the descriptor."""
        ring = self.completions
        if not ring.slots:
            self._post_by_message(fields)
            return
        count, free = len(fields) // COMPLETION_FIELDS, self.completions_free()
        if count > free:
            count = free
        first, posted = self.completion_prod, 0
        while posted < count:
            slot = (first + posted) & ring.mask
            view, at = ring.slots[slot]
            stretch, here = count - posted, ring.per_page - slot % ring.per_page
            if stretch > here:
                stretch = here
            begin = posted * COMPLETION_FIELDS
            completions(stretch).pack_into(view, at, *fields[begin : begin + stretch * COMPLETION_FIELDS])
            posted += stretch
        if posted:
            self._move((first + posted) & MASK32)

    def _post_by_message(self, fields: list[int]) -> None:
        """One by one, so that none is lost when a message fails."""
        for at in range(0, len(fields), COMPLETION_FIELDS):
            if self.completions_free() <= 0:
                return
            self.completions.store(self.completion_prod, COMPLETION.pack(*fields[at : at + COMPLETION_FIELDS]))
            self._move((self.completion_prod + 1) & MASK32)

    def _move(self, following: int) -> None:
        self.state.store(CMP_PROD_IDX, following)
        self.completion_prod = following

    # -- the driver ---------------------------------------------------------------------------------------------------

    def standing(self) -> tuple[int, int]:
        load = self.state.load
        consumed = load(CMP_CONS_IDX)
        return (load(REQ_PROD_IDX) - consumed) & MASK32, (self.completion_prod - consumed) & MASK32

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
            result["message"] = self.messages.describe()
        return result
