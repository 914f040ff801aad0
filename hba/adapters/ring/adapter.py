"""The two ways of a request through an adapter with rings, and the adapter's life.

Down: kick or look -> request descriptor -> SRB -> port; back: SRB -> completion descriptor -> one interrupt for
several.
What a descriptor looks like, and which registers there are, a type says (`RingAdapter`'s abstract methods).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic

from hba.adapters.adapter import Adapter, Announcement
from hba.adapters.moderation.announce import Driver
from hba.adapters.moderation.look import Ring
from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.ring.access import R, RingAccess
from hba.adapters.ring.completions import Completions
from hba.adapters.ring.hotplug import HotPlug
from hba.adapters.ring.inflight import InFlight
from hba.adapters.ring.moderation import Moderation
from hba.adapters.ring.rings import MASK32
from hba.adapters.ring.state import Waiting
from hba.adapters.ring.turn import BATCH, Turn
from hba.adapters.ring.watcher import RingWatcher
from hba.adapters.traffic import Traffic
from hba.adapters.types import Wiring
from hba.errors import DmaFault
from hba.native import mypyc_attr
from hba.pci.function import PciFunction
from hba.srb import Srb


@mypyc_attr(allow_interpreted_subclasses=True)
class RingAdapter(Adapter, Generic[R]):
    """What all of them do. `width`: numbers that make a completion (see `Completions`).

    `completion`  what an SRB is to have for its `completion`: the same object for all, so that they come back together
    """

    def __init__(self, wiring: Wiring, width: int) -> None:
        loop, bus = wiring.loop, wiring.bus
        self.loop = loop
        self.port = wiring.port
        self.bus = bus
        self.memory = wiring.memory
        self.access: RingAccess[R] = RingAccess(wiring.memory, self._tell_unreachable)
        self.in_flight = InFlight(Traffic(loop.clock, lambda target, lun: lun in bus.units.get(target, ())))
        self.turn = Turn()
        # With posted writes only a kick says that the register writes before it have arrived. A request that a look
        # finds may have overtaken the acknowledgement of the interrupt before, which would then clear that of its
        # completion: SeaBIOS waits for ever.
        poll = PollOptions(window=0) if wiring.posted_writes else wiring.poll or PollOptions()
        self.moderation = Moderation(
            loop, _Looked(self), _Told(self), self.listens, poll, wiring.interrupts or InterruptOptions()
        )
        self.completions: Completions[R] = Completions(loop.clock, self.access, self.in_flight, self.moderation, width)
        self.units: HotPlug[R] = HotPlug(loop.clock, self.access, self.announce_units, self._tell_untold)
        self.kicks = 0
        self.requests = 0
        self.bad_requests = 0
        self._kick_pending = False
        self._batching = False
        self._flush_pending = False
        self.completion = self.complete
        self.port.complete_together(self.completion, self.complete_all)
        bus.on_change = self.hot_plug

    def serve(self, function: PciFunction) -> None:
        """This is the function in front."""
        self.function = function
        function.on_reset.append(self.power_on_reset)
        function.on_resume.append(self.resume)

    def watch(self, watcher: RingWatcher) -> None:
        """Put an instrument at the rings: before the adapter is started."""
        self.access.watchers += (watcher,)

    # -- a type's own -------------------------------------------------------------------------------------------------

    @abstractmethod
    def take(self, rings: R, count: int) -> list[Srb]:
        """The next `count` requests become SRBs; fewer when they are large, and when the DMA maps or the rings change
        meanwhile. Moves `request_cons` by what was taken; what is wrong with one is said with `malformed` and
        `out_of_reach`."""

    @abstractmethod
    def answer(self, srbs: Sequence[Srb], done: list[int]) -> None:
        """Append the completion of each to `done`, `width` numbers for one."""

    @abstractmethod
    def announce_completions(self) -> None:
        """Interrupt: there are completions."""

    @abstractmethod
    def announce_units(self) -> None:
        """Interrupt: there are messages about units."""

    @abstractmethod
    def no_interrupt(self) -> None:
        """The adapter was reset: none of its interrupts has a cause any more."""

    @abstractmethod
    def reset_registers(self) -> None:
        """As after power on."""

    def listens(self) -> bool:
        """Whether the driver has the interrupt for completions enabled, or looks by itself."""
        return True

    def suppress_kicks(self, rings: R) -> bool:
        """Ask the driver not to kick; False when there is no way to, or it does not listen."""
        return False

    def allow_kicks(self, rings: R) -> None:
        """Ask it to kick again. Raises `DmaFault`."""

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.port.start()

    def stop(self) -> None:
        self.port.stop()
        self.port.unload()
        self.forget_rings()
        self.function.close()

    def resume(self) -> None:
        """Memory can be reached again: kicks, completions and messages may have been held up meanwhile."""
        self._kick_again()
        self.completions.post()
        self.units.post()

    def power_on_reset(self) -> None:
        """DEVICE_RESET from the client: as after power on. The machine starts over; its memory is not written."""
        self.forget_rings()
        self.adapter_reset()
        self.reset_registers()

    def adapter_reset(self) -> None:
        """Everything outstanding completes on the rings, then the rings are forgotten."""
        # A kick not looked at yet is lost: with posted writes its ring may be gone already.
        self._kick_pending = False
        for watcher in self.access.watchers:
            watcher.resetting()
        self._batching = True  # nothing is taken from the ring and nobody is interrupted while this goes on
        try:
            self.port.reset_adapter()
        finally:
            self._batching = False
            rings = self.access.rings
            if self.completions.done and rings is not None and rings.shared:
                self.completions.flush()  # else it would be written after the driver was told that the reset is over
        self.moderation.announcer.now()
        self.units.forget("reset the adapter")
        self.forget_rings()
        self.no_interrupt()

    def forget_rings(self) -> None:
        """No ring memory is touched after this."""
        self.units.forget()
        self.moderation.forget()
        self.access.forget()
        self.completions.forget()

    # -- migration ------------------------------------------------------------------------------------------------

    @property
    def unanswered(self) -> int:
        return self.in_flight.outstanding

    def uses(self, iova: int, size: int) -> bool:
        end = iova + size
        for srb in self.in_flight.by_handle.values():
            data = srb.mdl
            if data is not None and not data.by_message:
                for start, length in data.segments:
                    if start < end and iova < start + length:
                        return True
        return False

    def settle(self) -> None:
        self.moderation.window.close()  # the driver kicks again
        self.moderation.announcer.now()

    def what_waits(self) -> Waiting:
        """What `go_on_with` takes."""
        return Waiting(self.access.fault[:1000], self.completions.unposted(), list(self.units.waiting))

    def go_on_with(self, rings: R | None, waiting: Waiting) -> None:
        """The driver's rings are these, of an adapter that was saved. Raises ValueError."""
        self.forget_rings()
        if rings is not None:
            self.access.go_on_with(rings, waiting.fault)
            self.completions.wait(waiting.completions)
            self.units.wait(waiting.units)
        elif waiting.completions or waiting.units:
            raise ValueError("completions or messages wait, and there are no rings to put them on")

    # -- down: the request ring -----------------------------------------------------------------------------------

    def kick(self, _value: int = 0) -> None:
        """The driver asks for a look; a write handler of registers.

        It is had once the messages that have arrived are handled: kicks are posted, so several may be waiting, and a
        synchronous one is answered before its work starts.
        """
        self.kicks += 1
        if not self._kick_pending:
            self._kick_pending = True
            self.loop.call_soon(self._take_kick)
        for watcher in self.access.watchers:
            watcher.kicked()

    def _kick_again(self) -> None:
        if not self._kick_pending:
            self._kick_pending = True
            self.loop.call_soon(self._take_kick)

    def _take_kick(self) -> None:
        if self._kick_pending:
            self.look("kick")

    def takes(self) -> bool:
        """Whether a look at the ring now would take what is on it, and none is due anyway."""
        if self.held or self.access.fault or self.in_flight.full or self._kick_pending or self._batching:
            return False
        return self.memory.enabled

    def look(self, why: str) -> None:
        """Look at the request ring now, asked for or not. `why`: "kick", "look" while a window is open, "command": what
        is on the ring may be what that is about."""
        self._kick_pending = False
        if self.access.rings is not None:
            self._process(why)
            if self.units.waiting:
                self.units.post()  # the driver looks at a unit it was told of, so it may have taken the message

    def _process(self, why: str) -> None:
        """Take what is on the request ring, one pass; come back later for what arrives meanwhile. `why`: as `look` has
        it, or "room": there is some for requests that had to wait."""
        access, memory = self.access, self.memory
        rings = access.rings
        if rings is None or self.held or access.fault or self._batching or not memory.enabled:
            return
        if rings.generation != memory.generation and not access.reachable(rings, told=True):
            return
        self._batching = True
        turn, completions, in_flight = self.turn, self.completions, self.in_flight
        turn.begin()
        try:
            pending = self._pending(rings)
            if pending < 0:
                return
            for watcher in access.watchers:
                watcher.looked(pending, why)
            if not pending:
                return
            self.moderation.arrived()
            while pending and rings.generation == memory.generation:
                first = rings.request_cons
                srbs = self.take(rings, pending if pending < BATCH else BATCH)
                taken = (rings.request_cons - first) & MASK32
                self.requests += taken
                in_flight.outstanding += taken
                for watcher in access.watchers:
                    watcher.took(srbs)
                self.port.submit_all(srbs)
                pending -= taken
                turn.requests -= taken
                if completions.done:
                    completions.flush()  # the guest waits for these, or works on them while we work on the next
                if pending and (not taken or turn.is_over):
                    break  # the next one has to wait until others have completed, or for the next turn
            if access.rings is not rings:
                return
            rings.taken()
            if rings.ready() and not in_flight.full:
                self._kick_again()
        except DmaFault as fault:
            access.stop(str(fault), fault)
        finally:
            self._batching = False
            if completions.done:
                completions.flush()

    def _pending(self, rings: R) -> int:
        """How many requests may be taken now; -1 when what the driver says of them makes no sense."""
        pending = rings.ready()
        if pending > rings.entries:
            self.access.stop(rings.absurd(pending))
            return -1
        if pending > rings.most_pending:
            rings.most_pending = pending
        room = self.room(rings)
        return pending if pending < room else room  # what is left is looked at when a completion has made room

    def room(self, rings: R) -> int:
        """How many requests could be taken now if they were there."""
        room = rings.most_outstanding - self.in_flight.outstanding - self.completions.waiting
        return room if room > 0 else 0

    def malformed(self, handle: int, why: str) -> None:
        """A request was refused for what is written in it."""
        self.bad_requests += 1
        for watcher in self.access.watchers:
            watcher.malformed(handle, why)

    def out_of_reach(self, handle: int, why: str) -> None:
        """Memory that a request names cannot be reached."""
        for watcher in self.access.watchers:
            watcher.out_of_reach(handle, why)

    # -- up: the completion ring ----------------------------------------------------------------------------------

    def complete(self, srb: Srb) -> None:
        """A batch of one."""
        self.complete_all((srb,))

    def complete_all(self, srbs: Sequence[Srb]) -> None:
        """The port is done with these: their completions are posted with the batch, or soon."""
        for watcher in self.access.watchers:
            watcher.completed(srbs)
        self.answer(srbs, self.completions.done)
        self.in_flight.ended(srbs)
        if not self._batching and not self._flush_pending:
            self._flush_pending = True
            self.loop.call_soon(self._flush_late)

    def _flush_late(self) -> None:
        self._flush_pending = False
        if self.completions.done:
            self.completions.flush()
        # Requests may have been left on the ring for lack of room.
        self._process("room")

    # -- units ----------------------------------------------------------------------------------------------------

    def hot_plug(self, change: str, target: int, lun: int, known: bool = True) -> None:
        self.units.add(change, target, lun, known)

    def announcement(self, target: int, lun: int) -> Announcement:
        return self.units.announcement(target, lun)

    # -- who is told ----------------------------------------------------------------------------------------------

    def _tell_unreachable(self, why: str) -> None:
        if self.on_unreachable is not None:
            self.on_unreachable(why)

    def _tell_untold(self, what: str) -> None:
        if self.on_untold is not None:
            self.on_untold(what)

    # -- inspection -----------------------------------------------------------------------------------------------

    def queues(self) -> dict[str, object]:
        """What all of them have in `snapshot`, beside registers and rings (`RingQueues`)."""
        return {
            "ring_fault": self.access.fault,
            "unreachable": self.access.unreachable,
            "moderation": self.moderation.snapshot(),
            "messages": self.units.describe(),
            "traffic": self.in_flight.traffic.snapshot(),
        }

    def counters(self) -> dict[str, object]:
        """What all of them count (`RingCounters`)."""
        return {
            "kicks": self.kicks,
            "requests": self.requests,
            "completions": self.completions.posted,
            "bytes": self.completions.bytes,
            "outstanding": self.in_flight.outstanding,
            "pieces": self.in_flight.pieces,
            "bad_requests": self.bad_requests,
            "completions_waiting": self.completions.waiting,
            "messages": self.units.posted,
            "messages_waiting": len(self.units.waiting),
            "dma_faults": self.memory.faults,
        }


