"""What the methods `show.*` answer, where it is put together of several layers."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from hba.control.results.base import Bytes, Count, CountByName, CpuSeconds, Result
from hba.control.results.config import ConfigShown
from hba.control.results.pci import Interrupts, MappedRange, PciCounters, Regs
from hba.control.results.port import ScsiPortState, StorPortState
from hba.control.results.pvscsi import PvscsiCounters, PvscsiQueues
from hba.control.results.units import Unit
from hba.control.results.verifier import Findings
from hba.vfio_user.protocol import Capabilities


class Summary(Result):
    """The adapter in one line. `socket`: null for a descriptor without a name; `client`: the process that has the
    socket, null for nobody and where it cannot be told; `compiled`: by `scripts/compile`; `violations`: null without
    verifier."""

    name: str
    type: str
    port: str
    miniport: str
    pid: Count
    version: str
    compiled: bool
    socket: str | None
    connected: bool
    client: str | None
    luns: Count
    violations: Count | None


class Queues(Result):
    """The adapter's rings, and the port's queues."""

    adapter: PvscsiQueues
    port: ScsiPortState | StorPortState


class EngineState(Result):
    """The vfio-user server. `client`: the process that has the socket; `requests`: of the client, by command; `posted`:
    those that wanted no reply; `dma_*`: messages of ours; `deferred`: requests that waited for one; `refused`: second
    clients."""

    engine: str
    socket: str | None
    state: Literal["closed", "listening", "negotiating", "connected"]
    client: str | None
    client_capabilities: Capabilities | None
    requests: CountByName
    unknown_requests: Count
    posted: Count
    errors: Count
    dma_reads: Count
    dma_writes: Count
    dma_faults: Count
    deferred: Count
    bytes_received: Bytes
    bytes_sent: Bytes
    connections: Count
    refused: Count
    last_error: str | None


class ProcessCost(Result, kw_only=True):
    """What the server's process costs; memory as /proc has it, where there is one. Guest memory counts as shared."""

    cpu_user: CpuSeconds
    cpu_system: CpuSeconds
    VmRSS: Bytes | UnsetType = UNSET
    RssAnon: Bytes | UnsetType = UNSET
    RssFile: Bytes | UnsetType = UNSET
    RssShmem: Bytes | UnsetType = UNSET


class Counters(Result):
    """What was counted since the start, layer by layer. `port`: rare events by name."""

    adapter: PvscsiCounters
    port: CountByName
    pci: PciCounters
    vfio_user: EngineState
    process: ProcessCost


class Everything(Result):
    """All subjects."""

    summary: Summary
    regs: Regs
    queues: Queues
    luns: list[Unit]
    irq: Interrupts
    dma: list[MappedRange]
    counters: Counters
    verifier: Findings
    config: ConfigShown
