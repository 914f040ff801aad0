"""Watches the guest driver by what only the device sees (rules GD-01 ...). Exists only while the verifier is on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from hba.adapters.pvscsi.registers import INTR_ALL_SUPPORTED
from hba.adapters.pvscsi.rings import MASK32, Rings
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    FLAG_DIR_NONE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    FLAG_RESERVED,
    FLAG_WITH_SG_LIST,
    PAGE_SIZE,
    REQ_PROD_IDX,
    REQUEST,
)
from hba.clock import S, Timer
from hba.errors import DmaFault
from hba.pci.registers import Register
from hba.srb import SRB_FLAGS_DATA_OUT, SRB_FLAGS_UNSPECIFIED_DIRECTION, Srb
from hba.verifier import Verifier

if TYPE_CHECKING:
    from hba.adapters.pvscsi.adapter import PvscsiAdapter

STALE = 10 * S  # completions not consumed, line not acknowledged
UNKICKED = 1 * S
TICK = 1 * S

_DIRECTIONS = FLAG_DIR_NONE | FLAG_DIR_TOHOST | FLAG_DIR_TODEVICE
_LEGAL_DIRECTIONS = (FLAG_DIR_NONE, FLAG_DIR_TOHOST, FLAG_DIR_TODEVICE)

Descriptor = tuple[int, int, int, int, int, int, bytes, int, int, int, int, int, int]


class GuestWatch:
    """One adapter's watcher. The adapter calls it at each step; a tick looks for what did not happen."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def attach(self, adapter: PvscsiAdapter) -> None:
        self.adapter = adapter
        self.clock = adapter.loop.clock
        self._once: set[tuple[object, ...]] = set()
        self._removed: list[tuple[int, int]] = []  # (start, end) unmapped while requests were in flight
        self._lists: dict[Srb, tuple[int, int, bytes]] = {}  # scatter list: address, bytes, its contents
        self._copies: dict[int, Descriptor] = {}  # ring slot -> descriptor as first seen
        self._timer: Timer | None = None
        self._forget_rings()
        adapter.memory.on_unmap = self._unmapped
        registers = adapter.registers
        registers.on_undefined = self._undefined
        adapter.bar.on_undefined = self._undefined
        registers.on_wrong_width = self._wrong_width
        registers.on_wrong_access = self._wrong_direction

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
        self._copies.clear()

    # -- rings ----------------------------------------------------------------------------------------------------

    def rings_set_up(self, rings: Rings) -> None:
        self._forget_rings()
        self._last_cons = rings.state.load(CMP_CONS_IDX)
        self._announced = rings.request_cons
        self._arm()

    def reset(self, outstanding: int) -> None:
        self.drained()
        if outstanding:
            self.verifier.report("GD-16", f"reset with {outstanding} requests outstanding", outstanding=outstanding)

    def kick(self) -> None:
        adapter = self.adapter
        self._last_kick = self.clock.now()
        self._report_idle()  # and the next one is no command
        self._kicks += 1
        self._unkicked_since = None
        if adapter.rings is None:
            if adapter.commands.counts["ADAPTER_RESET"] or not adapter.commands.counts["SETUP_RINGS"]:
                self.verifier.report("GD-19", "kick, but no rings are set up")
        elif not adapter.memory.enabled:
            self.verifier.report("GD-20", "kick with bus mastering off", where="request ring")
        else:
            self._arm()

    def taking(self, rings: Rings, cons: int, pending: int, why: str) -> None:
        """The device is about to take `pending` requests from ring index `cons` on."""
        if pending and why == "look":
            self._last_kick = self.clock.now()
            if self._unkicked_since is None and not self.adapter.commands.threshold_enabled:
                self._unkicked_since = self._last_kick
            self._arm()
        end = (cons + pending) & MASK32
        if (new := (end - self._announced) & MASK32) < MASK32 // 2:  # a ring is worked off in several turns
            self._taken += new
            self._announced = end
        self._idle = max(0, self._kicks - self._taken)
        self._check_consumer(rings)
        ring, unpack, copies = rings.requests, REQUEST.unpack_from, self._copies
        slots, mask = ring.slots, ring.mask
        for index in range(cons, cons + pending):
            slot = index & mask
            copies[slot] = unpack(*(slots[slot] if slots else ring.load(index)))

    def _report_idle(self) -> None:
        """GD-14. Each kick is counted once, or every later one would be found to be too many."""
        if self._idle:
            self.verifier.report(
                "GD-14", f"{self._idle} kicks without a request", kicks=self._kicks, requests=self._taken
            )
            self.drained()

    def _forgive_unkicked(self) -> None:
        """A request that a look took may still be kicked for, which is not idle (GD-14); one that was taken a tick ago
        will not be any more, and is no excuse for later kicks."""
        self._kicks += min(self._lag, max(0, self._taken - self._kicks))
        self._lag = max(0, self._taken - self._kicks)

    def drained(self) -> None:
        """A driver kicks before it aborts or resets, so that nothing of what it means is left on the ring."""
        self._kicks -= self._idle
        self._idle = 0

    def ring_stopped(self, why: str) -> None:
        self.verifier.report("GD-05", why, where="request ring")

    def request(self, srb: Srb, plain: bool, descriptor: Descriptor) -> None:
        """A descriptor has become an SRB that is about to be submitted. `plain`: one piece of data, no odd flags."""
        adapter = self.adapter
        rings = adapter.rings
        assert rings is not None
        slot = (rings.request_cons - 1) & rings.requests.mask
        copy = self._copies.pop(slot, descriptor)
        if not plain or copy != descriptor or descriptor[0] in adapter.in_flight:
            self._look_closely(srb, descriptor, slot, copy)

    def _look_closely(self, srb: Srb, descriptor: Descriptor, slot: int, copy: Descriptor) -> None:
        """The same descriptor, which is no plain one: every check."""
        context, address, length, _sense, _sense_length, flags, _cdb, cdb_length, _lun, _tag, bus = descriptor[:11]
        where = f"request ring slot {slot}"
        if copy != descriptor:
            self.verifier.report("GD-01", "the descriptor changed after reqProdIdx had passed it", where=where)
        direction = flags & _DIRECTIONS
        if flags & FLAG_RESERVED or direction not in _LEGAL_DIRECTIONS or (length and direction == FLAG_DIR_NONE):
            self.verifier.report("GD-18", f"flags 0x{flags:x} with {length} bytes of data", where=where, srb=repr(srb))
        if bus or not 0 < cdb_length <= 16:
            self.verifier.report("GD-18", f"bus {bus}, cdbLen {cdb_length}", where=where, srb=repr(srb))
        other = self.adapter.in_flight.get(context)
        if other is not None:
            self.verifier.report(
                "GD-06", f"context 0x{context:x} names a request in flight already", where=where, srb=repr(other)
            )
        if srb.mdl is None:
            return
        segments = srb.mdl.segments
        if len(segments) > 1 and srb.srb_flags & SRB_FLAGS_UNSPECIFIED_DIRECTION != SRB_FLAGS_DATA_OUT:
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
            self._lists[srb] = (address, size, self.adapter.memory.read(address, size))

    def bad_data(self, context: int, why: str) -> None:
        rule = "GD-07" if why.startswith(("DMA", "sense")) else "GD-09"
        self.verifier.report(rule, why, where=f"request with context 0x{context:x}")

    def completed(self, srbs: Sequence[Srb]) -> None:
        """SRBs have come back from the port; their completions are not posted yet."""
        if self._lists or self._removed:
            for srb in srbs:
                self._check_completed(srb)
            if not self.adapter.in_flight.keys() - {srb.context[0] for srb in srbs}:
                self._removed.clear()
        if self._timer is None:
            self._arm()

    def _check_completed(self, srb: Srb) -> None:
        where = f"request with context 0x{srb.context[0]:x}"
        watched = self._lists.pop(srb, None)
        if watched is not None:
            address, size, contents = watched
            try:
                if self.adapter.memory.read(address, size) != contents:
                    self.verifier.report(
                        "GD-02", f"the scatter list at 0x{address:x} changed in flight", where=where, srb=repr(srb)
                    )
            except DmaFault as fault:
                self.verifier.report("GD-10", f"scatter list: {fault}", where=where, srb=repr(srb))
        if self._removed and srb.mdl is not None:
            self._check_removed(srb, where)

    def _check_removed(self, srb: Srb, where: str) -> None:
        assert srb.mdl is not None
        for start, size in srb.mdl.segments:
            for first, end in self._removed:
                if start < end and first < start + size and self.adapter.memory.find(start) is None:
                    self.verifier.report(
                        "GD-10", f"0x{start:x}+0x{size:x} was unmapped in flight", where=where, srb=repr(srb)
                    )

    def _unmapped(self, iova: int, size: int) -> None:
        if self.adapter.outstanding:
            self._removed.append((iova, iova + size))

    def command_failed(self, name: str, fault: DmaFault) -> None:
        rule = "GD-07" if self.adapter.memory.enabled else "GD-20"
        self.verifier.report(rule, str(fault), where=f"command {name}")

    # -- registers ------------------------------------------------------------------------------------------------

    def _first(self, *what: object) -> bool:
        if what in self._once or len(self._once) > 4096:
            return False
        self._once.add(what)
        return True

    def _undefined(self, kind: str, offset: int, size: int, value: int) -> None:
        if self._first("undefined", kind, offset):
            self.verifier.report("GD-11", f"{kind} of {size} bytes at 0x{offset:x}", where="BAR 0", value=value)

    def _wrong_width(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        if self._first("width", kind, register.name, size):
            self.verifier.report(
                "GD-12", f"{kind} of {size} bytes at 0x{offset:x} ({register.name})", where="BAR 0", value=value
            )

    def _wrong_direction(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        if self._first("direction", kind, register.name):
            self.verifier.report(
                "GD-13", f"{kind} of {register.name}, which is {register.access}", where="BAR 0", value=value
            )

    def interrupt(self) -> None:
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
        rings = adapter.rings
        if rings is None or not adapter.memory.enabled or adapter.memory.find(rings.state.address) is None:
            return
        try:
            waiting = self._check_consumer(rings)
            pending = (rings.state.load(REQ_PROD_IDX) - rings.request_cons) & MASK32
        except DmaFault:
            return
        now = self.clock.now()
        room = min(rings.requests.entries, rings.completions.entries) - adapter.outstanding
        takeable = 0 < pending <= room and not adapter.fault
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
        if waiting or pending or adapter.outstanding or self._line_since is not None or unkicked:
            self._arm()  # nothing left to wait for: an idle guest costs nothing

    def _check_consumer(self, rings: Rings) -> int:
        """GD-03, GD-04; returns the completions on the ring."""
        cons = rings.state.load(CMP_CONS_IDX)
        waiting = (rings.completion_prod - cons) & MASK32
        if waiting > rings.completions.entries:
            if self._first("consumer", cons):
                self.verifier.report("GD-04", f"cmpConsIdx {cons} with cmpProdIdx {rings.completion_prod}")
            return 0
        now = self.clock.now()
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
