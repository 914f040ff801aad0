"""An assembled adapter, as the control methods reach it. `hba.server.assemble` makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hba.classdriver.machine import Machine
from hba.config.model import AdapterConfig
from hba.control.events import EventHub
from hba.loop import EventLoop
from hba.scsi.bus import ScsiBus
from hba.scsi.config import LunConfig
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.config import StorageConfig
from hba.storage.opener import Opener, Store
from hba.trace.recorder import Recorder
from hba.verifier import Verifier


class Snapshot(Protocol):
    """Whatever can say how it is, in what JSON has."""

    def snapshot(self) -> dict[str, object]: ...


class HotPlugged(Snapshot, Protocol):
    """What the guest drives, which tells it of units that come and go."""

    def announcement(self, target: int, lun: int) -> Mapping[str, object]: ...


@dataclass
class Parts:
    """The layers of one running adapter, top to bottom, and what stands beside them."""

    name: str
    config: AdapterConfig
    loop: EventLoop
    engine: Snapshot
    function: Snapshot  # hba.pci
    adapter: HotPlugged  # hba.adapters
    max_targets: int  # that its driver can be told of
    port: Snapshot
    bus: ScsiBus
    verifier: Verifier | None
    recorder: Recorder | None
    open_store: Callable[[StorageConfig], Store]  # in any thread, for it may wait; may raise HbaError
    open_medium: Callable[[StorageConfig], Backend]  # the same, blocks only
    make_unit: Callable[[LunConfig, Store | None], LogicalUnit]  # takes the store over; may raise HbaError
    opener: Opener
    stop: Callable[[], None]  # end the server, cleanly, soon
    machine: Machine | None = None  # around the port
    events: EventHub = field(default_factory=EventHub)
    opening: set[tuple[int, int]] = field(default_factory=set)  # (target, lun) whose store is being opened
