"""The measurement where the user is: fio in a guest, on our adapter and on QEMU's own model of it, in turns.

One guest has both devices, each with a file of its own in memory, so that neither the host's disks nor the boot make a
difference. Every round runs every job on both, one after the other; a ratio is the median over the rounds of that of
two neighbours, because what slows the machine down for a while slows both.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psutil

from hba.adapters.registry import ADAPTERS
from hba.bench.disk import fill, make_folder
from hba.config import toml
from hba.config.load import load
from hba.control.client import ControlClient
from hba.errors import ConfigError, GuestError
from hba.lab import config, disks, machine, native
from hba.lab.accelerator import Wanted
from hba.lab.experiment import Experiment, Options
from hba.lab.guest import Guest
from hba.lab.progress import Progress

LEAST_ROUNDS = 5  # for a median
PATIENCE = 60.0  # s for the disks to show up in the guest, and for fio beyond its run time
_OURS = ("lun", "name", "socket")  # of an adapter's table: the benchmark has its own


@dataclass(frozen=True)
class Job:
    """One of fio's."""

    name: str
    pattern: str  # fio's rw=
    length: int  # bytes
    depth: int

    @property
    def writes(self) -> bool:
        """Whether it overwrites the disk."""
        return "write" in self.pattern


JOBS = (
    Job("4 KiB random reads, depth 1", "randread", 4 << 10, 1),
    Job("4 KiB random reads, depth 32", "randread", 4 << 10, 32),
    Job("128 KiB random reads, depth 8", "randread", 128 << 10, 8),
    Job("4 KiB random writes, depth 32", "randwrite", 4 << 10, 32),
)


class _Fio(msgspec.Struct):
    """What is read of a direction of fio's JSON."""

    iops: float
    total_ios: int


class _Sample(msgspec.Struct):
    """What our adapter's counters say: all since its start."""

    commands: int
    kicks: int
    interrupts: int


@dataclass
class Side:
    """One device's rounds of one job."""

    rates: list[float] = field(default_factory=list)  # commands per second
    qemu_cpu: list[float] = field(default_factory=list)  # percent of a processor
    server_cpu: list[float] = field(default_factory=list)  # µs per command
    kicks: list[float] = field(default_factory=list)  # per command
    interrupts: list[float] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """Medians over the rounds. What this side does not have is null."""
        return {
            "commands_per_s": _median(self.rates),
            "rates": self.rates,
            "kicks_per_command": _median(self.kicks),
            "interrupts_per_command": _median(self.interrupts),
            "qemu_cpu_percent": _median(self.qemu_cpu),
            "server_cpu_us_per_command": _median(self.server_cpu),
        }


