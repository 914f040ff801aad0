"""Bringing an adapter to rest, and saving and restoring all of it: the one place where every adapter gets that from.

At rest, nothing is under way: what was taken from the guest has been answered, what is not taken waits in its memory.
So a state has no requests in it. One that does not end within `PATIENCE` is ended by a reset of the bus, which every
driver knows and answers by asking again. A store whose call hangs even then may still write when the guest runs
elsewhere and has written the same blocks anew; so that adapter stays where it is, and runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

import hba
from hba.adapters.adapter import Adapter
from hba.adapters.state import AdapterState, converted, decode, encode
from hba.clock import MS, S, Timer
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.port.driver import PortDriver
from hba.scsi.address import unit_name
from hba.scsi.bus import ScsiBus
from hba.scsi.unit import LogicalUnit
from hba.scsi.unit_state import AnyUnitState, UnitState

PATIENCE = 3 * S  # for requests to end by themselves
FLUSH_PATIENCE = 10 * S  # for stores to write out what they have acknowledged
LOOK = 1 * MS  # how often it is looked at meanwhile


class AdapterKeeper:
    """`hba.pci.state.Keeper` of one adapter and the units behind it. `options`: `[adapter.TYPE]` as it is here."""

    def __init__(
        self, loop: EventLoop, adapter: Adapter, port: PortDriver, bus: ScsiBus, options: msgspec.Struct
    ) -> None:
        self._loop = loop
        self._adapter = adapter
        self._port = port
        self._bus = bus
        self._options = options
        self._timer: Timer | None = None
        self._round = 0  # of `rest`: what an earlier one was waiting for is not waited for any more

    # -- rest -----------------------------------------------------------------------------------------------------

    def uses(self, iova: int, size: int) -> bool:
        return self._adapter.uses(iova, size)

    def rest(self, done: Callable[[str], None], *, force: bool = False, flush: bool = False) -> None:
        self._end_wait()
        self._adapter.held = True
        self._wait(self._loop.clock.now() + PATIENCE, force, flush, done)

    def release(self) -> None:
        self._end_wait()
        self._adapter.held = False

    def _end_wait(self) -> None:
        self._round += 1
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, deadline: int, force: bool, flush: bool, done: Callable[[str], None]) -> None:
        """Until nothing is under way; `force`: at the deadline, end it."""
        if self._quiet():
            self._adapter.settle()
            if flush:
                self._flush(done)
            else:
                done("")
            return
        if self._loop.clock.now() >= deadline:
            busy = [unit for unit in self._bus if not unit.idle]
            if not force or not (self._adapter.unanswered or not self._port.idle):
                done(f"{self._names(busy) or 'the adapter'} is still at work")
                return
            self._port.reset_adapter()
            if hanging := [unit for unit in busy if unit.hangs]:
                done(
                    f"a call of the store of {self._names(hanging)} hangs, and may still write; end it, then try again"
                )
                return
            deadline, force = self._loop.clock.now() + S, False
        self._timer = self._loop.clock.call_later(LOOK, lambda: self._wait(deadline, force, flush, done))

    def _quiet(self) -> bool:
        return not self._adapter.unanswered and self._port.idle and all(unit.idle for unit in self._bus)

    @staticmethod
    def _names(units: list[LogicalUnit]) -> str:
        return ", ".join(unit_name(*unit.address) for unit in units)

    def _flush(self, done: Callable[[str], None]) -> None:
        """Whoever goes on with the stores must find there what was acknowledged here."""
        turn = self._round
        waited_for = list(self._bus)
        failed: list[str] = []

        def too_late() -> None:
            self._end_wait()
            done(
                f"the store of {self._names(waited_for)} has not written out what it holds for {FLUSH_PATIENCE // S} s"
            )

        def ended(unit: LogicalUnit, error: StorageError | None) -> None:
            if turn != self._round:
                return
            waited_for.remove(unit)
            if error is not None:
                failed.append(f"{unit_name(*unit.address)}: {error}")
            if not waited_for:
                self._end_wait()
                done("; ".join(failed))

        if not waited_for:
            done("")
            return
        self._timer = self._loop.clock.call_later(FLUSH_PATIENCE, too_late)
        for unit in list(waited_for):
            unit.make_stable_now(partial(ended, unit))

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        adapter = self._adapter
        units: list[AnyUnitState] = []
        for unit in self._bus:
            if not unit.lasting:
                raise ValueError(
                    f"unit {unit_name(*unit.address)} keeps its blocks in this process, or in a file that goes with "
                    "it: nobody else could go on with them"
                )
            units.append(unit.save())
        return encode(
            AdapterState(
                program=hba.__version__,
                type=adapter.type,
                options=msgspec.Raw(msgspec.json.encode(self._options)),
                function=adapter.function.capture(),
                units=units,
                adapter=msgspec.Raw(msgspec.json.encode(adapter.save())),
            )
        )

    def restore(self, data: bytes) -> None:
        state = decode(data)
        adapter = self._adapter
        if state.type != adapter.type:
            raise ValueError(f"the state is of an adapter of type {state.type}, this one is of type {adapter.type}")
        self._check_options(state)
        adapter.function.check_saved(state.function)
        own = converted(state.adapter, adapter.state_type, f"the state of {adapter.type}")
        for unit, saved in self._pairs(state.units):
            unit.restore(saved)
        adapter.restore(own)
        adapter.function.take_over(state.function)

    def _check_options(self, state: AdapterState) -> None:
        there = converted(state.options, type(self._options), f"[adapter.{state.type}] of the state")
        for name in self._options.__struct_fields__:
            if getattr(there, name) != getattr(self._options, name):
                raise ValueError(
                    f"[adapter.{state.type}] {name} is {getattr(there, name)!r} in the state and "
                    f"{getattr(self._options, name)!r} here; configure both alike"
                )

    def _pairs(self, units: Sequence[UnitState]) -> list[tuple[LogicalUnit, UnitState]]:
        """Each unit with its state. Raises ValueError unless both sides have the same ones."""
        here = {unit.address: unit for unit in self._bus}
        there = {(unit.target, unit.lun): unit for unit in units}
        if len(there) != len(units):
            raise ValueError("the state has a unit twice")
        if missing := sorted(there.keys() - here.keys()):
            raise ValueError(f"the state has a unit {unit_name(*missing[0])}, this adapter has none there")
        if more := sorted(here.keys() - there.keys()):
            raise ValueError(f"this adapter has a unit {unit_name(*more[0])}, the state has none there")
        pairs = [(unit, there[address]) for address, unit in here.items()]
        for unit, saved in pairs:
            unit.check_saved(saved)
        return pairs
