"""Watches the guest's driver by what only a PVSCSI device sees (`hba.adapters.pvscsi.rules`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hba.adapters.adapter import Adapter
from hba.adapters.pvscsi.adapter import PvscsiAdapter
from hba.adapters.pvscsi.pages import Ring
from hba.adapters.pvscsi.registers import INTR_ALL_SUPPORTED
from hba.adapters.pvscsi.rings import Rings
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    FLAG_DIR_NONE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    FLAG_RESERVED,
    FLAG_WITH_SG_LIST,
    PAGE_SHIFT,
    PAGE_SIZE,
    REQ_PROD_IDX,
    REQUEST,
    REQUEST_FLAGS,
    REQUEST_SIZE,
)
from hba.adapters.ring.rings import MASK32
from hba.adapters.ring.verifier import named
from hba.adapters.ring.watcher import RingWatcher
from hba.clock import S, Timer
from hba.errors import DmaFault
from hba.pci.interrupts import InterruptWatcher
from hba.pci.registers import Register, RegisterWatcher
from hba.srb import SRB_FLAGS_DATA_OUT, SRB_FLAGS_UNSPECIFIED_DIRECTION, Srb
from hba.verifier import Verifier

STALE: Final = 10 * S  # completions not consumed, line not acknowledged
UNKICKED: Final = 1 * S
TICK: Final = 1 * S
MOST_TOLD: Final = 4096  # different indices without sense
HALF: Final = MASK32 // 2  # an index that is less ahead of another is ahead of it, not behind

_DIRECTIONS: Final = FLAG_DIR_NONE | FLAG_DIR_TOHOST | FLAG_DIR_TODEVICE
_LEGAL_DIRECTIONS = (FLAG_DIR_NONE, FLAG_DIR_TOHOST, FLAG_DIR_TODEVICE)
_PLAIN = (FLAG_DIR_TOHOST, FLAG_DIR_TODEVICE)  # flags of a request there is nothing to say about

Descriptor = tuple[int, int, int, int, int, int, bytes, int, int, int, int, int, int]


def watch(adapter: Adapter, verifier: Verifier) -> None:
    """Put the verifier of the guest's driver at the adapter's boundaries."""
    assert isinstance(adapter, PvscsiAdapter)
    guest = GuestWatch(verifier, adapter)
    adapter.watch(guest)
    adapter.registers.watch(_Acknowledgements(guest))
    adapter.function.interrupts.watchers += (_Line(guest),)


class _Acknowledgements(RegisterWatcher):
    """Writes to INTR_STATUS."""

    def __init__(self, guest: GuestWatch) -> None:
        self._guest = guest

    def accessed(self, kind: str, register: Register, value: int) -> None:
        if register.name == "INTR_STATUS" and kind == "write":
            self._guest.acknowledged()


class _Line(InterruptWatcher):
    """INTA#."""

    def __init__(self, guest: GuestWatch) -> None:
        self._guest = guest

    def line(self, asserted: bool) -> None:
        if asserted:
            self._guest.interrupted()


