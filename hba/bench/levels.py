"""Both port models without instruments, with the verifier and with the trace: `hba bench --levels`.

The adapters of one model are served all at once and take turns, with each other and with a peer that does nothing but
the same system calls. So a ratio is of neighbouring rounds, and its median over them says something on a busy machine,
too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from hba.adapters.bench import BenchDriver, Place
from hba.adapters.registry import ADAPTERS
from hba.bench import own_server
from hba.bench.echo import Echo
from hba.bench.loop import PlainLoop
from hba.bench.measure import DATA_SIZE, Case, cpu_seconds, percentiles, transfers_of
from hba.instruments.make import MODELS

LEVELS = ("off", "report", "trace")
SMALL = Case("4 KiB random reads, depth 32", 4 << 10, 32)
ONE = Case("4 KiB random reads, depth 1", 4 << 10, 1)
LARGE = (
    Case("512 KiB sequential reads, depth 8", 512 << 10, 8, random=False),
    Case("512 KiB sequential writes, depth 8", 512 << 10, 8, writes=1.0, random=False),
)
MANY = Case("4 KiB random reads, 500 outstanding", 4 << 10, 500)
MAPS = 1000
UNITS: tuple[Place, ...] = tuple((1 + number // 8, number % 8) for number in range(64))
UNIT_SIZE = 1 << 20  # bytes of each of these
Run = tuple[int, float, Sequence[int]]  # (commands, seconds, latencies in ns)


@dataclass
class _Runs:
    """What one side did in its rounds."""

    costs: list[float] = field(default_factory=list)  # microseconds of CPU a command
    rates: list[float] = field(default_factory=list)  # commands a second
    halves: list[float] = field(default_factory=list)  # median latencies, microseconds

    def add(self, run: Run, cpu: float) -> None:
        count, seconds, latencies = run
        self.costs.append(cpu / count * 1e6)
        self.rates.append(count / seconds)
        self.halves.append(percentiles(list(latencies))["p50"])


@dataclass
class _Adapter:
    """One that is served, and its driver."""

    level: str
    driver: BenchDriver
    process: psutil.Process
    blocks: int
    block_size: int

    def run(self, case: Case, seconds: float, runs: _Runs, each: bool = False) -> None:
        before = cpu_seconds(self.process)
        run = self.driver.run(seconds, case.depth, each=each)
        runs.add(run, cpu_seconds(self.process) - before)

    def prepare(self, case: Case) -> None:
        self.driver.prepare(transfers_of(case, self.blocks * self.block_size), self.block_size)
        self.driver.run(0.02, case.depth)


def measure(
    kind: str = ADAPTERS.default.name,
    models: Sequence[str] = MODELS,
    *,
    seconds: float = 2.0,
    rounds: int = 5,
    size: int = 256 << 20,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """A row for each model and level. `seconds`: of each of them in each case, in `rounds` turns; `size`: bytes of the
    disk. Raises `HbaError` when a server does not start or a command fails."""
    found = []
    for model in models:
        with _served(kind, model, size) as (adapters, disks):
            found += _rows(model, adapters, disks, seconds / rounds, rounds, progress)
    return found


@contextmanager
def _served(kind: str, model: str, size: int) -> Iterator[tuple[list[_Adapter], list[own_server.OwnServer]]]:
    with ExitStack() as stack:
        adapters, servers = [], []
        for level in LEVELS:
            verifier, extra = ("off", "trace = { enabled = true }\n") if level == "trace" else (level, "")
            server = stack.enter_context(
                own_server.start(
                    None, kind=kind, port=model, verifier=verifier, size=size, options=extra, units=(UNITS, UNIT_SIZE)
                )
            )
            driver = stack.enter_context(ADAPTERS[kind].bench_driver(server.socket, DATA_SIZE, 0, 0))
            for place in UNITS:
                driver.settle(place)
            adapters.append(_Adapter(level, driver, psutil.Process(server.pid), *driver.capacity()))
            servers.append(server)
        yield adapters, servers


def _rows(
    model: str,
    adapters: Sequence[_Adapter],
    servers: Sequence[own_server.OwnServer],
    seconds: float,
    rounds: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"port": model, "level": adapter.level} for adapter in adapters]

    def turns(case: Case, each: bool = False) -> list[_Runs]:
        progress(f"{model}: {case.name}")
        found = [_Runs() for _ in adapters]
        for adapter in adapters:
            adapter.prepare(case)
        for _ in range(rounds):
            for adapter, runs in zip(adapters, found, strict=True):
                adapter.run(case, seconds, runs, each)
        return found

    for name, each in (("batch", False), ("each", True)):
        sides = turns(SMALL, each)
        for row, runs in zip(rows, sides, strict=True):
            row[f"cpu_us_{name}"] = statistics.median(runs.costs)
            row[f"cpu_ratio_{name}"] = _ratio(runs.costs, sides[0].costs)
    # The peers take their turn right after the adapter they are compared with.
    with Echo() as echo:
        progress(f"{model}: {ONE.name}")
        echo.run(0.02)
        for row, adapter in zip(rows, adapters, strict=True):
            adapter.prepare(ONE)
            ours, theirs = _Runs(), _Runs()
            for _ in range(rounds):
                adapter.run(ONE, seconds, ours)
                theirs.add(echo.run(seconds), 0.0)
            row["p50_us"], row["echo_p50_us"] = statistics.median(ours.halves), statistics.median(theirs.halves)
            row["echo_ratio"] = _ratio(ours.halves, theirs.halves)
    for name, case in zip(("reads", "writes"), LARGE, strict=True):
        progress(f"{model}: {case.name}")
        for row, adapter, server in zip(rows, adapters, servers, strict=True):
            adapter.prepare(case)
            transfers = transfers_of(case, adapter.blocks * adapter.block_size)
            ours, theirs = _Runs(), _Runs()
            with PlainLoop(server.disk, DATA_SIZE, case.writes > 0) as loop:
                loop.run(transfers, 0.02)
                for _ in range(rounds):
                    adapter.run(case, seconds, ours)
                    theirs.add(loop.run(transfers, seconds), 0.0)
            row[f"large_{name}_ratio"] = _ratio(ours.rates, theirs.rates)
    progress(f"{model}: {MANY.name}")
    for row, adapter in zip(rows, adapters, strict=True):
        row["many_ratio"] = _many(adapter, seconds, rounds)
    return rows


def _many(adapter: _Adapter, seconds: float, rounds: int) -> float:
    """The rate with many units and DMA maps, to that with one of each."""
    driver = adapter.driver
    transfers = transfers_of(MANY, UNIT_SIZE)
    one, many = _Runs(), _Runs()
    for _ in range(rounds):
        for runs, places, maps in ((one, UNITS[:1], 1), (many, UNITS, MAPS)):
            driver.split_data(maps)
            driver.prepare(transfers, adapter.block_size, places)
            driver.run(0.02, MANY.depth)
            adapter.run(MANY, seconds, runs)
    driver.split_data(1)
    return _ratio(many.rates, one.rates)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of neighbouring rounds, the median; 0 where it took no time that could be measured."""
    return statistics.median(a / b if b else 0.0 for a, b in zip(ours, theirs, strict=True))
