"""Puts a port's library together: which families a model has, and what each takes of the port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from hba.miniport.base import Miniport
from hba.miniport.board import board_of
from hba.miniport.chip import Chip
from hba.port.dump import Dump
from hba.port.library.bus_data import BusData
from hba.port.library.documented import SCSIPORT, STORPORT
from hba.port.library.events import Debugger, Events
from hba.port.library.host import Host
from hba.port.library.later import Later, LaterHost
from hba.port.library.memory import Copies, DmaMemory, PhysicalAddresses, Pool, ScsiPortAddresses, SecureCopies
from hba.port.library.power import PoFx
from hba.port.library.registers import DeviceBase, Registers, ScsiPortRanges, StorPortRanges, WideRegisters
from hba.port.library.registry import Registry
from hba.port.library.requests import BuiltLists, RequestOf, Requests
from hba.port.library.routines import Routines
from hba.port.library.spin_locks import Acquire, Lists, SpinLocks
from hba.port.library.system import Platform, Processors, SystemTime, Time
from hba.port.library.threads import Threads, calling_processor
from hba.port.library.timers import Timers
from hba.port.library.units import Address, Units
from hba.port.library.workers import Workers
from hba.port.memory import PortMemory
from hba.port.watcher import Watcher


class AnyHost(Host, Protocol):
    """What the libraries of both models are made from."""

    chip: Chip
    control_type: int
    dump: Dump | None
    memory: PortMemory

    def finding(self, rule: str, message: str) -> object: ...


class StorHost(AnyHost, LaterHost, Protocol):
    """What Storport's is made from, too."""

    @property
    def miniport(self) -> Miniport: ...
    @property
    def watchers(self) -> Iterable[Watcher]: ...
    @property
    def units(self) -> Mapping[int, Any]: ...

    charged: int

    def stall_execution(self, microseconds: int) -> None: ...


class StorParts(Protocol):
    """What the services class of Storport does for its library."""

    def acquire_spin_lock(self, spin_lock: int, lock_context: Any = None) -> Any: ...
    def system_address(self, request: Any) -> Any: ...
    def rescan(self, path_id: int) -> None: ...
    def remove_unit(self, address: Address) -> None: ...
    def power_told(self, address: Address | None, component: int, active: bool) -> None: ...
    def set_max_io(self, count: int) -> None: ...


def _not_in_a_dump(port: AnyHost, routine: str) -> None:
    if port.dump is not None:
        port.dump.asked(port, routine)


def scsiport_routines(port: AnyHost, resolution: int) -> Routines:
    """`resolution`: milliseconds of the system's timer."""
    board = board_of(port.chip)
    return Routines(
        SCSIPORT,
        port,
        (
            Registers(port),
            DeviceBase(port, board, "CF-10"),
            ScsiPortRanges(board),
            BusData(port, board.config_space, lambda: port.control_type),
            ScsiPortAddresses(port.memory),
            Copies(),
            SystemTime(port.clock, resolution, partial(_not_in_a_dump, port)),
            Debugger(),
        ),
    )


def storport_routines(
    port: StorHost, parts: StorParts, request_of: RequestOf, resolution: int, processors: int
) -> Routines:
    """`request_of(srb, rule)`: the live request of an SRB; `resolution`: as for SCSI Port."""
    board = board_of(port.chip)
    later = Later(port)
    acquire: Acquire = parts.acquire_spin_lock

    def tell(first: int, length: int) -> None:
        for watcher in port.watchers:
            watcher.device_memory(first, length)
        if port.dump is not None:
            port.dump.allocated(port, "StorPortAllocateDmaMemory or its like", length)

    def is_there(address: Address) -> bool:
        path, target, lun = address
        return path << 16 | target << 8 | lun in port.units

    def active_on(address: tuple[int, ...]) -> list[Any]:
        units = (unit for unit in port.units.values() if (unit.path, unit.target, unit.lun)[: len(address)] == address)
        return [request for unit in units for request in unit.active]

    def reset() -> None:
        port.chip.reset_bus()
        board.reset()

    def options() -> Mapping[str, Any]:
        return getattr(port.miniport, "options", {})

    def number_of(srb: Any) -> Any:
        return request_of(srb, "OW-01") if srb is not None else None

    pool = Pool(port, port.memory, tell)
    dma = DmaMemory(port, port.memory, tell)
    timers = Timers(port, port.clock, later, resolution)
    workers = Workers(port, later)
    registry = Registry(port, later, options)
    power = PoFx(port, is_there, parts.power_told)
    not_in_a_dump = partial(_not_in_a_dump, port)
    system_time = Time(port, port.clock, resolution, not_in_a_dump, port.stall_execution, lambda: port.charged)
    threads = Threads(port, port.clock, later, processors, system_time.query_system_time)
    forget: tuple[Callable[[], None], ...] = (
        pool.forget,
        dma.forget,
        timers.forget,
        workers.forget,
        registry.forget,
        power.forget,
        threads.forget,
    )
    return Routines(
        STORPORT,
        port,
        (
            WideRegisters(port),
            DeviceBase(port, board, "MB-16"),
            StorPortRanges(),
            BusData(port, board.config_space, lambda: port.control_type),
            SpinLocks(port, acquire),
            Lists(port),
            pool,
            dma,
            PhysicalAddresses(port.memory),
            SecureCopies(),
            timers,
            workers,
            registry,
            Requests(request_of, parts.system_address),
            BuiltLists(port, later),
            Units(port, later, is_there, parts.rescan),
            Events(port, number_of, parts.remove_unit, active_on),
            power,
            system_time,
            threads,
            Processors(
                processors, lambda: calling_processor(threads), lambda: port.chip.messages, port.chip.mask_message
            ),
            Platform(port, reset, parts.set_max_io, is_there),
        ),
        forget,
    )
