"""What the driver is told of units that come and go.

A mailbox has little room, and the driver takes messages without a register access. So what finds it full, or its memory
out of reach, waits here in the order it happened and is posted as the driver goes on. What waits is at most a removal
and an addition behind it for each address:

    waiting             a unit was added       a unit was removed
    nothing             addition               removal
    addition            (cannot be)            nothing, or removal if the guest may have found the unit by scanning
    removal             removal, addition      (cannot be)
    removal, addition   (cannot be)            removal

A removal is never taken back by an addition: there are drivers, Linux's among them, that keep the old disk when they
are only told of one they have already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic

from hba.adapters.adapter import Announcement
from hba.adapters.ring.access import R, RingAccess
from hba.adapters.ring.rings import Mailbox
from hba.clock import MS, Clock, S, Timer
from hba.errors import DmaFault
from hba.scsi.address import unit_name

RETRY: Final = 10 * MS  # how often the mailbox is tried while messages wait
TICK: Final = 1 * S  # how often it is looked at while the driver only has to take what is there
STALE: Final = 10 * S  # a driver that has taken none of its messages for so long is reported

Change = tuple[str, int, int]  # "added" or "removed", target, LUN

_SCAN: Final = "a driver finds the units there are when it scans"


class HotPlug(Generic[R]):
    """The announcements of one adapter. `interrupt` tells the driver that there are some, `tell` the host that the
    driver does not hear them.

    `waiting`  changes not in the mailbox yet, in order
    `posted`   messages put there since the start
    `stuck`    how it shows that the driver takes none; "" while it does
    """

    def __init__(
        self, clock: Clock, access: RingAccess[R], interrupt: Callable[[], None], tell: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._access = access
        self._interrupt = interrupt
        self._tell = tell
        self.waiting: OrderedDict[Change, None] = OrderedDict()  # for its keys
        self.posted = 0
        self.stuck = ""
        self._timer: Timer | None = None
        self._moved_at = 0  # when the driver last took a message, or there was none to take
        self._taken = 0  # what it had taken then

    def _mailbox(self) -> Mailbox | None:
        rings = self._access.rings
        return None if rings is None else rings.mailbox

    def add(self, change: str, target: int, lun: int, known: bool) -> None:
        """A unit was added or removed; `known`: the guest may have found the removed one by itself."""
        if self._mailbox() is None:
            return
        if change == "removed" and ("added", target, lun) in self.waiting:
            del self.waiting["added", target, lun]
            if not known:
                return
        if self._timer is None:  # nothing was under way
            self._moved_at = self._clock.now()
        self.waiting[change, target, lun] = None
        self.post()

    def wait(self, changes: list[Change]) -> None:
        """These wait, of an adapter that was saved, and it may be that the driver has not taken what is there."""
        self.waiting.update(dict.fromkeys(changes))
        self._moved_at = self._clock.now()

    def post(self) -> None:
        """Put in the mailbox what waits, as far as there is room, and interrupt once; then see what the driver does."""
        rings = self._access.rings
        if rings is None or (mailbox := rings.mailbox) is None:
            return
        posted = 0
        trouble = "its message ring cannot be reached"
        unread = 0
        try:
            if self._access.reachable(rings):
                while self.waiting and mailbox.put(*next(iter(self.waiting))):
                    self.waiting.popitem(last=False)
                    posted += 1
                trouble, unread = self._look(mailbox)
        except DmaFault as fault:
            trouble += f": {fault}"
        self.posted += posted
        if posted:
            self._interrupt()
        if not self.waiting and not unread:
            self.stuck = ""
            return
        self._judge(trouble)
        self._look_again(RETRY if self.waiting and not self.stuck else TICK)

    def _look_again(self, delay: int) -> None:
        if self._timer is not None:
            if self._timer.deadline <= self._clock.now() + delay:
                return
            self._timer.cancel()
        self._timer = self._clock.call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.post()

    def _look(self, mailbox: Mailbox) -> tuple[str, int]:
        """(what to say should the driver be stuck, messages it has not taken). Notes whether it goes on."""
        taken, unread = mailbox.taken(), mailbox.unread()
        if unread > mailbox.capacity:
            return mailbox.position(), unread
        if taken != self._taken or not unread:
            self._taken = taken
            self._moved_at = self._clock.now()
            self.stuck = ""
        return f"{unread} on its message ring, {len(self.waiting)} behind", unread

    def _judge(self, trouble: str) -> None:
        since = self._clock.now() - self._moved_at
        if since >= STALE and not self.stuck:
            self.stuck = f"the guest has taken no message about its units for {since // S} s: {trouble}"
            self._tell(self.stuck)

    def forget(self, why: str = "") -> None:
        """The mailbox is given up. `why`: what the driver did, which may not know what it misses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        mailbox = self._mailbox()
        missed = len(self.waiting)
        if why and mailbox is not None:
            try:
                unread = mailbox.unread()
                missed += unread if unread <= mailbox.capacity else 0
            except DmaFault:
                pass  # then the guest cannot read them either, and has more to care about
        self.waiting.clear()
        self.stuck = ""
        if why and missed:
            self._tell(f"the guest's driver has {why} before it took {missed} messages about its units; {_SCAN}")

    def announcement(self, target: int, lun: int) -> Announcement:
        """What became of the last change at an address."""
        rings = self._access.rings
        if rings is None:
            return {"state": "none", "why": f"no driver has set up the adapter's rings; {_SCAN}"}
        if rings.mailbox is None:
            return {"state": "none", "why": f"{rings.no_mailbox}; {_SCAN}"}
        if not any((change, target, lun) in self.waiting for change in ("added", "removed")):
            return {"state": "posted", "why": ""}
        why = self.stuck or "its message ring is full or out of reach; it is told as it goes on"
        return {"state": "waiting", "why": f"{why} (messages that wait: {len(self.waiting)})"}

    def describe(self) -> dict[str, object]:
        """For `hba show queues`: the first of those that wait, and whether the driver goes on."""
        waiting = [f"{change} {unit_name(target, lun)}" for change, target, lun in list(self.waiting)[:16]]
        return {"waiting": len(self.waiting), "next": waiting, "stuck": self.stuck}
