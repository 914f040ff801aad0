"""From a configuration to the layers of one adapter, wired to each other.

The only place that knows all of them. A type of adapter is made by its registration (`hba.adapters.registry`).
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hba.adapters.adapter import Adapter
from hba.adapters.keeper import AdapterKeeper
from hba.adapters.make import make_adapter
from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry, Wiring
from hba.classdriver.driver import ClassDriver
from hba.classdriver.machine import Machine
from hba.clock import S
from hba.config.lines import place
from hba.config.model import AdapterConfig, Config
from hba.control.events import EventHub
from hba.control.methods.verifier import plain
from hba.control.parts import Parts
from hba.errors import ConfigError, EngineMissing, PermissionDenied, StorageError
from hba.instruments.make import make_port
from hba.loop import EventLoop
from hba.miniport.chip import Chip
from hba.miniport.load import load_miniport
from hba.pci.memory import GuestMemory
from hba.pci.unreachable import SHARE
from hba.port.base import AnyPort
from hba.port.dump import Dump
from hba.rules.rule import Rule
from hba.scsi.address import placed, unit_name
from hba.scsi.build import build_unit
from hba.scsi.bus import ScsiBus
from hba.scsi.config import LunConfig
from hba.scsi.disk.tags import Tags, in_file
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.config import ScsiStorage, StorageConfig
from hba.storage.open import open_backend
from hba.storage.opener import Opener, Store
from hba.storage.sg import ScsiPassThrough
from hba.storage.workers import WorkerPool
from hba.trace.event import Event
from hba.trace.recorder import Recorder
from hba.verifier import Finding, Verifier
from hba.vfio_user.device import Device, Engine
from hba.vfio_user.libvfio_user.engine import LibraryEngine
from hba.vfio_user.libvfio_user.find import find
from hba.vfio_user.server import NativeEngine, Server

log = logging.getLogger(__name__)

NOT_SHARED = (
    "the client shares none of the guest's memory (share=off, or no file behind it), so every DMA is a message to it, "
    "which is slow; for QEMU: " + SHARE
)

FINISH_LIMIT = 20 * S  # for all that an adapter still has to do when it is told to end
MAX_TOLD = 16  # different reasons why one client's memory cannot be reached


class Assembled:
    """One adapter, from the wire to the storage. `hba.server.process` runs it."""

    def __init__(
        self, parts: Parts, adapter: Adapter, keeper: AdapterKeeper, engine: Engine, workers: WorkerPool
    ) -> None:
        self.parts = parts
        self._adapter = adapter
        self._keeper = keeper
        self._engine = engine
        self._workers = workers
        self._finishing = False
        parts.stop = self.finish

    def start(self) -> None:
        """Power on, then listen."""
        self._adapter.start()
        self._engine.start()

    def finish(self) -> None:
        """Stop the loop once what is under way has been answered and what was acknowledged is stable; nothing new is
        taken meanwhile. What does not end by itself is ended by force. Called again: now."""
        loop, function = self.parts.loop, self._adapter.function
        if self._finishing:
            loop.stop()
            return
        self._finishing = True
        loop.clock.call_later(FINISH_LIMIT, loop.stop)
        if not function.is_connected:
            self._shut_down()
            return
        # A client that leaves has nothing under way any more, and one that resets the device may begin anew.
        function.on_client.append(lambda _connected: loop.stop())
        self._keeper.rest(self._at_rest, force=True, flush=True)

    def _at_rest(self, why: str) -> None:
        if why:
            log.warning("at the end: %s", why)
            self.parts.loop.stop()
        else:
            self._shut_down()

    def _shut_down(self) -> None:
        """RS-06: the miniport flushes, and is stopped. The announcement of the last answers is on its way: it goes
        before the end of the connection."""
        loop, machine = self.parts.loop, self.parts.machine
        pnp = machine.port.pnp if machine is not None else None
        if pnp is None or pnp.busy or pnp.state != "running":
            loop.call_soon(loop.stop)
        else:
            pnp.shut_down(lambda _: loop.call_soon(loop.stop))

    def close(self) -> None:
        """Nobody may connect any more; end all requests; flush and close the storage.

        Raises `StorageError` when a flush has failed: what was acknowledged may be lost.
        """
        bus = self.parts.bus
        units = [*bus, *bus.withdrawn.values()]
        self._engine.close()
        self._adapter.stop()
        self.parts.opener.close()
        bus.close()
        self._workers.shutdown()
        lost = [unit_name(*unit.address) for unit in units if unit.unstable]
        if lost:
            raise StorageError(
                f"what was written last to {', '.join(lost)} may be lost: the storage could not be flushed, for the "
                "reason logged above; compare its data with what it should be"
            )


class Assembler:
    """Makes adapters. `fd`: an open socket to serve instead of the configured path. `source`: the configuration they
    are from, to name the line of a unit whose storage cannot be had. `known`: the types of adapters there are.
    """

    def __init__(self, fd: int | None = None, source: Config | None = None, known: Registry = ADAPTERS) -> None:
        self._fd = fd
        self._source = source
        self._known = known

    def __call__(self, config: AdapterConfig, directory: Path, loop: EventLoop) -> Assembled:
        """Raises `HbaError` for what only shows now: a miniport or a storage that cannot be had."""
        kind = self._known[config.type]
        verifier = _verifier(config, loop, self._known.rules)
        recorder = Recorder(loop.clock, config.trace.keep) if config.trace.enabled else None
        workers = WorkerPool(loop)
        bus = ScsiBus()

        opener = Opener(loop)

        def open_medium(storage: StorageConfig) -> Backend:
            return open_backend(storage, loop, workers, directory)

        def open_store(storage: StorageConfig) -> Store:
            if isinstance(storage, ScsiStorage):
                return ScsiPassThrough(Path(storage.path), loop, workers, read_only=storage.read_only)
            return open_medium(storage)

        def open_tags(path: Path, blocks: int, block_size: int) -> Tags:
            return in_file(path, loop, workers, blocks, block_size)

        def make_unit(lun: LunConfig, store: Store | None) -> LogicalUnit:
            try:
                made = build_unit(lun, store, loop.clock, directory, open_tags, workers)
            except BaseException:
                if store is not None:
                    store.close()
                raise
            made.leaves_with_store = lun.leaves_with_store
            return made

        try:
            for number, lun in enumerate(config.lun):
                unit = f"lun {unit_name(lun.target, lun.lun)}: "
                with self._placed(config, "lun", number, "storage", what=unit):
                    # Before anybody is served, so here it may wait.
                    store = None if lun.storage is None else open_store(lun.storage)
                    bus.attach(lun.target, lun.lun, make_unit(lun, store))
            memory = GuestMemory()
            chip = Chip(bus, memory)
            chip.identity = kind.identity
            with self._placed(config, "miniport"):
                miniport = load_miniport(config.miniport, chip, config.miniport_options, config.port)
            options = config.scsiport if config.port == "scsiport" else config.storport
            if config.class_driver.enabled:
                options = msgspec.structs.replace(options, auto_release=False)  # which is the class driver's to do
            port = make_port(config.port, loop, miniport, chip, options, verifier, recorder)
            class_driver = _class_driver(config, loop, port)
            adapter = make_adapter(
                kind,
                Wiring(
                    loop,
                    port if class_driver is None else class_driver,
                    bus,
                    memory,
                    msi=config.pci.msi,
                    msix_vectors=config.pci.msix_vectors if config.pci.msix else 0,
                    posted_writes=config.pci.posted_writes,
                    ioeventfd=config.pci.ioeventfd,
                    poll=config.poll,
                    interrupts=config.interrupts,
                ),
                config.options,
                verifier,
                recorder,
            )
            keeper = adapter.function.keeper = AdapterKeeper(loop, adapter, port, bus, config.options)
            with self._placed(config, "engine"):
                engine = self._engine(config, loop, adapter.function)
        except BaseException:
            bus.close()
            workers.shutdown()
            raise

        def dump_port(mode: int) -> AnyPort:
            """As Windows has it for dumps: the miniport a second time, with the same chip."""
            other = load_miniport(config.miniport, chip, config.miniport_options, config.port, dump=True)
            dump = Dump(mode, port.info.requested_dump_buffer_size)
            return make_port(config.port, loop, other, chip, options, verifier, recorder, dump)

        machine = Machine(port, class_driver, dump_port)
        parts = Parts(
            name=config.name,
            config=config,
            loop=loop,
            engine=engine,
            function=adapter.function,
            adapter=adapter,
            max_targets=kind.max_targets(config.options),
            port=port,
            bus=bus,
            verifier=verifier,
            recorder=recorder,
            open_store=open_store,
            open_medium=open_medium,
            make_unit=make_unit,
            opener=opener,
            stop=loop.stop,
            machine=machine,
        )
        _connect_events(parts, adapter, engine)
        return Assembled(parts, adapter, keeper, engine, workers)

    @contextmanager
    def _placed(self, config: AdapterConfig, *path: str | int, what: str = "") -> Iterator[None]:
        """What goes wrong at the start is told with its line in the configuration: that of the key at `path` of the
        adapter, which is `what`.
        """
        try:
            yield
        except (ConfigError, EngineMissing, PermissionDenied, StorageError) as error:
            text = what + str(error).removeprefix(what)
            if self._source is not None:
                number = [adapter.name for adapter in self._source.adapters].index(config.name)
                text = f"{place(self._source.path, ('adapter', number, *path))}: {text}"
            error.args = (text,)
            raise

    def _engine(self, config: AdapterConfig, loop: EventLoop, device: Device) -> Engine:
        engine: Server
        if config.engine == "libvfio-user":
            library = find(Path(config.engine_library) if config.engine_library else None)
            engine = LibraryEngine(loop, config.socket, device, library=library)
        else:
            engine = NativeEngine(loop, config.socket, device)
        if self._fd is not None:
            engine.take(self._fd)
        return engine


def _class_driver(config: AdapterConfig, loop: EventLoop, port: AnyPort) -> ClassDriver | None:
    if not config.class_driver.enabled:
        return None
    # Of a miniport's own IoTimeoutValue the class driver hears, too (QD-11).
    time_out = config.storport.io_timeout_value if config.port == "storport" else 0
    return ClassDriver(loop, port, config.class_driver, time_out or 0)


def _verifier(config: AdapterConfig, loop: EventLoop, rules: Mapping[str, Rule]) -> Verifier | None:
    options = config.verifier
    return None if options.level == "off" else Verifier(loop.clock, options.level, options.rules, rules)


# -- events ---------------------------------------------------------------------------------------------------------


def _connect_events(parts: Parts, adapter: Adapter, engine: Engine) -> None:
    """What happens in the layers, to those who subscribed on the control socket."""
    events = parts.events
    if parts.verifier is not None:
        parts.verifier.subscribers.append(lambda finding: _found(events, finding))
    if parts.recorder is not None:
        recorder = parts.recorder
        events.source("trace", lambda: _follow(recorder, events))

    def changed(change: str, target: int, lun: int, known: bool) -> None:
        adapter.hot_plug(change, target, lun, known)
        why = adapter.announcement(target, lun)["why"]
        untold = {"untold": why} if why else {}
        events.publish("hotplug", {"change": change, **placed(target, lun), **untold})

    def not_heard(what: str) -> None:
        events.publish("hotplug", {"change": "untold", "message": what})
        log.warning("%s", what)

    def storage(event: str, target: int, lun: int) -> None:
        events.publish("storage", {"event": event, **placed(target, lun)})
        log.warning("storage of unit %s: %s", unit_name(target, lun), event)
        if event in ("gone", "back"):
            # Later: a back end that reports is in the middle of its own work.
            parts.loop.call_soon(lambda: _follow_store(parts.bus, event, target, lun))

    told_of_memory = False

    def reached() -> None:
        nonlocal told_of_memory
        if adapter.function.memory.none_shared and not told_of_memory:
            told_of_memory = True
            events.publish("client", {"event": "note", "message": NOT_SHARED})
            log.warning("%s", NOT_SHARED)

    def client(connected: bool) -> None:
        nonlocal told_of_memory
        told_of_memory = False
        told_unreachable.clear()
        events.publish("client", {"event": "connected" if connected else "left"})
        if not connected:
            parts.bus.power_cycle()
            # Whatever still refers to the guest's memory in a cycle would keep all of it mapped.
            parts.loop.call_soon(_collect)

    told_unreachable: set[str] = set()  # of this client: a driver may try again and again

    def unreachable(why: str) -> None:
        if why in told_unreachable or len(told_unreachable) >= MAX_TOLD:
            return
        told_unreachable.add(why)
        message = f"the guest's memory cannot be reached, {why}"
        events.publish("client", {"event": "unreachable", "message": message})
        log.warning("%s", message)

    def refused(why: str) -> None:
        events.publish("client", {"event": "refused", "message": why})

    engine.on_refused = refused
    adapter.on_unreachable = unreachable
    parts.bus.on_change = changed
    adapter.on_untold = not_heard
    parts.bus.on_storage = storage
    adapter.function.on_client.append(client)
    adapter.function.on_resume.append(reached)


def _follow_store(bus: ScsiBus, event: str, target: int, lun: int) -> None:
    """Unplug a unit with its store, and plug it in again with it."""
    unit = bus.units.get(target, {}).get(lun)
    if event == "back":
        if (target, lun) in bus.withdrawn:
            bus.restore(target, lun)
    elif unit is not None and unit.leaves_with_store:
        bus.withdraw(target, lun)


def _collect() -> None:
    gc.collect()


def _found(events: EventHub, finding: Finding) -> None:
    events.publish("verifier", plain(finding))


def _follow(recorder: Recorder, events: EventHub) -> Callable[[], None]:
    def publish(event: Event) -> None:
        events.publish("trace", event._asdict())

    recorder.subscribers.append(publish)
    return lambda: recorder.subscribers.remove(publish)
