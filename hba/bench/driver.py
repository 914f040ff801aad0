"""A guest's PVSCSI driver for benchmarks: descriptors written once, then only indices and kicks.

It must cost less than the server, or it would be what is measured: every slot of the request ring holds a finished
descriptor, a batch of completions is answered with a batch of new requests and one kick, and while it waits it looks
at the completion index before it sleeps on the interrupt.
"""

from __future__ import annotations

import os
import select
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from hba.adapters.pvscsi.registers import CMD_ADAPTER_RESET, CMD_SETUP_RINGS, INTR_CMPL_0, STATUS_FAILED
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    CMP_PROD_IDX,
    COMPLETION_SIZE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    PAGE_SHIFT,
    PAGE_SIZE,
    REQ_PROD_IDX,
    REQUEST,
    REQUEST_SIZE,
    SETUP_RINGS,
)
from hba.errors import GuestError, SocketError
from hba.scsi.address import unit_name
from hba.vfio_user.client import Disconnected, GuestRam, ReplyError, VfioUserClient

CONFIG = 7  # region index of config space (vfio-pci)
MSI = 1  # interrupt index
COMMAND, STATUS, INTR_MASK, KICK = 0x0000, 0x0008, 0x2010, 0x4018
BASE = 0x1000_0000  # bus address of our memory
SLOTS = 1024  # entries of the request ring: as many different requests before the first one comes again
REQUEST_PAGES = SLOTS * REQUEST_SIZE // PAGE_SIZE
COMPLETION_PAGES = SLOTS * COMPLETION_SIZE // PAGE_SIZE
MASK = SLOTS - 1
MOST_CAPABILITIES = 48  # that have room in the first 256 bytes; more would be a list without end
PATIENCE = 10_000  # ms without any completion before the server is given up
SPINS = 40  # rounds of looks at the completion index, with the CPU offered to others in between, before sleeping
LOOKS = 50
SMALL = 128 << 10  # bytes; who waits for more sleeps at once: the server can use the processor to copy

Transfer = tuple[bool, int, int]  # (write?, offset in bytes, length in bytes)


