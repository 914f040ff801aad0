"""The message ring: where the guest is told of units that come and go. A page of it holds 32 messages."""

from __future__ import annotations

from hba.adapters.pvscsi.pages import IndexPage, Ring
from hba.adapters.pvscsi.structures import (
    MESSAGE,
    MESSAGE_SIZE,
    MSG_CONS_IDX,
    MSG_DEV_ADDED,
    MSG_DEV_REMOVED,
    MSG_NUM_ENTRIES_LOG2,
    MSG_PROD_IDX,
)
from hba.adapters.ring.rings import MASK32, Mailbox
from hba.pci.memory import GuestMemory

_KINDS = {"added": MSG_DEV_ADDED, "removed": MSG_DEV_REMOVED}


class MessageRing(Mailbox):
    """The one the driver has set up. `prod`: msgProdIdx."""

    def __init__(self, memory: GuestMemory, state: IndexPage, pages: list[int]) -> None:
        self.ring = Ring(memory, pages, MESSAGE_SIZE, True)
        super().__init__(self.ring.entries)
        self.prod = 0
        self._state = state

    def set_up(self) -> None:
        """Tell the driver what it is. Raises `DmaFault` when a page is not in guest memory."""
        self.bind()
        self._state.store(MSG_PROD_IDX, 0)
        self._state.store(MSG_NUM_ENTRIES_LOG2, self.ring.log2)

    def put(self, change: str, target: int, lun: int) -> bool:
        if self.unread() >= self.capacity:
            return False
        self.ring.store(self.prod, MESSAGE.pack(_KINDS[change], 0, target, bytes((0, lun, 0, 0, 0, 0, 0, 0))))
        following = (self.prod + 1) & MASK32
        self._state.store(MSG_PROD_IDX, following)
        self.prod = following
        return True

    def taken(self) -> int:
        return self._state.load(MSG_CONS_IDX)

    def unread(self) -> int:
        return (self.prod - self._state.load(MSG_CONS_IDX)) & MASK32

    def position(self) -> str:
        return f"its msgConsIdx is {self.taken()} with msgProdIdx {self.prod}"

    def bind(self) -> None:
        """Follow a change of the DMA maps. Raises `DmaFault` when a page is gone."""
        self.ring.bind()

    def describe(self) -> dict[str, object]:
        """For `hba show queues`."""
        return {
            "entries": self.capacity,
            "prod": self.prod,
            "cons": self.taken(),
            "pages": self.ring.addresses,
        }
