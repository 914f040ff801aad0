"""The disk dump port driver: a few blocks of a disk through the miniport in dump mode, after a crash that is none.

    crash     nothing of the miniport runs any more; what the adapter still does goes on, and nobody takes it
    dump      another miniport of the same kind: HwFindAdapter with DumpMode, HwInitialize, READ CAPACITY, and the
              blocks read, written as they were, and read again, one request at a time, by polling (DM-01)
    recover   as after a boot: what was under way ends with BUS_RESET, the miniport finds its adapter anew

No block changes: what is written is what was read just before, while nobody else has the disk.

Sources: Restrictions on Miniport Drivers that Manage the Boot Drive; PORT_CONFIGURATION_INFORMATION (storport.h);
SBC-3 "READ (16)", "WRITE (16)", "READ CAPACITY (10)".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from typing import Any, Final

from hba.classdriver import srbs
from hba.classdriver.srbs import Unit
from hba.clock import MS, S
from hba.errors import ConfigError
from hba.miniport.config import DUMP_MODE_MARK_MEMORY, DUMP_MODE_RESUME
from hba.port.base import AnyPort
from hba.port.pnp import PnpStep
from hba.port.script import Step
from hba.scsi.sense import KEY_UNIT_ATTENTION, condition_of
from hba.srb import (
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_STATUS_MASK,
    SRB_STATUS_PENDING,
    SRB_STATUS_SUCCESS,
    STATUS_NAMES,
    Srb,
)

MakePort = Callable[[int], AnyPort]  # (DumpMode) -> a port with a new miniport, not started; ConfigError
EACH: Final = 1 * MS  # between two looks
TIME_OUT: Final = 10  # seconds of one command
TRIES: Final = 4  # of a command that ends with a unit attention: there was a reset
GIVEN: Final = 60  # seconds of TimeOutValue: nobody resets the bus in dump mode
MOST_BYTES: Final = 1 << 20  # of the blocks

READ_CAPACITY, READ_16, WRITE_16 = 0x25, 0x88, 0x8A
_CDB_16: Final = struct.Struct(">BBQIBB")


def dump(
    port: AnyPort, make: MakePort, mode: int, unit: Unit, lba: int, blocks: int
) -> Generator[Step, Any, list[PnpStep]]:
    """The whole of it; `port` is the one that runs, `mode` DUMP_MODE_*. DUMP_MODE_MARK_MEMORY moves nothing,
    DUMP_MODE_RESUME reads only."""
    steps: list[PnpStep] = []
    port.crash()
    try:
        other = make(mode)
        try:
            other.start()
        except ConfigError as error:
            steps.append(PnpStep("hw_find_adapter, hw_initialize", f"failed: {error}"))
        else:
            steps.append(PnpStep("hw_find_adapter, hw_initialize", "success"))
            if mode != DUMP_MODE_MARK_MEMORY:
                yield from _Disk(other, unit, steps).move(lba, blocks, mode != DUMP_MODE_RESUME)
        other.stop()
    except ConfigError as error:
        steps.append(PnpStep("DriverEntry", f"failed: {error}"))
    try:
        port.recover()
    except ConfigError as error:
        steps.append(PnpStep("recover", f"failed: {error}"))
    else:
        steps.append(PnpStep("recover", "success"))
    return steps


class _Disk:
    """One unit behind a port in dump mode."""

    def __init__(self, port: AnyPort, unit: Unit, steps: list[PnpStep]) -> None:
        self._port = port
        self._unit = unit
        self._steps = steps
        self._name = "{}:{}:{}".format(*unit)

    def move(self, lba: int, blocks: int, write: bool) -> Generator[Step, Any, None]:
        capacity = yield from self._read("READ CAPACITY", bytes((READ_CAPACITY,)) + bytes(9), 8)
        if capacity is None:
            return
        size = int.from_bytes(capacity[4:8], "big")
        if not 0 < size * blocks <= MOST_BYTES:
            self._add("READ", f"not tried: {blocks} blocks of {size} bytes; at most {MOST_BYTES} bytes")
            return
        before = yield from self._read("READ", _CDB_16.pack(READ_16, 0, lba, blocks, 0, 0), size * blocks)
        if before is None or not write:
            return
        out = srbs.read_in(self._unit, _CDB_16.pack(WRITE_16, 0, lba, blocks, 0, 0), len(before), GIVEN)
        out.srb_flags = SRB_FLAGS_DATA_OUT | SRB_FLAGS_NO_QUEUE_FREEZE
        assert out.mdl is not None
        out.mdl.write(before)
        yield from self._done("WRITE", out)
        after = yield from self._read("READ", _CDB_16.pack(READ_16, 0, lba, blocks, 0, 0), len(before))
        if after is not None:
            self._add("compare", "the same" if after == before else "different")

    def _read(self, what: str, cdb: bytes, length: int) -> Generator[Step, Any, bytes | None]:
        """What a command has read; None: it failed."""
        for _ in range(TRIES):
            srb = srbs.read_in(self._unit, cdb, length, GIVEN)
            worked = yield from self._done(what, srb)
            if worked and srb.mdl is not None:
                return srb.mdl.read()
            if not _attention(srb):
                break
        return None

    def _done(self, what: str, srb: Srb) -> Generator[Step, Any, bool]:
        polls = yield lambda ended: self._poll(srb, ended)
        ended = srb.srb_status != SRB_STATUS_PENDING
        if not ended:
            self._port.finding("DM-01", f"{what} did not end in {TIME_OUT} s of calling hw_interrupt", srb._port)
        status = STATUS_NAMES.get(srb.srb_status & SRB_STATUS_MASK, f"{srb.srb_status:#04x}") if ended else "no end"
        self._add(what, f"{status}, hw_interrupt called {polls} times")
        return ended and srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_SUCCESS

    def _poll(self, srb: Srb, ended: Callable[[int], None]) -> None:
        """DM-01: send it, and have the miniport look at its adapter until it has ended; how often it had to."""
        port = self._port
        over: list[Srb] = []
        srb.completion = over.append
        port.submit(srb)
        clock, polls = port.clock, 0
        deadline = clock.now() + TIME_OUT * S

        def look() -> None:
            nonlocal polls
            if not over and port.started and clock.now() < deadline:
                polls += 1
                port.poll()
                clock.call_later(0 if over else EACH, look)
            else:
                ended(polls)

        look()

    def _add(self, what: str, outcome: str) -> None:
        self._steps.append(PnpStep(what, outcome, self._name))


def _attention(srb: Srb) -> bool:
    return condition_of(srb.sense) >> 16 == KEY_UNIT_ATTENTION
