"""A guest's PVSCSI driver for benchmarks: descriptors written once, then only indices and kicks.

That of an adapter behind a socket must cost less than the server, or it would be what is measured: every slot of the
request ring holds a finished descriptor.
"""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hba.adapters.adapter import Adapter
from hba.adapters.bench import BASE, BenchDriver, InnerDriver, Place, Transfer, transfer_cdb
from hba.adapters.pvscsi.registers import CMD_ADAPTER_RESET, CMD_SETUP_RINGS, INTR_CMPL_0, STATUS_FAILED
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    CMP_PROD_IDX,
    COMPLETION,
    COMPLETION_SIZE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    PAGE_SHIFT,
    PAGE_SIZE,
    REQ_PROD_IDX,
    REQUEST,
    REQUEST_SIZE,
    SETUP_RINGS,
    SETUP_RINGS_MAX_PAGES,
)
from hba.errors import GuestError

COMMAND, STATUS, INTR_MASK, KICK = 0x0000, 0x0008, 0x2010, 0x4018
SLOTS = 1024  # entries of the request ring: as many different requests before the first one comes again
REQUEST_PAGES = SLOTS * REQUEST_SIZE // PAGE_SIZE
COMPLETION_PAGES = SLOTS * COMPLETION_SIZE // PAGE_SIZE
MASK = SLOTS - 1
SENSE = 96  # bytes of room for the sense data of each request, as Linux's driver has it
SENSE_PAGES = SLOTS * SENSE // PAGE_SIZE


def setup_rings(state: int, requests: int, request_pages: int, completions: int, completion_pages: int) -> bytes:
    """The descriptor of SETUP_RINGS; all by the number of their first page, whose others follow."""
    return SETUP_RINGS.pack(
        request_pages,
        completion_pages,
        state,
        *range(requests, requests + request_pages),
        *[0] * (SETUP_RINGS_MAX_PAGES - request_pages),
        *range(completions, completions + completion_pages),
        *[0] * (SETUP_RINGS_MAX_PAGES - completion_pages),
    )


