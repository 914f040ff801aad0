"""The message ring: what the guest is told of units that come and go.

A ring of one page holds 32 messages, and the guest takes them without a register access: it only moves msgConsIdx. So
what finds the ring full, or its memory out of reach, waits here in the order it happened and is posted as the guest
goes on. What waits is at most a removal and an addition behind it for each address:

    waiting             a unit was added       a unit was removed
    nothing             addition               removal
    addition            (cannot be)            nothing, or removal if the guest may have found the unit by scanning
    removal             removal, addition      (cannot be)
    removal, addition   (cannot be)            removal

A removal is never taken back by an addition: vmw_pvscsi keeps the old disk when it is only told of one it has already.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from hba.adapters.adapter import Announcement
from hba.adapters.pvscsi.registers import INTR_MSG_0
from hba.adapters.pvscsi.rings import Rings
from hba.adapters.pvscsi.structures import MESSAGE, MSG_CONS_IDX, MSG_DEV_ADDED, MSG_DEV_REMOVED
from hba.clock import MS, S, Timer
from hba.errors import DmaFault
from hba.scsi.address import unit_name

if TYPE_CHECKING:
    from hba.adapters.pvscsi.adapter import PvscsiAdapter

RETRY = 10 * MS  # how often the ring is tried while messages wait
TICK = 1 * S  # how often it is looked at while the guest only has to take what is on it
STALE = 10 * S  # a guest that has taken none of its messages for so long is reported

Change = tuple[int, int, int]  # kind of message, target, LUN

_WORDS = {MSG_DEV_ADDED: "added", MSG_DEV_REMOVED: "removed"}
_SCAN = "a driver finds the units there are when it scans"


def _packed(kind: int, target: int, lun: int) -> bytes:
    return MESSAGE.pack(kind, 0, target, bytes((0, lun, 0, 0, 0, 0, 0, 0)))


class Messages:
    """The messages of one adapter.

    `waiting`  changes not on the ring yet, in order.
    `posted`   messages put on the ring since the start.
    `stuck`    how it shows that the guest takes none; "" while it does.
    """

    def __init__(self, adapter: PvscsiAdapter) -> None:
        self.adapter = adapter
        self.clock = adapter.loop.clock
        self.waiting: OrderedDict[Change, None] = OrderedDict()  # for its keys
        self.posted = 0
        self.stuck = ""
        self._timer: Timer | None = None
        self._moved_at = 0  # when the guest last took a message, or there was none to take
        self._consumed = 0  # msgConsIdx then

    def add(self, kind: int, target: int, lun: int, known: bool) -> None:
        """A unit was added or removed; `known`: the guest may have found the removed one by itself."""
        rings = self.adapter.rings
        if rings is None or rings.messages is None:
            return
        if kind == MSG_DEV_REMOVED and (MSG_DEV_ADDED, target, lun) in self.waiting:
            del self.waiting[MSG_DEV_ADDED, target, lun]
            if not known:
                return
        if self._timer is None:  # nothing was under way
            self._moved_at = self.clock.now()
        self.waiting[kind, target, lun] = None
        self.post()

    def post(self) -> None:
        """Put on the ring what waits, as far as there is room, and interrupt once; then see what the guest does."""
        rings = self.adapter.rings
        if rings is None or rings.messages is None:
            return
        posted = 0
        trouble = "its message ring cannot be reached"
        unread = 0
        try:
            if self.adapter.reachable(rings):
                while self.waiting and rings.post_message(_packed(*next(iter(self.waiting)))):
                    self.waiting.popitem(last=False)
                    posted += 1
                trouble, unread = self._look(rings)
        except DmaFault as fault:
            trouble += f": {fault}"
        self.posted += posted
        if posted:
            self.adapter.raise_cause(INTR_MSG_0)
        if not self.waiting and not unread:
            self.stuck = ""
            return
        self._judge(trouble)
        self._look_again(RETRY if self.waiting and not self.stuck else TICK)

    def _look_again(self, delay: int) -> None:
        if self._timer is not None:
            if self._timer.deadline <= self.clock.now() + delay:
                return
            self._timer.cancel()
        self._timer = self.clock.call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.post()

    def _look(self, rings: Rings) -> tuple[str, int]:
        """(what to say should the guest be stuck, messages it has not taken). Notes whether it goes on."""
        assert rings.messages is not None
        consumed = rings.state.load(MSG_CONS_IDX)
        unread = rings.messages_unread
        if unread > rings.messages.entries:
            return f"its msgConsIdx is {consumed} with msgProdIdx {rings.message_prod}", unread
        if consumed != self._consumed or not unread:
            self._consumed = consumed
            self._moved_at = self.clock.now()
            self.stuck = ""
        return f"{unread} on its message ring, {len(self.waiting)} behind", unread

    def _judge(self, trouble: str) -> None:
        since = self.clock.now() - self._moved_at
        if since >= STALE and not self.stuck:
            self.stuck = f"the guest has taken no message about its units for {since // S} s: {trouble}"
            self._tell(self.stuck)

    def _tell(self, what: str) -> None:
        if self.adapter.on_untold is not None:
            self.adapter.on_untold(what)

    def forget(self, why: str = "") -> None:
        """The ring is given up. `why`: what the driver did, which may not know what it misses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rings = self.adapter.rings
        missed = len(self.waiting)
        if why and rings is not None and rings.messages is not None:
            try:
                unread = rings.messages_unread
                missed += unread if unread <= rings.messages.entries else 0
            except DmaFault:
                pass  # then the guest cannot read them either, and has more to care about
        self.waiting.clear()
        self.stuck = ""
        if why and missed:
            self._tell(f"the guest's driver has {why} before it took {missed} messages about its units; {_SCAN}")

    def announcement(self, target: int, lun: int) -> Announcement:
        """What became of the last change at an address."""
        rings = self.adapter.rings
        if rings is None:
            return {"state": "none", "why": f"no driver has set up the adapter's rings; {_SCAN}"}
        if rings.messages is None:
            return {"state": "none", "why": f"its driver has set up no message ring; {_SCAN}"}
        if not any((kind, target, lun) in self.waiting for kind in _WORDS):
            return {"state": "posted", "why": ""}
        why = self.stuck or "its message ring is full or out of reach; it is told as it goes on"
        return {"state": "waiting", "why": f"{why} (messages that wait: {len(self.waiting)})"}

    def describe(self) -> dict[str, object]:
        """For `hba show queues`: the first of those that wait, and whether the guest goes on."""
        waiting = [f"{_WORDS[kind]} {unit_name(target, lun)}" for kind, target, lun in list(self.waiting)[:16]]
        return {"waiting": len(self.waiting), "next": waiting, "stuck": self.stuck}
