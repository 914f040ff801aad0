"""What the methods `show.*` answer, where it is put together of several layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Union

import msgspec
from msgspec import UNSET, Struct, UnsetType

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.control.results.config import config_shown
from hba.control.results.inject import ClassDriverState
from hba.control.results.pci import Interrupts, MappedRange, PciCounters, Regs
from hba.control.results.port import ScsiPortState, StorPortState
from hba.control.results.units import Unit
from hba.control.results.verifier import Findings
from hba.shapes import Bytes, Count, CountByName, CpuSeconds, Result
from hba.vfio_user.protocol import Capabilities


class Summary(Result):
    """The adapter in one line. `socket`: null for a descriptor without a name; `client`: the process that has the
    socket, null for nobody and where it cannot be told; `compiled`: by `scripts/compile`; `violations`: null without
    verifier."""

    name: str
    type: str
    port: str
    engine: str
    miniport: str
    pid: Count
    version: str
    compiled: bool
    socket: str | None
    connected: bool
    client: str | None
    luns: Count
    violations: Count | None


class EngineState(Result):
    """The vfio-user server. `library`: the file of libvfio-user, null for the native engine; `client`: the process that
    has the socket; `requests`: of the client, by command; `posted`: those that wanted no reply; `dma_*`: messages of
    ours; `deferred`: requests that waited for one; `refused`: second clients."""

    engine: str
    library: str | None
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


@dataclass(frozen=True)
class Shown:
    """The shapes of what is shown of an adapter and has its own in it, for the types of adapters there are."""

    config: type[Struct]
    queues: type[Struct]
    counters: type[Struct]
    everything: type[Struct]


def shown(known: Registry) -> Shown:
    """The shapes for adapters of these types."""
    config = config_shown(known)
    queues = _shape(
        "Queues",
        "The adapter's rings, and the port's queues. `class_driver`: null where there is none.",
        adapter=Union[tuple(kind.queues for kind in known)],  # noqa: UP007 - made of what there is
        port=ScsiPortState | StorPortState,
        class_driver=ClassDriverState | None,
    )
    counters = _shape(
        "Counters",
        "What was counted since the start, layer by layer. `port`: rare events by name.",
        adapter=Union[tuple(kind.counters for kind in known)],  # noqa: UP007
        port=CountByName,
        pci=PciCounters,
        vfio_user=EngineState,
        process=ProcessCost,
    )
    everything = _shape(
        "Everything",
        "All subjects.",
        summary=Summary,
        regs=Regs,
        queues=queues,
        luns=list[Unit],
        irq=Interrupts,
        dma=list[MappedRange],
        counters=counters,
        verifier=Findings,
        config=config,
    )
    return Shown(config, queues, counters, everything)


def _shape(name: str, told: str, **fields: Any) -> type[Struct]:
    return msgspec.defstruct(name, [*fields.items()], bases=(Result,), namespace={"__doc__": told}, module=__name__)


SHOWN = shown(ADAPTERS)
