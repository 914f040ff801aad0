"""What looking and announcing need to know of PVSCSI: the indices and reqCallThreshold in the rings state page.

A driver that has asked for it (SETUP_REQCALLTHRESHOLD) kicks for a read or write only when reqProdIdx - reqConsIdx has
reached reqCallThreshold. Source: vmw_pvscsi.c, pvscsi_kick_io.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.adapters.moderation.announce import Announcer, Driver
from hba.adapters.moderation.look import Ring, Window
from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.pvscsi.registers import INTR_CMPL_0
from hba.adapters.pvscsi.rings import MASK32
from hba.adapters.pvscsi.structures import CMP_CONS_IDX, REQ_CALL_THRESHOLD, REQ_PROD_IDX
from hba.errors import DmaFault

if TYPE_CHECKING:
    from hba.adapters.pvscsi.adapter import PvscsiAdapter

ALWAYS = 0  # a threshold that every request reaches


class Moderation(Ring, Driver):
    """One adapter's window and announcer, and their view of its rings."""

    def __init__(self, adapter: PvscsiAdapter, poll: PollOptions, interrupts: InterruptOptions) -> None:
        self._adapter = adapter
        self._mask = adapter.registers.cell("INTR_MASK")
        self.window = Window(adapter.loop, self, poll)
        self.announcer = Announcer(adapter.loop, self, interrupts)

    def arrived(self) -> None:
        """Requests are being taken from the ring."""
        self.window.arrived()
        self.announcer.arrived()

    def posted(self, count: int, size: int) -> None:
        """`count` completions of `size` bytes are on the ring."""
        if self._mask.value & INTR_CMPL_0:
            self.announcer.posted(count, size)
        else:
            self.interrupt()  # which interrupts nobody: a driver that polls INTR_STATUS shall see it at once
        self.window.worked()

    def forget(self) -> None:
        """The rings are gone."""
        self.window.forget()
        self.announcer.forget()

    def snapshot(self) -> dict[str, object]:
        """For `hba show`; JSON-able."""
        return {"poll": self.window.snapshot(), "interrupts": self.announcer.snapshot()}

    # -- Ring -----------------------------------------------------------------------------------------------------

    def can_look(self) -> bool:
        adapter, rings = self._adapter, self._adapter.rings
        return rings is not None and rings.state.direct and adapter.reachable(rings)

    def has_work(self) -> bool:
        adapter, rings = self._adapter, self._adapter.rings
        if rings is None or not adapter.takes or not adapter.reachable(rings):
            return False
        return rings.state.load(REQ_PROD_IDX) != rings.request_cons and adapter.room(rings) > 0

    def take(self) -> None:
        self._adapter.look("look")

    def suppress(self) -> bool:
        rings = self._adapter.rings
        if rings is None or not self._adapter.commands.threshold_enabled:
            return False
        rings.state.store(REQ_CALL_THRESHOLD, rings.requests.entries + 1)  # more than can be on the ring
        return True

    def restore(self) -> bool:
        adapter, rings = self._adapter, self._adapter.rings
        if rings is None:
            return True
        try:
            if adapter.reachable(rings):
                rings.state.store(REQ_CALL_THRESHOLD, ALWAYS)
                return True
        except DmaFault:
            pass
        adapter.retry_later()
        return False

    # -- Driver ---------------------------------------------------------------------------------------------------

    def standing(self) -> tuple[int, int]:
        rings = self._adapter.rings
        if rings is None or not self.can_look():
            return 1, 1  # as if there were this one: what cannot be looked at is announced at once
        load = rings.state.load
        consumed = load(CMP_CONS_IDX)
        return (load(REQ_PROD_IDX) - consumed) & MASK32, (rings.completion_prod - consumed) & MASK32

    def interrupt(self) -> None:
        self._adapter.raise_cause(INTR_CMPL_0)
