"""What the commands print with `--json`: a Struct for every object that is not a control method's own answer, and the
table of all commands. `schema_version` comes on top of each (hba/contract.py) and is no field here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hba.config.model import adapter_config
from hba.control.results.events import ClientEvent, HotplugEvent, StorageEvent
from hba.control.results.inject import Injected, InjectEvent, Sequence, Tracing, UnitsFound
from hba.control.results.pci import Interrupts, MappedRange, Regs
from hba.control.results.show import SHOWN, Summary
from hba.control.results.trace import TraceStep
from hba.control.results.units import EjectedUnit, Removed, Unit
from hba.control.results.verifier import Findings, FindingShown
from hba.rules.rule import Rule
from hba.shapes import Bytes, Count, Rate, Result

Microseconds = Annotated[float, Meta(ge=0, description="microseconds")]


class Silent(Result):
    """A control socket that does not answer."""

    control: str
    why: str


class Adapters(Result):
    """`hba ls`. `removed`: sockets that --clean removed."""

    adapters: list[Summary]
    silent: list[Silent]
    removed: list[str]


class Units(Result):
    """The units of an adapter."""

    units: list[Unit]


class Ranges(Result):
    """Guest memory that is mapped."""

    ranges: list[MappedRange]


Checked = msgspec.defstruct(
    "Checked",
    [("file", str), ("adapters", list[adapter_config()])],  # type: ignore[misc]
    bases=(Result,),
    namespace={"__doc__": "A good configuration, defaults filled in."},
    module=__name__,
)


class Rules(Result):
    """The rule catalogue."""

    rules: list[Rule]


class CheckMade(Result):
    """One thing `hba doctor` looked at. `next_step`: empty when there is nothing to do."""

    name: str
    state: Literal["good", "limited", "missing"]
    found: str
    next_step: str


class Diagnosis(Result):
    """What this machine has. `good`: nothing that is needed is missing."""

    good: bool
    checks: list[CheckMade]


class Latencies(Result):
    """Latency of a command by percentile, and the worst."""

    p50: Microseconds
    p90: Microseconds
    p99: Microseconds
    max: Microseconds
    p99_9: Microseconds = msgspec.field(name="p99.9")


class Side(Result):
    """What one side of a case did; a rate is the median over the rounds."""

    commands_per_s: Rate
    mb_per_s: Rate
    cpu_us_per_command: Microseconds
    latency_us: Latencies


class BenchCase(Result, kw_only=True):
    """One kind of load. `loop` is null, and the ratios are not there, where there is no file to run the plain loop on;
    `cpu_ratio` is null where the CPU time was too short to measure."""

    name: str
    length: Bytes
    depth: Count
    adapter: Side
    loop: Side | None
    ratio: Rate | UnsetType = UNSET
    cpu_ratio: Rate | UnsetType | None = UNSET


class ServerMemory(Result):
    """Memory of the server. `uss`: its own; `pss`: with its share of what others map, too; both without the guest's."""

    uss: Bytes
    pss: Bytes
    rss: Bytes
    guest_memory: Bytes


class Benchmark(Result):
    """`hba bench`. `listen_s`: seconds from the start until it listened, null for an adapter that ran already."""

    adapter: str
    type: str
    port: str
    miniport: str | None
    verifier: str
    compiled: bool
    listen_s: float | None
    cases: list[BenchCase]
    memory: ServerMemory
    idle_cpu_percent: float


class CpuCost(Result):
    """CPU time of a command without a port, with the verifier off, with it on, and with the trace."""

    without: Microseconds
    off: Microseconds
    report: Microseconds
    trace: Microseconds


class PortCase(Result):
    """A port model at a number of commands per kick. `port_share`: of the port in a command; `report_ratio`,
    `trace_ratio`: to off."""

    model: Literal["scsiport", "storport"]
    depth: Count
    cpu_us: CpuCost
    port_share: float
    report_ratio: float
    trace_ratio: float


class PortBenchmark(Result):
    """`hba bench --ports`, and the limits its ratios should keep."""

    compiled: bool
    port_share_limit: float
    report_ratio_limit: float
    cases: list[PortCase]


class Level(Result):
    """A port model with the verifier off, with it on (report), or with the trace, at 4 KiB reads, depth 32, unless its
    name says otherwise. CPU is the server's, of a command: kicked for a `batch` or for `each`; ratios to off. `p50_us`
    at depth 1, and of an echo. `large`: 512 KiB, to the rate of the plain loop. `many_ratio`: rate with 64 units, 500
    outstanding and 1,000 DMA maps, to that with one unit and map."""

    port: Literal["scsiport", "storport"]
    level: Literal["off", "report", "trace"]
    cpu_us_batch: Microseconds
    cpu_ratio_batch: float
    cpu_us_each: Microseconds
    cpu_ratio_each: float
    p50_us: Microseconds
    echo_p50_us: Microseconds
    echo_ratio: float
    large_reads_ratio: float
    large_writes_ratio: float
    many_ratio: float


class LevelBenchmark(Result):
    """`hba bench --levels`."""

    type: str
    compiled: bool
    rows: list[Level]


class GuestSide(Result):
    """One of the two devices: medians over the rounds, and the `rates` of each in commands a second. What is not known
    of QEMU's own device is null."""

    commands_per_s: Rate
    rates: list[Rate]
    kicks_per_command: float | None
    interrupts_per_command: float | None
    qemu_cpu_percent: float | None
    server_cpu_us_per_command: float | None


class GuestCase(Result):
    """One fio job. `ratio`: our rate to that of QEMU's own device, the median over the rounds."""

    name: str
    length: Bytes
    depth: Count
    adapter: GuestSide
    qemu: GuestSide
    ratio: float