class BenchDriver:
    """Brings an adapter up, runs lists of transfers on one of its units, and takes it down again.

    `data_size` bytes of guest memory are for data. A context manager.
    """

    def __init__(self, socket: str | Path, data_size: int, target: int = 0, lun: int = 0) -> None:
        self._socket = socket
        self._target = target
        self._lun = lun
        rings = 1 + REQUEST_PAGES + COMPLETION_PAGES
        self._requests_at = PAGE_SIZE
        self._data_at = rings * PAGE_SIZE
        self._data_size = data_size
        self.ram = GuestRam(self._data_at + data_size, BASE)
        self._interrupt = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._client = VfioUserClient.connect(socket)
        self._produced = 0
        self._spins = SPINS
        self._state = self.ram.view[:PAGE_SIZE].cast("I")
        completions = self._requests_at + REQUEST_PAGES * PAGE_SIZE
        # as 64-bit words: context, dataLen, (senseLen, hostStatus, scsiStatus), pad
        self._completions = self.ram.view[completions : completions + COMPLETION_PAGES * PAGE_SIZE].cast("Q")
        try:
            self._start(completions)
        except BaseException:
            self.close()
            raise

    def _start(self, completions: int) -> None:
        client = self._client
        try:
            client.version()
        except (Disconnected, ReplyError) as error:
            raise SocketError(
                f"{self._socket}: the adapter is busy with another client, such as QEMU ({error}); `hba ls` says which "
                "process that is, end that one first"
            ) from error
        client.map_ram(self.ram)
        client.region_write(CONFIG, 0x04, (0x0006).to_bytes(2, "little"))  # memory space, bus master
        control = self._capability(5) + 2
        value = int.from_bytes(client.region_read(CONFIG, control, 2), "little")
        client.region_write(CONFIG, control, (value | 1).to_bytes(2, "little"))
        client.set_eventfds(MSI, [self._interrupt])
        self._command(CMD_ADAPTER_RESET, b"")
        first = BASE >> PAGE_SHIFT
        request_pages = [first + 1 + page for page in range(REQUEST_PAGES)]
        completion_pages = [first + (completions >> PAGE_SHIFT) + page for page in range(COMPLETION_PAGES)]
        self._command(
            CMD_SETUP_RINGS,
            SETUP_RINGS.pack(
                REQUEST_PAGES,
                COMPLETION_PAGES,
                first,
                *(request_pages + [0] * (32 - REQUEST_PAGES)),
                *(completion_pages + [0] * (32 - COMPLETION_PAGES)),
            ),
        )
        self._write(INTR_MASK, INTR_CMPL_0)
        self._settle()

    def _capability(self, wanted: int) -> int:
        at = self._client.region_read(CONFIG, 0x34, 1)[0]
        for _ in range(MOST_CAPABILITIES):
            if not at:
                break
            kind, following = self._client.region_read(CONFIG, at, 2)
            if kind == wanted:
                return at
            at = following
        raise GuestError(f"the adapter has no PCI capability {wanted:#x}")

    def _write(self, offset: int, value: int) -> None:
        self._client.region_write(0, offset, value.to_bytes(4, "little"))

    def _command(self, code: int, descriptor: bytes) -> None:
        self._write(COMMAND, code)
        for at in range(0, len(descriptor), 4):
            self._client.region_write(0, 4, descriptor[at : at + 4], posted=True)
        status = int.from_bytes(self._client.region_read(0, STATUS, 4), "little")
        if status == STATUS_FAILED:
            raise GuestError(f"the adapter refused PVSCSI command {code}")

    def _settle(self) -> None:
        """Make the unit ready: take its unit attentions, as a driver's first commands do."""
        for _ in range(8):
            if self.command(bytes(6)) == 0:
                return
        raise GuestError(f"unit {unit_name(self._target, self._lun)} does not become ready")

    # -- single commands ----------------------------------------------------------------------------------------

    def command(self, cdb: bytes, length: int = 0) -> int:
        """Run one command that reads `length` bytes (to the start of the data area); its completion's status word."""
        self._place(0, cdb, length, FLAG_DIR_TOHOST, self._data_at, slot=self._produced & MASK)
        slot = self._produced & MASK
        self._submit(1)
        self._wait(self._produced)
        entry = slot * 4
        self._state[CMP_CONS_IDX // 4] = self._produced & 0xFFFFFFFF
        return int(self._completions[entry + 2])

    def capacity(self) -> tuple[int, int]:
        """(blocks, bytes per block) by READ CAPACITY(16)."""
        status = self.command(bytes((0x9E, 0x10, *([0] * 11), 32, 0, 0)), 32)
        if status:
            raise GuestError(f"READ CAPACITY(16) ended with {status:#x}")
        raw = bytes(self.ram.view[self._data_at : self._data_at + 12])
        return int.from_bytes(raw[:8], "big") + 1, int.from_bytes(raw[8:], "big")

    def _place(self, context: int, cdb: bytes, length: int, flags: int, at: int, slot: int) -> None:
        REQUEST.pack_into(
            self.ram.view, self._requests_at + slot * REQUEST_SIZE,
            context, BASE + at if length else 0, length, 0, 0, flags, cdb.ljust(16, b"\0"), len(cdb),
            self._lun << 8, 0x20, 0, self._target, 0,
        )  # fmt: skip

    # -- a stream of commands -------------------------------------------------------------------------------------

    def prepare(self, transfers: Sequence[Transfer], block_size: int) -> None:
        """Write the descriptors: one for each slot of the ring, over and over through `transfers`."""
        largest = max(length for _, _, length in transfers)
        self._spins = SPINS if largest <= SMALL else 1
        room = self._data_size // largest
        for slot in range(SLOTS):
            write, offset, length = transfers[slot % len(transfers)]
            cdb = (
                bytes((0x8A if write else 0x88, 0))
                + (offset // block_size).to_bytes(8, "big")
                + (length // block_size).to_bytes(4, "big")
                + bytes(2)
            )
            at = self._data_at + slot % room * length
            self._place(slot, cdb, length, FLAG_DIR_TODEVICE if write else FLAG_DIR_TOHOST, at, slot)

    def run(
        self, seconds: float, depth: int, batch: int | None = None, most: int = 1 << 62
    ) -> tuple[int, float, array[int]]:
        """Keep `depth` commands outstanding for `seconds`, or until there were `most` of them.

        Returns (commands, seconds, latencies in ns). New ones are submitted when `batch` have ended (default: half
        of the depth). Raises `GuestError` when a command fails or none ends for 10 s.
        """
        if depth > SLOTS // 2:
            raise ValueError(f"depth is at most {SLOTS // 2}")
        batch = max(1, depth // 2) if batch is None else batch
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
                self._submit(new)
            elif self._produced == consumed:
                break
            self._wait(min(consumed + batch, self._produced))
            now = clock()
            done = (state[prod_at] - consumed) & 0xFFFFFFFF
            for index in range(consumed, consumed + done):
                entry = (index & MASK) * 4
                if completions[entry + 2]:
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
        wanted &= 0xFFFFFFFF
        while True:
            for _ in range(self._spins):
                for _ in range(LOOKS):
                    if (state[at] - wanted) & 0xFFFFFFFF < 0x8000_0000:
                        return
                os.sched_yield()
            ready, _, _ = select.select([self._interrupt], [], [], PATIENCE / 1000)
            if not ready:
                raise GuestError(f"the adapter completes nothing for {PATIENCE // 1000} s")
            os.eventfd_read(self._interrupt)

    # -- end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        try:
            self._write(COMMAND, CMD_ADAPTER_RESET)
        except Exception:
            pass  # it is gone already, which is what we want
        self._client.close()
        self._state.release()
        self._completions.release()
        self.ram.close()
        os.close(self._interrupt)

    def __enter__(self) -> BenchDriver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
