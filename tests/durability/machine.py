"""A machine that writes and keeps account of what was acknowledged: a PVSCSI driver without a guest.

As a program it is what gets killed in place of QEMU: `python -m tests.durability.machine SOCKET PROMISE SEED` writes
until it is killed, and says each acknowledged block on stdout: `BLOCK STAMP`.
"""

from __future__ import annotations

import os
import random
import select
import sys
from collections.abc import Iterator

from hba.adapters.pvscsi.bench import MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import CMP_CONS_IDX, CMP_PROD_IDX, FLAG_DIR_NONE, FLAG_DIR_TODEVICE
from hba.vfio_user.client import Disconnected

BLOCK = 4096
BLOCKS = 64
DEPTH = 8
SECTORS = BLOCK // 512
PATIENCE = 20.0  # s without an answer: the server hangs

FUA, FLUSH, THROUGH = PROMISES = ("fua", "flush", "write-through")


def stamped(stamp: int) -> bytes:
    """What block content a stamp stands for."""
    return stamp.to_bytes(8, "little") * (BLOCK // 8)


class Refused(AssertionError):
    """A command ended with an error, though nothing was wrong."""


class Machine(PvscsiBenchDriver):
    """Writes random blocks, `DEPTH` at a time. `promise`: what makes a write one that has to survive.

    FUA: the write's own bit; FLUSH: a SYNCHRONIZE CACHE after it; THROUGH: the unit has no write cache (WCE=0).
    """

    def __init__(self, socket: str, promise: str, seed: int) -> None:
        super().__init__(socket, DEPTH * BLOCK)
        self._promise = promise
        self._chance = random.Random(seed)
        self._stamp = seed << 32
        self._consumed = self._produced
        self._free = list(range(DEPTH))
        self._writing: dict[int, tuple[int, int]] = {}  # context -> block, stamp
        self._flushing: dict[int, tuple[int, int]] = {}

    def acknowledged(self) -> Iterator[tuple[int, int]]:
        """(block, stamp) of each write as it becomes stable, for ever. Raises `Disconnected` when the server ends."""
        while True:
            new = 0
            while self._free:
                self._write_something(self._free.pop())
                new += 1
            if new:
                self._submit(new)
            yield from self.collect()
            if not self._free:
                self._sleep()

    def _write_something(self, context: int) -> None:
        busy = {block for block, _ in [*self._writing.values(), *self._flushing.values()]}
        block = self._chance.choice([number for number in range(BLOCKS) if number not in busy])
        self._stamp += 1
        at = self._data_at + context * BLOCK
        self.ram.view[at : at + BLOCK] = stamped(self._stamp)
        flags = 0x08 if self._promise == FUA else 0
        cdb = bytes((0x8A, flags)) + (block * SECTORS).to_bytes(8, "big") + SECTORS.to_bytes(4, "big") + bytes(2)
        slot = self._slot()
        self._place(context, cdb, BLOCK, FLAG_DIR_TODEVICE, at, slot)
        self._writing[context] = (block, self._stamp)

    def _flush(self, context: int) -> None:
        self._place(context, bytes((0x35, *([0] * 9))), 0, FLAG_DIR_NONE, 0, self._slot())
        self._submit(1)

    def _slot(self) -> int:
        """The ring's next slot. What was put there is announced by `_submit`."""
        slot = (self._produced + self._placed) & MASK
        self._placed += 1
        return slot

    _placed = 0

    def _submit(self, count: int) -> None:
        self._placed = 0
        super()._submit(count)

    def collect(self) -> list[tuple[int, int]]:
        """The completions that are in the ring now; also those of a server that has been killed since."""
        found: list[tuple[int, int]] = []
        produced = self._state[CMP_PROD_IDX // 4]
        while self._consumed & 0xFFFFFFFF != produced:
            entry = (self._consumed & MASK) * 4
            context, status = self._completions[entry], self._completions[entry + 2]
            self._consumed += 1
            self._state[CMP_CONS_IDX // 4] = self._consumed & 0xFFFFFFFF
            if status:
                raise Refused(f"a command ended with {status:#x} (sense length, host status, SCSI status)")
            if context in self._writing and self._promise == FLUSH:
                self._flushing[context] = self._writing.pop(context)
                self._flush(context)
                continue
            found.append(self._flushing.pop(context) if context in self._flushing else self._writing.pop(context))
            self._free.append(context)
        return found

    def _sleep(self) -> None:
        ready, _, _ = select.select([self._interrupt, self._client.fileno()], [], [], PATIENCE)
        if not ready:
            raise AssertionError(f"no answer from the adapter for {PATIENCE:.0f} s")
        if self._interrupt in ready:
            os.eventfd_read(self._interrupt)
        elif self._client.fileno() in ready:
            self._client.poll()  # raises Disconnected at the end of the connection


def main() -> None:
    socket, promise, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for block, stamp in Machine(socket, promise, seed).acknowledged():
        os.write(1, b"%d %d\n" % (block, stamp))


if __name__ == "__main__":
    try:
        main()
    except Disconnected:
        pass