class Witness(Ring):
    """Stands in front of the request ring: knows its descriptors as they were when the device first saw them, and gives
    away copies, so that what was compared is what is used.

    `odd`  those that are not as plain reads and writes are, or have changed: by context, (slot, descriptor, changed?)
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        super().__init__(ring.memory, [address >> PAGE_SHIFT for address in ring.addresses], REQUEST_SIZE, False)
        self._seen = bytearray(ring.entries * REQUEST_SIZE)
        self.odd: dict[int, tuple[int, Descriptor, bool]] = {}

    def see(self, first: int, count: int) -> None:
        """Requests that are about to be taken. Raises `DmaFault`."""
        self.odd.clear()
        done = 0
        while done < count:
            data, here = self._ring.stretch(first + done, count - done)
            at = ((first + done) & self.mask) * REQUEST_SIZE
            self._seen[at : at + here * REQUEST_SIZE] = data
            done += here

    def bind(self) -> None:
        self._ring.bind()

    def stretch(self, index: int, count: int) -> tuple[bytes | memoryview, int]:
        data, count = self._ring.stretch(index, count)
        copy = bytes(data)
        slot = index & self.mask
        before = self._seen[slot * REQUEST_SIZE : (slot + count) * REQUEST_SIZE]
        changed = copy != before
        for number, (flags,) in enumerate(REQUEST_FLAGS.iter_unpack(copy)):
            if changed or flags not in _PLAIN:
                descriptor = REQUEST.unpack_from(copy, number * REQUEST_SIZE)
                other = changed and descriptor != REQUEST.unpack_from(before, number * REQUEST_SIZE)
                self.odd[descriptor[0]] = slot + number, descriptor, other
        return copy, count


class GuestWatch(RingWatcher):
    """One adapter's. A tick looks for what did not happen."""

    def __init__(self, verifier: Verifier, adapter: PvscsiAdapter) -> None:
        self.verifier = verifier
        self.adapter = adapter
        self.clock = adapter.loop.clock
        self._told: set[int] = set()  # consumer indices without sense
        self._flying: dict[int, Srb] = {}  # by context
        self._lists: dict[Srb, tuple[int, int, bytes]] = {}  # scatter list: address, bytes, its contents
        self._timer: Timer | None = None
        self._forget_rings()

    def _forget_rings(self) -> None:
        self._kicks = 0
        self._taken = 0
        self._announced = 0  # ring index up to which requests were counted
        self._idle = 0  # kicks so far that found nothing, of which nothing was said yet
        self._lag = 0  # requests without a kick at the last tick
        self._unkicked_since: int | None = None  # ... of a driver that should kick for each
        self._last_kick = self.clock.now()  # or when a look found something
        self._last_cons = 0
        self._consumed_at = self.clock.now()
        self._line_since: int | None = None
        self._reported_stale = False
        self._reported_line = False
        self._reported_unkicked = -1
        self._witness: Witness | None = None

    # -- rings ----------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        rings = self.adapter.access.rings
        assert rings is not None
        self._forget_rings()
        self._announced = rings.request_cons
        rings.requests = self._witness = Witness(rings.requests)
        self._arm()

    def resetting(self) -> None:
        self._drained()
        outstanding = self.adapter.in_flight.outstanding
        if outstanding:
            self.verifier.report("GD-16", f"reset with {outstanding} requests outstanding", outstanding=outstanding)

    def kicked(self) -> None:
        adapter = self.adapter
        self._last_kick = self.clock.now()
        self._report_idle()  # and the next one is no command
        self._kicks += 1
        self._unkicked_since = None
        if adapter.access.rings is None:
            if adapter.commands.counts["ADAPTER_RESET"] or not adapter.commands.counts["SETUP_RINGS"]:
                self.verifier.report("GD-19", "kick, but no rings are set up")
        elif adapter.memory.enabled:
            self._arm()

    def looked(self, ready: int, why: str) -> None:
        rings = self.adapter.access.rings
        assert rings is not None
        first, now = rings.request_cons, self.clock.now()
        if ready and why == "look":
            self._last_kick = now
            if self._unkicked_since is None and not self.adapter.commands.threshold_enabled:
                self._unkicked_since = now
            if self._timer is None:
                self._arm()
        end = (first + ready) & MASK32
        if (new := (end - self._announced) & MASK32) < HALF:  # a ring is worked off in several turns
            self._taken += new
            self._announced = end
        self._idle = idle if (idle := self._kicks - self._taken) > 0 else 0
        if why == "command":
            self._drained()
        self._check_consumer(rings, now)
        if self._witness is not None:
            self._witness.see(first, ready)

    def _report_idle(self) -> None:
        """GD-14. Each kick is counted once, or every later one would be found to be too many."""
        if self._idle:
            self.verifier.report(
                "GD-14", f"{self._idle} kicks without a request", kicks=self._kicks, requests=self._taken
            )
            self._drained()

    def _forgive_unkicked(self) -> None:
        """A request that a look took may still be kicked for, which is not idle (GD-14); one that was taken a tick ago
        will not be any more, and is no excuse for later kicks."""
        self._kicks += min(self._lag, max(0, self._taken - self._kicks))
        self._lag = max(0, self._taken - self._kicks)

    def _drained(self) -> None:
        """A driver kicks before it aborts or resets, so that nothing of what it means is left on the ring."""
        self._kicks -= self._idle
        self._idle = 0

    def stopped(self, why: str) -> None:
        self.verifier.report("GD-05", why, where="request ring")

    # -- requests -------------------------------------------------------------------------------------------------

    def took(self, srbs: Sequence[Srb]) -> None:
        flying, odd = self._flying, self._witness.odd if self._witness is not None else {}
        for srb in srbs:
            context: int = srb.context[0]
            if (other := flying.get(context)) is not None:
                message = f"context 0x{context:x} names a request in flight already"
                self.verifier.report("GD-06", message, where=named(context), srb=repr(other))
            flying[context] = srb
            if odd and (found := odd.pop(context, None)) is not None:
                self._look_closely(srb, *found)

    def _look_closely(self, srb: Srb, slot: int, descriptor: Descriptor, changed: bool) -> None:
        _context, address, length, _sense, _sense_length, flags = descriptor[:6]
        where = f"request ring slot {slot}"
        if changed:
            self.verifier.report("GD-01", "the descriptor changed after reqProdIdx had passed it", where=where)
        direction = flags & _DIRECTIONS
        if flags & FLAG_RESERVED or direction not in _LEGAL_DIRECTIONS or (length and direction == FLAG_DIR_NONE):
            self.verifier.report("GD-18", f"flags 0x{flags:x} with {length} bytes of data", where=where, srb=repr(srb))
        if srb.mdl is None:
            return
        segments = srb.mdl.segments
        if srb.srb_flags & SRB_FLAGS_UNSPECIFIED_DIRECTION != SRB_FLAGS_DATA_OUT:
            overlaps = [(one, two) for one, two in pairwise(sorted(segments)) if sum(one) > two[0]]
            if overlaps:
                (start, size), (after, _) = overlaps[0]
                more = f", and {len(overlaps) - 1} more" if len(overlaps) > 1 else ""
                self.verifier.report(
                    "GD-08", f"0x{start:x}+0x{size:x} and 0x{after:x} overlap{more}", where=where, srb=repr(srb)
                )
        if flags & FLAG_WITH_SG_LIST:
            size = PAGE_SIZE - address % PAGE_SIZE
            size = min(size, 16 * len(segments))  # joined neighbours make it shorter than the list: still its head
            try:
                self._lists[srb] = (address, size, self.adapter.memory.read(address, size))
            except DmaFault:
                pass  # the client has stopped to answer, since the list was read

    def malformed(self, handle: int, why: str) -> None:
        self.verifier.report("GD-09", why, where=named(handle))

    def completed(self, srbs: Sequence[Srb]) -> None:
        flying, lists = self._flying, self._lists
        for srb in srbs:
            context = srb.context[0]
            if flying.get(context) is srb:
                del flying[context]
            if lists and (watched := lists.pop(srb, None)) is not None:
                self._compare(srb, *watched)
        if self._timer is None:
            self._arm()

    def _compare(self, srb: Srb, address: int, size: int, contents: bytes) -> None:
        where = named(srb.context[0])
        try:
            if self.adapter.memory.read(address, size) != contents:
                message = f"the scatter list at 0x{address:x} changed in flight"
                self.verifier.report("GD-02", message, where=where, srb=repr(srb))
        except DmaFault as fault:
            self.verifier.report("GD-10", f"scatter list: {fault}", where=where, srb=repr(srb))

    # -- interrupts -----------------------------------------------------------------------------------------------

    def interrupted(self) -> None:
        if self._line_since is None:
            self._line_since = self.clock.now()
            self._arm()

    def acknowledged(self) -> None:
        self._line_since = None
        self._reported_line = False

    # -- what did not happen --------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self.clock.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._report_idle()
        self._forgive_unkicked()
        adapter = self.adapter
        rings, memory = adapter.access.rings, adapter.memory
        if rings is None or not memory.enabled or memory.find(rings.state.address) is None:
            return
        now = self.clock.now()
        try:
            waiting = self._check_consumer(rings, now)
            pending = (rings.state.load(REQ_PROD_IDX) - rings.request_cons) & MASK32
        except DmaFault:
            return
        outstanding = adapter.in_flight.outstanding
        takeable = 0 < pending <= rings.most_outstanding - outstanding and not adapter.access.fault
        if takeable and now - self._last_kick >= UNKICKED and self._reported_unkicked != rings.request_cons:
            self._reported_unkicked = rings.request_cons
            self.verifier.report(
                "GD-15", f"{pending} requests on the ring, last kick {(now - self._last_kick) / S:.1f} s ago"
            )
        if self._unkicked_since is not None and now - self._unkicked_since >= UNKICKED:
            self._unkicked_since = None
            self.verifier.report("GD-15", "a look took requests nobody kicked for, nor since")
        self._check_line(now)
        unkicked = self._lag or self._unkicked_since is not None
        if waiting or pending or outstanding or self._line_since is not None or unkicked:
            self._arm()  # nothing left to wait for: an idle guest costs nothing

    def _check_consumer(self, rings: Rings, now: int) -> int:
        """GD-03, GD-04; returns the completions on the ring."""
        cons = rings.state.load(CMP_CONS_IDX)
        waiting = (rings.completion_prod - cons) & MASK32
        if waiting > rings.completions.entries:
            if cons not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(cons)
                self.verifier.report("GD-04", f"cmpConsIdx {cons} with cmpProdIdx {rings.completion_prod}")
            return 0
        if cons != self._last_cons or not waiting:
            self._last_cons = cons
            self._consumed_at = now
            self._reported_stale = False
        elif now - self._consumed_at >= STALE and not self._reported_stale:
            self._reported_stale = True
            self.verifier.report("GD-03", f"{waiting} completions not consumed for {(now - self._consumed_at) // S} s")
        return waiting

    def _check_line(self, now: int) -> None:
        adapter = self.adapter
        live = adapter.registers["INTR_STATUS"] & adapter.registers["INTR_MASK"] & INTR_ALL_SUPPORTED
        if not live or adapter.function.interrupts.mode != "intx":
            self._line_since = None
            self._reported_line = False
        elif self._line_since is not None and now - self._line_since >= STALE and not self._reported_line:
            self._reported_line = True
            self.verifier.report("GD-17", f"INTR_STATUS 0x{live:x} not cleared for {(now - self._line_since) // S} s")