class PvscsiBenchDriver(BenchDriver):
    """The driver of an adapter behind a socket."""

    def __init__(self, socket: str | Path, data_size: int, target: int = 0, lun: int = 0) -> None:
        self._requests_at = PAGE_SIZE
        self._sense_at = (1 + REQUEST_PAGES + COMPLETION_PAGES) * PAGE_SIZE
        self._produced = 0
        super().__init__(socket, self._sense_at + SENSE_PAGES * PAGE_SIZE, data_size, target, lun)

    def _bring_up(self) -> None:
        self._state = self.ram.view[:PAGE_SIZE].cast("I")
        completions = self._requests_at + REQUEST_PAGES * PAGE_SIZE
        # as 64-bit words: context, dataLen, (senseLen, hostStatus, scsiStatus), pad
        self._completions = self.ram.view[completions : completions + COMPLETION_PAGES * PAGE_SIZE].cast("Q")
        self._command(CMD_ADAPTER_RESET, b"")
        first = BASE >> PAGE_SHIFT
        requests, completions = first + 1, first + (completions >> PAGE_SHIFT)
        self._command(CMD_SETUP_RINGS, setup_rings(first, requests, REQUEST_PAGES, completions, COMPLETION_PAGES))
        self._write(INTR_MASK, INTR_CMPL_0)

    def _take_down(self) -> None:
        try:
            self._write(COMMAND, CMD_ADAPTER_RESET)
        finally:
            self._state.release()
            self._completions.release()

    def _command(self, code: int, descriptor: bytes) -> None:
        self._write(COMMAND, code)
        for at in range(0, len(descriptor), 4):
            self._client.region_write(0, 4, descriptor[at : at + 4], posted=True)
        if self._read(STATUS) == STATUS_FAILED:
            raise GuestError(f"the adapter refused PVSCSI command {code}")

    # -- single commands ----------------------------------------------------------------------------------------

    def command(self, cdb: bytes, length: int = 0, place: Place | None = None) -> int:
        """Run one command that reads `length` bytes (to the start of the data area); its completion's status word."""
        slot = self._produced & MASK
        self._place(0, cdb, length, FLAG_DIR_TOHOST, self._data_at, slot, place)
        self._submit(1)
        self._wait(self._produced)
        entry = slot * 4
        self._state[CMP_CONS_IDX // 4] = self._produced & 0xFFFFFFFF
        return int(self._completions[entry + 2] >> 32)  # what there is of sense data does not count

    def _place(
        self, context: int, cdb: bytes, length: int, flags: int, at: int, slot: int, place: Place | None = None
    ) -> None:
        target, lun = place or (self._target, self._lun)
        REQUEST.pack_into(
            self.ram.view, self._requests_at + slot * REQUEST_SIZE,
            context, BASE + at if length else 0, length, BASE + self._sense_at + slot * SENSE, SENSE, flags,
            cdb.ljust(16, b"\0"), len(cdb), lun << 8, 0x20, 0, target, 0,
        )  # fmt: skip

    # -- a stream of commands -------------------------------------------------------------------------------------

    def prepare(self, transfers: Sequence[Transfer], block_size: int, places: Sequence[Place] = ()) -> None:
        """Write the descriptors: one for each slot of the ring, over and over through `transfers` and `places`."""
        room = self._data_size // max(length for _, _, length in transfers)
        for slot in range(SLOTS):
            write, _, length = transfer = transfers[slot % len(transfers)]
            cdb = transfer_cdb(transfer, block_size)
            at = self._data_at + slot % room * length
            flags = FLAG_DIR_TODEVICE if write else FLAG_DIR_TOHOST
            self._place(slot, cdb, length, flags, at, slot, places[slot % len(places)] if places else None)

    def run(self, seconds: float, depth: int, most: int = 1 << 62, each: bool = False) -> tuple[int, float, array[int]]:
        if depth > SLOTS // 2:
            raise ValueError(f"depth is at most {SLOTS // 2}")
        state, completions = self._state, self._completions
        clock = time.perf_counter_ns
        started = array("Q", bytes(8 * SLOTS))
        latencies: array[int] = array("Q")
        prod_at, cons_at = CMP_PROD_IDX // 4, CMP_CONS_IDX // 4
        base = self._produced
        consumed = base
        begin = clock()
        end = begin + int(seconds * 1e9)
        now = begin
        while True:
            new = min(depth - (self._produced - consumed), base + most - self._produced) if now < end else 0
            if new:
                for index in range(self._produced, self._produced + new):
                    started[index & MASK] = now
                for _ in range(new if each else 1):
                    self._submit(1 if each else new)
            elif self._produced == consumed:
                break
            self._wait(consumed + 1)
            now = clock()
            done = (state[prod_at] - consumed) & 0xFFFFFFFF
            for index in range(consumed, consumed + done):
                entry = (index & MASK) * 4
                if completions[entry + 2] >> 32:
                    raise GuestError(f"a command ended with {completions[entry + 2]:#x} (sense, host, SCSI status)")
                latencies.append(now - started[completions[entry]])
            consumed += done
            state[cons_at] = consumed & 0xFFFFFFFF
        return consumed - base, (now - begin) / 1e9, latencies

    def _submit(self, count: int) -> None:
        self._produced += count
        self._state[REQ_PROD_IDX // 4] = self._produced & 0xFFFFFFFF
        self._client.region_write(0, KICK, b"\0\0\0\0", posted=True)

    def _wait(self, wanted: int) -> None:
        """Until completion number `wanted` is there."""
        state, at = self._state, CMP_PROD_IDX // 4
        while (state[at] - wanted) & 0x80000000:
            self._sleep()


# -- in the adapter's process -----------------------------------------------------------------------------------------

_RING_PAGES = 4
_INNER_STATE, _INNER_REQUESTS, _INNER_COMPLETIONS, _INNER_DATA = 0x1000, 0x10000, 0x20000, 0x40000


class PvscsiInnerDriver(InnerDriver):
    """The driver of an adapter in this process."""

    slots = _RING_PAGES * PAGE_SIZE // REQUEST_SIZE

    def __init__(self, adapter: Adapter) -> None:
        self._function = adapter.function

    def set_up(self, ram: memoryview, reads: Iterator[bytes], length: int) -> None:
        self._ram = ram
        self._length = length
        self._state = ram[_INNER_STATE : _INNER_STATE + PAGE_SIZE].cast("I")
        state, requests, completions = (at >> PAGE_SHIFT for at in (_INNER_STATE, _INNER_REQUESTS, _INNER_COMPLETIONS))
        self._register(COMMAND, CMD_SETUP_RINGS)
        for (word,) in struct.iter_unpack("<I", setup_rings(state, requests, _RING_PAGES, completions, 1)):
            self._register(4, word)
        for slot, cdb in zip(range(self.slots), reads, strict=False):
            REQUEST.pack_into(
                ram, _INNER_REQUESTS + slot * REQUEST_SIZE,
                slot + 1, _INNER_DATA + slot * length, length, 0, 0, FLAG_DIR_TOHOST,
                cdb.ljust(16, b"\0"), len(cdb), 0, 0x20, 0, 0, 0,
            )  # fmt: skip

    def _register(self, offset: int, value: int) -> None:
        self._function.region_write(0, offset, struct.pack("<I", value))

    def run(self, commands: int, depth: int, turn: Callable[[int], object]) -> None:
        state, kick = self._state, KICK
        produced, consumed, answered = REQ_PROD_IDX >> 2, CMP_CONS_IDX >> 2, CMP_PROD_IDX >> 2
        write, zero = self._function.region_write, bytes(4)
        number = state[produced]
        for _ in range(commands // depth):
            number += depth
            state[produced] = number
            write(0, kick, zero)
            while state[answered] != number:
                turn(0)
            state[consumed] = number

    def check(self) -> None:
        context, moved, _, host, status = COMPLETION.unpack_from(self._ram, _INNER_COMPLETIONS)
        if host or status or (context, moved) != (1, self._length):
            raise GuestError(f"a read ended with host status {host}, SCSI status {status} and {moved} bytes")

    def close(self) -> None:
        self._state.release()
