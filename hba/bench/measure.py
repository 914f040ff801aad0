"""The measurement: an adapter and the plain loop in turns on the same file, and what the server costs meanwhile.

Other work on the machine disturbs both sides alike only when they take turns, so every case is several short rounds of
each, and a ratio is the median over the rounds. CPU time per command is given too: it tells even on a busy machine.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hba.adapters.bench import BenchDriver, Transfer
from hba.bench.loop import TRANSFERS, PlainLoop
from hba.errors import ControlError

DATA_SIZE = 32 << 20  # bytes of guest memory for data
PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    name: str
    length: int  # bytes of one command
    depth: int
    writes: float = 0.0  # share of writes
    random: bool = True


CASES = (
    Case("4 KiB random reads, depth 32", 4 << 10, 32),
    Case("4 KiB random reads, depth 1", 4 << 10, 1),
    Case("64 KiB random reads, depth 16", 64 << 10, 16),
    Case("512 KiB sequential reads, depth 8", 512 << 10, 8, random=False),
)
WRITING_CASES = (
    Case("4 KiB random writes, depth 32", 4 << 10, 32, writes=1.0),
    Case("4 KiB random, 70 % reads, depth 32", 4 << 10, 32, writes=0.3),
    Case("512 KiB sequential writes, depth 8", 512 << 10, 8, writes=1.0, random=False),
)


def transfers_of(case: Case, size: int) -> list[Transfer]:
    """The transfers of a case on `size` bytes, as many as run in turn; the same ones every time."""
    source = random.Random(case.name)
    places = size // case.length
    return [
        (
            source.random() < case.writes,
            (source.randrange(places) if case.random else slot % places) * case.length,
            case.length,
        )
        for slot in range(TRANSFERS)
    ]


def measure(
    make_driver: Callable[[str, int, int, int], BenchDriver],
    socket: str,
    pid: int,
    path: Path | None,
    cases: Sequence[Case],
    *,
    target: int = 0,
    lun: int = 0,
    seconds: float = 2.0,
    rounds: int = 4,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the cases on the adapter at `socket`, served by process `pid`, with a driver for its type
    (`AdapterType.bench_driver`); `path`: the file behind the unit, if there is
    one to run the loop on. `seconds`: of each side of each case, in `rounds` turns.

    Raises `HbaError` when the adapter, its process or the file is not what it was said to be.
    """
    try:
        server = psutil.Process(pid)
    except (psutil.Error, ValueError, OverflowError) as error:
        raise ControlError(
            f"the adapter says that it runs as process {pid}, which cannot be watched ({error}); measure on its machine"
        ) from None
    results = []
    with make_driver(socket, DATA_SIZE, target, lun) as driver:
        blocks, block_size = driver.capacity()
        for case in cases:
            progress(case.name)
            transfers = transfers_of(case, blocks * block_size)
            results.append(_case(case, transfers, driver, block_size, server, path, seconds / rounds, rounds))
        memory = server_memory(server)
        progress("idle")
        idle = _idle(server)
    return {"cases": results, "memory": memory, "idle_cpu_percent": idle}


def _case(
    case: Case,
    transfers: list[Transfer],
    driver: BenchDriver,
    block_size: int,
    server: psutil.Process,
    path: Path | None,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    driver.prepare(transfers, block_size)
    driver.run(0.05, case.depth)
    adapter, plain = _Side(case), _Side(case)
    loop = None if path is None else PlainLoop(path, DATA_SIZE, case.writes > 0)
    try:
        if loop is not None:
            loop.run(transfers, 0.05)
        for _ in range(rounds):
            if loop is not None:
                before = time.process_time()
                plain.add(*loop.run(transfers, seconds))
                plain.cpu += time.process_time() - before
            before = cpu_seconds(server)
            adapter.add(*driver.run(seconds, case.depth))
            adapter.cpu += cpu_seconds(server) - before
    finally:
        if loop is not None:
            loop.close()
    result = {"name": case.name, "length": case.length, "depth": case.depth, "adapter": adapter.result(), "loop": None}
    if loop is not None:
        result["loop"] = plain.result()
        result["ratio"] = statistics.median(a / b for a, b in zip(adapter.rates, plain.rates, strict=True))
        result["cpu_ratio"] = (plain.cpu / plain.count) / (adapter.cpu / adapter.count) if adapter.cpu else None
    return result


class _Side:
    """What one side did in all its rounds."""

    def __init__(self, case: Case) -> None:
        self._length = case.length
        self.count = 0
        self.cpu = 0.0  # seconds
        self.rates: list[float] = []  # commands per second, by round
        self._latencies: list[int] = []

    def add(self, count: int, seconds: float, latencies: Sequence[int]) -> None:
        self.count += count
        self.rates.append(count / seconds)
        self._latencies.extend(latencies)

    def result(self) -> dict[str, Any]:
        rate = statistics.median(self.rates)
        return {
            "commands_per_s": rate,
            "mb_per_s": rate * self._length / 1e6,
            "cpu_us_per_command": self.cpu / self.count * 1e6,
            "latency_us": percentiles(self._latencies),
        }


def percentiles(latencies: list[int]) -> dict[str, float]:
    """Microseconds by percentile, and the worst, from nanoseconds."""
    ordered = sorted(latencies)
    last = len(ordered) - 1
    found = {f"p{share:g}": ordered[min(last, int(len(ordered) * share / 100))] / 1e3 for share in PERCENTILES}
    return found | {"max": ordered[last] / 1e3}


def cpu_seconds(process: psutil.Process) -> float:
    """What it has used so far, in the program and in the kernel."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _idle(server: psutil.Process, seconds: float = 1.0) -> float:
    """Percent of a CPU that the server takes with a client connected and nothing to do."""
    before = cpu_seconds(server)
    time.sleep(seconds)
    return (cpu_seconds(server) - before) / seconds * 100


def server_memory(server: psutil.Process) -> dict[str, int]:
    """Bytes: `uss` is the server's own, `pss` with its share of what others map too; both without guest memory."""
    uss = pss = guest = 0
    for region in server.memory_maps(grouped=False):
        if region.path.startswith("/memfd:"):
            guest += region.rss
            continue
        uss += region.private_clean + region.private_dirty
        pss += region.pss
    return {"uss": uss, "pss": pss, "rss": server.memory_info().rss, "guest_memory": guest}