def measure(
    *,
    adapter: dict[str, Any],
    size: int,
    rounds: int = LEAST_ROUNDS,
    seconds: float = 2.0,
    cpus: int = 1,
    accelerator: Wanted = "auto",
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Boot the guest and run every job `rounds` times for `seconds` on each of the two devices.

    `adapter`: the table `[[adapter]]` of a configuration; its units, name and socket are the benchmark's own.
    `size`: bytes of each disk. Raises the `HbaError` that names the cause when the server, QEMU, the guest or fio
    fails.
    """
    kind = ADAPTERS[adapter.get("type", ADAPTERS.default.name)]
    if kind.qemu is None:
        raise ConfigError(f"QEMU has no {kind.title} of its own to measure against; the other benchmarks need none")
    with _folder(2 * size) as folder:
        ours, theirs = folder / "ours.img", folder / "qemu.img"
        for path in (ours, theirs):
            fill(path, size)
        more = {key: value for key, value in adapter.items() if key not in (*_OURS, "type", "port")}
        made = folder / "bench.toml"
        made.write_text(
            config.one_disk(folder, ours, adapter.get("port", "storport"), kind.name)
            + "".join(f"{key} = {config.to_toml(value)}\n" for key, value in more.items())
        )
        profile = machine.load("pc")
        options = Options(
            cpus=cpus,
            accelerator=accelerator,
            config=made,
            qemu_arguments=tuple(
                machine.builtin(profile, kind.qemu, theirs, disks.BUILTIN_SERIAL, boot_index=None, name="peer")
            ),
        )
        shown = Progress()
        native.compile_first(shown)
        with Experiment(options, shown) as experiment:
            progress("booting the guest")
            experiment.start()
            result = _Bench(experiment).run(rounds, seconds, progress)
    return {
        "type": kind.name,
        "cpus": cpus,
        "accelerator": experiment.runs_with,
        "kernel": experiment.kernel_release,
        **result,
    }


class _Bench:
    """A running guest with both devices."""

    def __init__(self, experiment: Experiment) -> None:
        self._guest: Guest = experiment.guest
        self._control = experiment.adapters[0].control
        with ControlClient(self._control) as client:
            summary = client.call("show.summary")
            level = client.call("show.verifier")["level"]
        self.about = {"port": summary["port"], "verifier": level, "compiled": summary["compiled"]}
        self._server, self._qemu = int(summary["pid"]), self._guest.pid
        self._devices = self._find()

    def run(self, rounds: int, seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
        sides = {job: (Side(), Side()) for job in JOBS}
        for number in range(rounds):
            for job, (ours, theirs) in sides.items():
                progress(f"round {number + 1} of {rounds}: {job.name}")
                # Who is first changes, so that neither always finds what the other has left.
                for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                    self._turn(job, side, side is ours, seconds)
        return {
            **self.about,
            "rounds": rounds,
            "seconds": seconds,
            "cases": [
                {
                    "name": job.name,
                    "length": job.length,
                    "depth": job.depth,
                    "adapter": ours.result(),
                    "qemu": theirs.result(),
                    "ratio": median(a / b for a, b in zip(ours.rates, theirs.rates, strict=True)),
                }
                for job, (ours, theirs) in sides.items()
            ],
        }

    def _turn(self, job: Job, side: Side, ours: bool, seconds: float) -> None:
        before = self._sample()
        begin, qemu, server = time.monotonic(), _cpu(self._qemu), _cpu(self._server)
        side.rates.append(self._fio(job, self._devices[0 if ours else 1], seconds))
        side.qemu_cpu.append((_cpu(self._qemu) - qemu) / (time.monotonic() - begin) * 100)
        if ours:
            after = self._sample()
            commands = max(1, after.commands - before.commands)
            side.server_cpu.append((_cpu(self._server) - server) / commands * 1e6)
            side.kicks.append((after.kicks - before.kicks) / commands)
            side.interrupts.append((after.interrupts - before.interrupts) / commands)

    def _fio(self, job: Job, device: str, seconds: float) -> float:
        """Commands per second."""
        argv = ["fio", "--name=bench", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--randrepeat=0"]
        argv += ["--norandommap=1", "--time_based=1", f"--runtime={seconds:g}", f"--rw={job.pattern}"]
        argv += [f"--bs={job.length}", f"--iodepth={job.depth}", "--thread", "--output-format=json"]
        output = self._guest.agent.exec(argv, timeout=seconds + PATIENCE, check=True).stdout
        try:
            (ran,) = json.loads(output[output.index(b"{") :])["jobs"]
            found = msgspec.convert(ran["write" if job.writes else "read"], _Fio)
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            raise GuestError(f"fio in the guest says what nobody understands: {output[:300]!r}") from error
        if not found.total_ios:
            raise GuestError(f"fio in the guest did nothing in {seconds:g} s on {device}; give it more (--seconds)")
        return found.iops

    def _sample(self) -> _Sample:
        with ControlClient(self._control) as client:
            counters = client.call("show.counters")["adapter"]
            sent = client.call("show.irq")["sent"]
        return _Sample(counters["requests"], counters["kicks"], sum(sent.values()))

    def _find(self) -> tuple[str, str]:
        """(ours, QEMU's): the disks' names in the guest, by their vendor."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._guest.agent.exec(["sh", "-c", "grep -H . /sys/block/sd*/device/vendor"]).stdout
            names: dict[bool, str] = {}
            for line in found.decode().splitlines():
                path, _, vendor = line.partition(":")
                names[vendor.strip() == "QEMU"] = f"/dev/{Path(path).parts[3]}"
            if len(names) == 2:
                return names[False], names[True]
            if time.monotonic() > deadline:
                raise GuestError(f"the guest has not both disks: {found.decode().strip() or 'none at all'}")
            time.sleep(0.1)


def adapter_of(path: Path) -> dict[str, Any]:
    """The first `[[adapter]]` of a configuration, as `measure` takes it. Raises `ConfigError`."""
    load(path)  # says what is wrong with it
    table: dict[str, Any] = toml.parse(toml.read(path), path)["adapter"][0]
    return table


@contextmanager
def _folder(size: int) -> Iterator[Path]:
    """For disks of `size` bytes in all, removed afterwards."""
    path = make_folder(size)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _cpu(pid: int) -> float:
    """Seconds a process has used so far, all of its threads."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error as error:
        raise GuestError(f"the benchmark's process {pid} cannot be watched ({error}); has it been killed?") from error
    return float(times.user + times.system)


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
