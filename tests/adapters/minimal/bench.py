"""The guest's side of a minimal adapter."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from hba.adapters.adapter import Adapter
from hba.adapters.bench import BASE, BenchDriver, InnerDriver, Place, Transfer, transfer_cdb
from hba.errors import GuestError
from tests.adapters.minimal.structures import (
    DONE,
    DOORBELL,
    ENDED,
    ENTRY,
    ENTRY_SIZE,
    IN,
    NO_DATA,
    OUT,
    READY,
    RESULT,
    RING,
    SIZE,
    STATE_AT,
)

ENTRIES = 32
PAGE = 4096


def entry(cdb: bytes, address: int, length: int, direction: int, target: int = 0, lun: int = 0) -> bytes:
    """An entry that is ready."""
    return ENTRY.pack(
        cdb.ljust(16, b"\0"), address, length, len(cdb), target, lun, direction, READY, 0, 0, 0, b""
    )  # fmt: skip


class MinimalDriver(BenchDriver):
    """The driver of an adapter behind a socket. `sense`: of the latest command that failed."""

    def __init__(self, socket: str | Path, data_size: int, target: int = 0, lun: int = 0) -> None:
        self._rung = 0
        self.sense = b""
        super().__init__(socket, PAGE, data_size, target, lun)

    def _bring_up(self) -> None:
        self._client.region_write(0, RING, BASE.to_bytes(8, "little"))
        self._write(SIZE, ENTRIES)

    def _take_down(self) -> None:
        self._write(SIZE, 0)

    def doorbell(self, count: int) -> None:
        """`count` more entries are ready."""
        self._rung += count
        self._write(DOORBELL, self._rung)

    def _wait(self) -> None:
        while self._read(DONE) != self._rung:
            self._sleep()

    def execute(self, cdb: bytes, length: int = 0, direction: int = NO_DATA, place: Place | None = None) -> int:
        """Run one command on the start of the data area: 0, or SRB status and SCSI status."""
        target, lun = place or (self._target, self._lun)
        return self._run([entry(cdb, BASE + self._data_at, length, direction, target, lun)])

    def command(self, cdb: bytes, length: int = 0, place: Place | None = None) -> int:
        return self.execute(cdb, length, IN if length else NO_DATA, place)

    def _run(self, entries: Sequence[bytes]) -> int:
        """Run them together; what the last one that failed ended with."""
        places = [(self._rung + number) % ENTRIES * ENTRY_SIZE for number in range(len(entries))]
        for at, made in zip(places, entries, strict=True):
            self.ram.view[at : at + ENTRY_SIZE] = made
        self.doorbell(len(entries))
        self._wait()
        failed = 0
        for at in places:
            state, scsi_status, srb_status, length, sense = RESULT.unpack_from(self.ram.view, at + STATE_AT)
            if state != ENDED:
                raise GuestError(f"an entry is in state {state}")
            if srb_status != 1 or scsi_status:
                failed = srb_status << 8 | scsi_status
                self.sense = sense[:length]
        return failed

    def prepare(self, transfers: Sequence[Transfer], block_size: int, places: Sequence[Place] = ()) -> None:
        at = BASE + self._data_at
        self._entries = [
            entry(transfer_cdb(transfer, block_size), at, transfer[2], OUT if transfer[0] else IN, target, lun)
            for transfer, (target, lun) in zip(transfers, cycle(places or [(self._target, self._lun)]), strict=False)
        ]

    def run(self, seconds: float, depth: int, most: int = 1 << 62, each: bool = False) -> tuple[int, float, array[int]]:
        """A batch of `depth` after the other."""
        begin = now = time.perf_counter_ns()
        latencies: array[int] = array("Q")
        while now < begin + seconds * 1e9 and len(latencies) < most:
            first = len(latencies)
            batch_ = [self._entries[(first + number) % len(self._entries)] for number in range(min(depth, ENTRIES))]
            if self._run(batch_):
                raise GuestError("a command failed")
            before, now = now, time.perf_counter_ns()
            latencies.extend([now - before] * len(batch_))
        return len(latencies), (now - begin) / 1e9, latencies


class MinimalInnerDriver(InnerDriver):
    """The driver of an adapter in this process."""

    slots = ENTRIES

    def __init__(self, adapter: Adapter) -> None:
        self._function = adapter.function
        self._rung = 0

    def set_up(self, ram: memoryview, reads: Iterator[bytes], length: int) -> None:
        self._ram = ram
        self._function.region_write(0, SIZE, self.slots.to_bytes(4, "little"))
        for slot, cdb in zip(range(self.slots), reads, strict=False):
            at = slot * ENTRY_SIZE
            ram[at : at + ENTRY_SIZE] = entry(cdb, PAGE + slot * length, length, IN)

    def run(self, commands: int, depth: int, turn: Callable[[int], object]) -> None:
        for _ in range(commands // depth):
            self._rung += depth
            self._function.region_write(0, DOORBELL, self._rung.to_bytes(4, "little"))
            while int.from_bytes(self._function.region_read(0, DONE, 4), "little") != self._rung:
                turn(0)

    def check(self) -> None:
        _, scsi_status, srb_status, _, _ = RESULT.unpack_from(self._ram, STATE_AT)
        if srb_status != 1 or scsi_status:
            raise GuestError(f"a read ended with {srb_status}, {scsi_status}")