class GuestBenchmark(Result):
    """`hba bench --guest`."""

    type: str
    cpus: Count
    accelerator: str
    kernel: str
    port: str
    verifier: str
    compiled: bool
    rounds: Count
    seconds: float
    cases: list[GuestCase]


class SystemdUnit(Result):
    """`hba systemd`. `file`: its name below /etc/systemd/system; `program`: what it starts."""

    file: str
    user: str
    program: str
    text: str


class Versions(Result):
    """`hba version`."""

    hba: str
    python: str
    compiled: bool
    """Whether the modules of `scripts/compile` are used."""
    vfio_user_protocol: str
    control_protocol: Count


# -- lines ------------------------------------------------------------------------------------------------------------


class EventShown(Result):
    """What every line of `hba events` has: when it arrived (ISO 8601, this host's clock), and whose it is."""

    time: str
    adapter: str


class FindingEventLine(EventShown, tag_field="event", tag="verifier"):
    """A finding."""

    data: FindingShown


class TraceEventLine(EventShown, tag_field="event", tag="trace"):
    """A step of a request."""

    data: TraceStep


class StorageEventLine(EventShown, tag_field="event", tag="storage"):
    """A store said something."""

    data: StorageEvent


class HotplugEventLine(EventShown, tag_field="event", tag="hotplug"):
    """A unit, or its medium, has changed."""

    data: HotplugEvent


class InjectEventLine(EventShown, tag_field="event", tag="inject"):
    """What was injected has ended."""

    data: InjectEvent


class ClientEventLine(EventShown, tag_field="event", tag="client"):
    """A client came, left or was refused, or there is something to know of it."""

    data: ClientEvent


class ListeningLine(Result, tag_field="event", tag="listening"):
    """The adapter waits for its client. `socket`: null for a descriptor without a name."""

    adapter: str
    socket: str | None
    control: str
    pid: Count


class StoppedLine(Result, tag_field="event", tag="stopped"):
    """It ended as it was told to."""

    adapter: str


class RestartingLine(Result, tag_field="event", tag="restarting"):
    """It died and is started again, for the time `number` of at most `most`."""

    adapter: str
    message: str
    number: Count
    most: Count


class SpinningLine(Result, tag_field="event", tag="spinning"):
    """It uses the processor without answering, and was given the lowest priority until it does."""

    adapter: str
    message: str
    pid: Count


class AnswersLine(Result, tag_field="event", tag="answers"):
    """It was spinning and answers again. `restored`: with the priority it had; false where raising it is forbidden."""

    adapter: str
    restored: bool


class GaveUpLine(Result, tag_field="event", tag="gave-up"):
    """It died too often and stays dead; "failed" follows."""

    adapter: str
    message: str
    deaths: Count


class FailedLine(Result, tag_field="event", tag="failed"):
    """It ended by itself. `exit_code`: why, as in the table of exit codes."""

    adapter: str
    message: str
    exit_code: int


class ErrorTold(Result):
    """`code`: the exit code; `kind`: its name in the table of exit codes."""

    code: int
    kind: str
    message: str


class ErrorLine(Result):
    """An error, on standard error."""

    error: ErrorTold


ShownEvent = FindingEventLine | TraceEventLine | StorageEventLine | HotplugEventLine | InjectEventLine | ClientEventLine
ServeEvent = ListeningLine | StoppedLine | RestartingLine | SpinningLine | AnswersLine | GaveUpLine | FailedLine


@dataclass(frozen=True)
class Output:
    """What a command prints with `--json`: one object of a type, or with `lines` one in each line."""

    kind: Any
    lines: bool = False


# The command as one types it -> what it prints. What it takes besides does not change that.
OUTPUTS: dict[str, Output] = {
    "hba serve": Output(ServeEvent, lines=True),
    "hba check": Output(Checked),
    "hba ls": Output(Adapters),
    "hba show": Output(SHOWN.everything),
    "hba show all": Output(SHOWN.everything),
    "hba show regs": Output(Regs),
    "hba show queues": Output(SHOWN.queues),
    "hba show luns": Output(Units),
    "hba show irq": Output(Interrupts),
    "hba show dma": Output(Ranges),
    "hba show counters": Output(SHOWN.counters),
    "hba show verifier": Output(Findings),
    "hba show config": Output(SHOWN.config),
    "hba lun ls": Output(Units),
    "hba lun add": Output(Unit),
    "hba lun remove": Output(Removed),
    "hba lun eject": Output(EjectedUnit),
    "hba lun insert": Output(Unit),
    "hba lun resize": Output(Unit),
    "hba lun read-only": Output(Unit),
    "hba inject scsi": Output(Injected),
    "hba inject io-control": Output(Injected),
    "hba inject wmi": Output(Injected),
    "hba inject power": Output(Injected),
    "hba inject pnp": Output(Injected),
    "hba inject send": Output(Injected),
    "hba inject remove": Output(Sequence),
    "hba inject machine": Output(Sequence),
    "hba inject dump": Output(Sequence),
    "hba inject rescan": Output(UnitsFound),
    "hba inject tracing": Output(Tracing),
    "hba events": Output(ShownEvent, lines=True),
    "hba trace": Output(TraceStep, lines=True),
    "hba explain": Output(Rules),
    "hba explain RULE": Output(Rule),
    "hba doctor": Output(Diagnosis),
    "hba bench": Output(Benchmark),
    "hba bench --ports": Output(PortBenchmark),
    "hba bench --levels": Output(LevelBenchmark),
    "hba bench --guest": Output(GuestBenchmark),
    "hba systemd": Output(SystemdUnit),
    "hba version": Output(Versions),
}
