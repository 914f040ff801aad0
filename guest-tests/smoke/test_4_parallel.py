"""Many requests at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pattern
from adapter import open_direct, read_at, write_at

MIB = 1 << 20
THREADS = 8
FIRST, SIZE = 16 * MIB, 16 * MIB
FIO_FIRST, FIO_SIZE = 32 * MIB, 16 * MIB


def test_threads_write_and_read_their_own_stretches(writable):
    def work(node: str, number: int) -> None:
        stretch = SIZE // THREADS
        start = FIRST + number * stretch
        chance = random.Random(number)
        with open_direct(node, os.O_RDWR) as fd:
            # Sizes from one page to 256 KiB: scatter lists of one element to many.
            offset = 0
            while offset < stretch:
                size = min(pattern.BLOCK * chance.choice((1, 2, 3, 8, 31, 64)), stretch - offset)
                blocks = pattern.data(f"thread/{number}", offset // pattern.BLOCK, size // pattern.BLOCK)
                write_at(fd, start + offset, blocks)
                offset += size
            os.fsync(fd)
            found = read_at(fd, start, stretch, chunk=128 * 1024)
        wrong = pattern.first_difference(found, f"thread/{number}", 0)
        assert wrong is None, f"{node}: byte {start + wrong} is not what thread {number} wrote"

    for disk in writable:
        with ThreadPoolExecutor(THREADS) as pool:
            for result in [pool.submit(work, disk.node, number) for number in range(THREADS)]:
                result.result()


def test_fio_writes_at_random_and_verifies(writable):
    for disk in writable:
        command = [
            "fio", "--name=verify", f"--filename={disk.node}", "--direct=1", "--ioengine=libaio", "--iodepth=32",
            "--rw=randwrite", "--bsrange=4k-64k", "--blockalign=4k", f"--offset={FIO_FIRST}", f"--size={FIO_SIZE}",
            "--verify=crc32c", "--verify_fatal=1", "--end_fsync=1", "--randseed=1", "--output-format=json",
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        job = json.loads(run.stdout[run.stdout.index("{") :])["jobs"][0]
        assert job["error"] == 0
        assert job["write"]["io_bytes"] >= FIO_SIZE and job["read"]["io_bytes"] >= FIO_SIZE, "fio verified less"
