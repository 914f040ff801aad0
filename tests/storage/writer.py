"""The process that `test_durability` kills: writes stamped blocks and says on stdout which are acknowledged.

Usage: writer.py SPEC(JSON) FUA(0|1) SEED. Each line out: block number, stamp. Runs until it is killed.
"""

from __future__ import annotations

import json
import os
import random
import sys
from functools import partial

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.open import open_backend
from hba.storage.workers import WorkerPool

BLOCK = 4096
BLOCKS = 64
DEPTH = 8


def main() -> None:
    spec, fua, seed = json.loads(sys.argv[1]), sys.argv[2] == "1", int(sys.argv[3])
    loop = EventLoop()
    backend = open_backend(spec, loop, WorkerPool(loop, threads=3))
    chance = random.Random(seed)
    stamp = seed << 32
    busy: set[int] = set()

    def acknowledged(block: int, stamp: int, error: StorageError | None) -> None:
        assert error is None, error
        os.write(1, b"%d %d\n" % (block, stamp))
        busy.discard(block)

    def written(block: int, stamp: int, error: StorageError | None) -> None:
        assert error is None, error
        after = partial(acknowledged, block, stamp)
        if backend.flush(after):
            after(None)

    while True:
        while len(busy) < DEPTH:
            block = chance.choice([number for number in range(BLOCKS) if number not in busy])
            busy.add(block)
            stamp += 1
            view = memoryview(stamp.to_bytes(8, "little") * (BLOCK // 8))
            done = partial(acknowledged if fua else written, block, stamp)
            if backend.write([view], block * BLOCK, done, fua):
                done(None)
        loop.run_once(None)


if __name__ == "__main__":
    main()
