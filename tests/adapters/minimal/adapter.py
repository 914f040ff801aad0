"""The minimal adapter: entries of its ring <-> SRBs."""

from __future__ import annotations

from hba.adapters.adapter import Adapter, Announcement
from hba.adapters.traffic import Run, Traffic
from hba.adapters.types import Wiring
from hba.errors import DmaFault
from hba.pci.bars import Bar
from hba.pci.function import PciFunction
from hba.pci.registers import RegisterBlock
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, SRB_FUNCTION_EXECUTE_SCSI, SRB_STATUS_MASK, Srb
from tests.adapters.minimal.options import MinimalOptions
from tests.adapters.minimal.structures import (
    BAR_SIZE,
    ENDED,
    ENTRY,
    ENTRY_SIZE,
    IDENTITY,
    IN,
    NO_DATA,
    OUT,
    REGISTERS,
    RESULT,
    STATE_AT,
)

MASK32 = 0xFFFFFFFF
SENSE = 18


class MinimalAdapter(Adapter):
    """One function."""

    type = "minimal"

    def __init__(self, wiring: Wiring, options: MinimalOptions) -> None:
        self._loop = wiring.loop
        self._port = wiring.port
        self._memory = wiring.memory
        self._verifier = wiring.verifier
        self._options = options
        self._registers = RegisterBlock("MINIMAL", REGISTERS)
        self.function = PciFunction(
            wiring.loop,
            IDENTITY,
            {0: Bar(BAR_SIZE, {0: self._registers})},
            wiring.memory,
            msi_vectors=1 if wiring.msi else 0,
            posted_writes=wiring.posted_writes,
        )
        self._done = self._registers.cell("DONE")
        self._ring = 0  # bus address
        self._size = 0  # entries; 0: no ring
        self._life = 0  # of the ring: what was taken from an earlier one is not answered
        self._announced = self._taken = 0
        self._traffic = Traffic(wiring.loop.clock, lambda target, lun: lun in wiring.bus.units.get(target, ()))
        self._counters = dict.fromkeys(("requests", "completions", "bytes", "outstanding", "doorbells"), 0)
        self._registers.on_write("SIZE", self._set_up)
        self._registers.on_write("DOORBELL", self._rung)
        self.function.on_reset.append(self._reset)
        self.function.on_resume.append(self._look)

    def start(self) -> None:
        self._port.start()

    def stop(self) -> None:
        self._port.stop()
        self._forget()
        self.function.close()

    def _reset(self) -> None:
        self._port.reset_adapter()
        self._forget()

    def _forget(self) -> None:
        self._life += 1
        self._ring = self._size = self._announced = self._taken = self._done.value = 0

    def _set_up(self, entries: int) -> None:
        self._forget()
        self._ring, self._size = self._registers["RING"], min(entries, self._options.entries)

    def _rung(self, count: int) -> None:
        self._counters["doorbells"] += 1
        if count == self._announced and self._verifier is not None:
            self._verifier.report("MN-01", f"the doorbell says {count}, as before")
        self._announced = count
        self._loop.call_soon(self._look)  # not now: our memory may be out of reach until the write is answered

    def _look(self) -> None:
        """Take what was made ready. A count beyond the ring is what the guest may not say: nothing is taken then."""
        if not self._size or not self._memory.enabled:
            return
        count = (self._announced - self._taken) & MASK32
        try:
            srbs = [self._take(self._taken + number) for number in range(count if count <= self._size else 0)]
        except DmaFault as fault:
            if self.on_unreachable is not None:
                self.on_unreachable(str(fault))
            return
        self._taken = self._announced
        self._counters["requests"] += len(srbs)
        self._counters["outstanding"] += len(srbs)
        self._port.submit_all(srbs)

    def _take(self, number: int) -> Srb:
        at = self._ring + number % self._size * ENTRY_SIZE
        cdb, address, length, cdb_length, target, lun, direction, *_ = ENTRY.unpack(self._memory.read(at, ENTRY_SIZE))
        srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, 0, target, lun, self._completed)
        srb.cdb = cdb[: min(max(cdb_length, 1), 16)]
        srb.cdb_length = len(srb.cdb)
        srb.sense_info_buffer_length = SENSE
        if direction != NO_DATA and length:
            srb.srb_flags = SRB_FLAGS_DATA_OUT if direction == OUT else SRB_FLAGS_DATA_IN
            srb.data_transfer_length = length
            srb.mdl = self._memory.buffer([(address, length)], direction == IN)
        run = self._traffic.taking(target, lun)
        run[0].taken += 1
        srb.context = (self._life, at, run)
        return srb

    def _completed(self, srb: Srb) -> None:
        life, at, run = srb.context
        answered: list[Run] = [run]
        self._traffic.answered(answered)
        self._counters["outstanding"] -= 1
        if life != self._life:
            return
        sense = srb.sense_info_buffer[:SENSE]
        status = srb.srb_status & SRB_STATUS_MASK
        try:
            self._memory.write(at + STATE_AT, RESULT.pack(ENDED, srb.scsi_status, status, len(sense), sense))
        except DmaFault as fault:
            if self.on_unreachable is not None:
                self.on_unreachable(str(fault))
            return
        self._counters["completions"] += 1
        self._counters["bytes"] += srb.data_transfer_length
        self._done.value = (self._done.value + 1) & MASK32
        self.function.interrupts.signal(0)

    def hot_plug(self, change: str, target: int, lun: int, known: bool = True) -> None:
        """There is no way to tell."""

    def announcement(self, target: int, lun: int) -> Announcement:
        return {"state": "none", "why": "this adapter cannot tell its driver"}

    def snapshot(self) -> dict[str, object]:
        ring = {"entries": self._size, "prod": self._announced, "cons": self._taken, "pages": [self._ring]}
        return {
            "type": self.type,
            "registers": self._registers.decode(),
            "rings": {"entries": ring} if self._size else None,
            "traffic": self._traffic.snapshot(),
            "counters": dict(self._counters),
        }
