"""The minimal adapter: registers, and entries of its ring <-> SRBs. All else is what every adapter with rings has."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hba.adapters.ring.adapter import RingAdapter
from hba.adapters.ring.rings import MASK32
from hba.adapters.ring.state import Number, Waiting
from hba.adapters.types import Wiring
from hba.errors import DmaFault
from hba.pci.bars import Bar
from hba.pci.function import PciFunction
from hba.pci.registers import RegisterBlock
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    Srb,
)
from tests.adapters.minimal.options import MinimalOptions
from tests.adapters.minimal.rings import WIDTH, MinimalRings
from tests.adapters.minimal.structures import BAR_SIZE, ENTRY, ENTRY_SIZE, IDENTITY, IN, NO_DATA, OUT, REGISTERS

SENSE = 18


class MinimalState(Struct, forbid_unknown_fields=True):
    """What `RING` and `SIZE` set up, and how far it is."""

    ring: Number
    entries: Number  # 0: no ring
    announced: Number
    seen: Number
    taken: Number
    done: Number
    waiting: Waiting


class MinimalAdapter(RingAdapter[MinimalRings]):
    """One function. The driver's name for a request is the number of its entry."""

    type = "minimal"
    state_type = MinimalState

    def __init__(self, wiring: Wiring, options: MinimalOptions) -> None:
        super().__init__(wiring, WIDTH)
        self._options = options
        self._registers = RegisterBlock("MINIMAL", REGISTERS)
        self.serve(
            PciFunction(
                wiring.loop,
                IDENTITY,
                {0: Bar(BAR_SIZE, {0: self._registers})},
                wiring.memory,
                msi_vectors=1 if wiring.msi else 0,
                posted_writes=wiring.posted_writes,
            )
        )
        self._registers.on_write("SIZE", self._set_up)
        self._registers.on_write("DOORBELL", self._rung)
        self._registers.on_write("HEARD", self._heard)
        self._registers.on_read("DONE", self._looked_at, peek=lambda: self._registers["DONE"])

    # -- registers ------------------------------------------------------------------------------------------------

    def _set_up(self, entries: int) -> None:
        if self.access.rings is not None:
            self.adapter_reset()
        if not entries:
            return
        try:
            rings = MinimalRings(self.memory, self._registers, min(entries, self._options.entries))
            rings.rebind()
            self.access.set_up(rings)
        except DmaFault as fault:
            self.access.cannot_reach("its ring", fault)

    def _rung(self, count: int) -> None:
        if self.access.rings is not None:
            self.access.rings.announced = count
        self.kick()

    def _looked_at(self) -> int:
        done = self._registers["DONE"]
        if self.access.rings is not None:
            self.access.rings.seen = done
        return done

    def _heard(self, _value: int) -> None:
        if self.access.rings is not None:
            self.access.rings.units.heard()

    def announce_completions(self) -> None:
        self.function.interrupts.signal(0)

    def announce_units(self) -> None:
        self.function.interrupts.signal(0)

    def no_interrupt(self) -> None:
        self._registers["DONE"] = self._registers["UNIT"] = 0

    def reset_registers(self) -> None:
        self._registers.reset()

    def save(self) -> MinimalState:
        rings = self.access.rings
        if rings is None:
            return MinimalState(0, 0, 0, 0, 0, 0, self.what_waits())
        return MinimalState(
            rings.address,
            rings.entries,
            rings.announced,
            rings.seen,
            rings.request_cons,
            rings.completion_prod,
            self.what_waits(),
        )

    def restore(self, state: Struct) -> None:
        assert isinstance(state, MinimalState)
        if state.entries > self._options.entries:
            raise ValueError(f"a ring of {state.entries} entries, at most {self._options.entries} are possible")
        if state.waiting.completions:
            raise ValueError("completions never wait for room here")
        rings: MinimalRings | None = None
        if state.entries:
            self._registers["RING"] = state.ring  # the others come back last
            rings = MinimalRings(self.memory, self._registers, state.entries)
            rings.announced, rings.seen = state.announced & MASK32, state.seen & MASK32
            rings.request_cons, rings.completion_prod = state.taken & MASK32, state.done & MASK32
        self.go_on_with(rings, state.waiting)

    # -- entries --------------------------------------------------------------------------------------------------

    def take(self, rings: MinimalRings, count: int) -> list[Srb]:
        srbs: list[Srb] = []
        for _ in range(count):
            try:
                entry = self.memory.read(rings.place(rings.request_cons), ENTRY_SIZE)
            except DmaFault as fault:
                self.access.stop(str(fault), fault)
                break
            number = rings.request_cons
            rings.request_cons = (number + 1) & MASK32
            srb = self._srb(number, *ENTRY.unpack(entry)[:7])
            if srb is not None:
                srbs.append(srb)
        return srbs

    def _srb(
        self, number: int, cdb: bytes, address: int, length: int, cdb_length: int, target: int, lun: int, direction: int
    ) -> Srb | None:
        srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, 0, target, lun, self.completion)
        srb.cdb = cdb[: min(max(cdb_length, 1), 16)]
        srb.cdb_length = len(srb.cdb)
        srb.sense_info_buffer_length = SENSE
        if direction != NO_DATA and length:
            srb.srb_flags = SRB_FLAGS_DATA_OUT if direction == OUT else SRB_FLAGS_DATA_IN
            srb.data_transfer_length = length
            try:
                srb.mdl = self.memory.buffer([(address, length)], direction == IN)
            except DmaFault as fault:
                self.out_of_reach(number, str(fault))
                self.completions.done.extend((number, 0, 0, SRB_STATUS_INVALID_REQUEST, 0))
                return None
        run = self.in_flight.traffic.taking(target, lun)
        run[0].taken += 1
        srb.context = (number, run)
        self.in_flight.by_handle[number] = srb
        return srb

    def answer(self, srbs: Sequence[Srb], done: list[int]) -> None:
        for srb in srbs:
            number: int = srb.context[0]
            sense = srb.sense_info_buffer[:SENSE]
            if sense and self.access.rings is not None:
                self.access.rings.sense[number] = sense
            status = srb.srb_status & SRB_STATUS_MASK
            done.extend((number, srb.data_transfer_length, srb.scsi_status, status, len(sense)))

    # -- inspection -----------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        rings = self.access.rings
        shown: dict[str, object] | None = None
        if rings is not None:
            cons = rings.request_cons
            ring = {"entries": rings.entries, "prod": rings.announced, "cons": cons, "pages": [rings.address]}
            shown = {"entries": ring}
        return {
            "type": self.type,
            "registers": self._registers.decode(),
            "rings": shown,
            **self.queues(),
            "counters": self.counters(),
        }