class _Looked(Ring, Generic[R]):
    """The request ring, for the window in which it is looked at without a kick."""

    def __init__(self, adapter: RingAdapter[R]) -> None:
        self._adapter = adapter

    def can_look(self) -> bool:
        access = self._adapter.access
        rings = access.rings
        return rings is not None and access.reachable(rings) and rings.cheap

    def has_work(self) -> bool:
        adapter = self._adapter
        access = adapter.access
        rings = access.rings
        if rings is None or not adapter.takes():
            return False
        if rings.generation != adapter.memory.generation and not access.reachable(rings):
            return False
        return rings.ready() != 0 and adapter.room(rings) > 0

    def take(self) -> None:
        self._adapter.look("look")

    def suppress(self) -> bool:
        rings = self._adapter.access.rings
        return rings is not None and self._adapter.suppress_kicks(rings)

    def restore(self) -> bool:
        adapter = self._adapter
        rings = adapter.access.rings
        if rings is None:
            return True
        try:
            if adapter.access.reachable(rings):
                adapter.allow_kicks(rings)
                return True
        except DmaFault:
            pass
        adapter.completions.retry_later()
        return False


class _Told(Driver, Generic[R]):
    """The driver, for the announcements of completions."""

    def __init__(self, adapter: RingAdapter[R]) -> None:
        self._adapter = adapter

    def standing(self) -> tuple[int, int]:
        access = self._adapter.access
        rings = access.rings
        if rings is None:
            return 1, 1  # as if there were this one: what cannot be looked at is announced at once
        current = rings.generation == self._adapter.memory.generation or access.reachable(rings)
        return rings.standing() if current and rings.cheap else (1, 1)

    def interrupt(self) -> None:
        self._adapter.announce_completions()
