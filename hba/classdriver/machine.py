"""What the rest of a Windows machine has a storage stack do: sleep, wake up, deal out resources anew, take things out.

Each runs a sequence over all units and the adapter, in the order the documents give, and tells every step:

    sleep      for each unit: LOCK_QUEUE, SYNCHRONIZE CACHE of a disk, POWER to D3 (both past the lock); then the
               adapter to D3
    resume     the adapter to D0; for each unit: POWER to D0 past the lock, UNLOCK_QUEUE                       (Q-12)
    rebalance  the adapter is stopped, and started with the resources it gets then
    shutdown   for each unit: SYNCHRONIZE CACHE of a disk, SHUTDOWN; then the adapter is stopped
    dump       a crash, and a few blocks through a miniport in dump mode (`hba.classdriver.dump`)             (DM-01)

Sources: Locking SCSI Port Driver's Internal Queue; Handling Power Requests to Storage Peripherals; Handling
SRB_FUNCTION_FLUSH and SRB_FUNCTION_SHUTDOWN; `hba.port.pnp` for the adapter's part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from hba.classdriver import srbs
from hba.classdriver.driver import ClassDriver
from hba.classdriver.dump import MakePort, dump
from hba.classdriver.enumeration import FoundUnit, inquiry, scan, send
from hba.classdriver.srbs import Unit
from hba.port.base import AnyPort
from hba.port.pnp import PnpStep
from hba.port.script import Step, Steps, run
from hba.srb import (
    FUNCTION_NAMES,
    SRB_FLAGS_BYPASS_LOCKED_QUEUE,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_MASK,
    STATUS_NAMES,
    STOR_POWER_ACTION_NONE,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    Srb,
)

SYNCHRONIZE_CACHE: Final = bytes((0x35,)) + bytes(9)
CACHE_TIME_OUT: Final = 240  # seconds
MOST_OWNERS: Final = 256
UNKNOWN_TYPE: Final = 0x1F
_PAST_THE_LOCK: Final = SRB_FLAGS_BYPASS_LOCKED_QUEUE | SRB_FLAGS_NO_QUEUE_FREEZE


class Owner:
    """A driver above the port, as the owner of a lock."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Busy(Exception):
    """Something else is being done to the adapter, or it is in no state for it; the text says which."""


def status_text(srb: Srb) -> str:
    """How an SRB ended, in a word."""
    return STATUS_NAMES.get(srb.srb_status & SRB_STATUS_MASK, f"{srb.srb_status:#04x}")


class Machine:
    """The machine around one port.

    `port`          where its requests go
    `class_driver`  the layer above it, if there is one
    `dump_port`     makes a port for dump mode
    `pending`       what was sent from outside and has not ended, by number
    """

    def __init__(
        self, port: AnyPort, class_driver: ClassDriver | None = None, dump_port: MakePort | None = None
    ) -> None:
        self.port = port
        self.class_driver = class_driver
        self._dump_port = dump_port
        self.pending: dict[int, object] = {}
        self._numbers = 0
        self._doing = ""
        self._types: dict[Unit, int] = {}  # peripheral device types
        self._owners: dict[str, object] = {}  # of locks: a driver is one and the same object

    @property
    def units(self) -> list[Unit]:
        """Those that have answered something."""
        return [(unit.path, unit.target, unit.lun) for unit in self.port.known_units()]

    def number(self) -> int:
        """For something that is sent from outside."""
        self._numbers += 1
        return self._numbers

    def owner(self, name: str) -> object:
        """The driver of this name, who locks a queue and bypasses his lock; nobody without a name."""
        if not name:
            return None
        if len(self._owners) >= MOST_OWNERS:
            self._owners.clear()
        return self._owners.setdefault(name, Owner(name))

    def rescan(self, done: Callable[[list[FoundUnit]], None]) -> None:
        """Look for units."""
        if self.class_driver is not None:
            self.class_driver.rescan(done)
            return
        info = self.port.info
        steps = scan(
            self.port, info.number_of_buses, info.maximum_number_of_targets, info.maximum_number_of_logical_units
        )
        run(steps, done)

    # Each of these tells its steps when all is done. They raise `Busy`.

    def sleep(self, action: int, told: Callable[[list[PnpStep]], None]) -> None:
        """`action`: STOR_POWER_ACTION_SLEEP or _HIBERNATE."""
        self._begin("sleep", self._sleep(action), told, {"running"})

    def resume(self, told: Callable[[list[PnpStep]], None]) -> None:
        self._begin("resume", self._resume(), told, {"asleep"})

    def stop(self, told: Callable[[list[PnpStep]], None]) -> None:
        self._begin("stop", self._of_adapter(self.port.pnp.stop), told, {"running"})

    def start(self, told: Callable[[list[PnpStep]], None]) -> None:
        self._begin("start", self._of_adapter(self.port.pnp.start), told, {"stopped", "removed"})

    def rebalance(self, told: Callable[[list[PnpStep]], None]) -> None:
        self._begin("rebalance", self._rebalance(), told, {"running"})

    def shutdown(self, told: Callable[[list[PnpStep]], None]) -> None:
        self._begin("shutdown", self._shutdown(), told, {"running"})

    def surprise_removal(self, told: Callable[[list[PnpStep]], None]) -> None:
        states = {"running", "stopped", "asleep"}
        self._begin("surprise removal", self._of_adapter(self.port.pnp.surprise_removal), told, states)

    def dump(self, mode: int, unit: Unit, lba: int, blocks: int, told: Callable[[list[PnpStep]], None]) -> None:
        """`mode`: DUMP_MODE_*; from block `lba` of a disk."""
        if self._dump_port is None:
            raise Busy("nobody makes miniports for dumps here")
        self._begin("dump", dump(self.port, self._dump_port, mode, unit, lba, blocks), told, {"running"})

    # -- the sequences ---------------------------------------------------------------------------------------------

    def _begin(self, what: str, steps: Steps, told: Callable[[list[PnpStep]], None], states: set[str]) -> None:
        doing = self._doing or self.port.pnp.busy
        if doing:
            raise Busy(f"{doing} is not over yet")
        state = self.port.pnp.state
        if state not in states:
            raise Busy(f"the adapter is {state}")
        self._doing = what

        def ended(taken: list[PnpStep]) -> None:
            self._doing = ""
            told(taken)

        run(steps, ended)

    def _sleep(self, action: int) -> Generator[Step, Any, list[PnpStep]]:
        steps: list[PnpStep] = []
        for unit in self.units:
            disk = yield from self._is_disk(unit)
            yield from self._sent(steps, self._owned(srbs.control(SRB_FUNCTION_LOCK_QUEUE, unit)))
            if disk:
                yield from self._sent(steps, self._owned(_cache(unit, _PAST_THE_LOCK)), "SYNCHRONIZE CACHE")
            down = srbs.power(unit, STOR_POWER_DEVICE_D3, action, _PAST_THE_LOCK)
            yield from self._sent(steps, self._owned(down), "POWER D3")
        steps += yield lambda ended: self.port.pnp.sleep(action, ended)
        return steps

    def _resume(self) -> Generator[Step, Any, list[PnpStep]]:
        steps: list[PnpStep] = []
        steps += yield self.port.pnp.resume
        for unit in self.units:
            up = srbs.power(unit, STOR_POWER_DEVICE_D0, STOR_POWER_ACTION_NONE, _PAST_THE_LOCK)
            yield from self._sent(steps, self._owned(up), "POWER D0")
            yield from self._sent(steps, self._owned(srbs.control(SRB_FUNCTION_UNLOCK_QUEUE, unit)))
        return steps

    def _rebalance(self) -> Generator[Step, Any, list[PnpStep]]:
        steps: list[PnpStep] = []
        steps += yield self.port.pnp.stop
        steps += yield self.port.pnp.start
        return steps

    def _shutdown(self) -> Generator[Step, Any, list[PnpStep]]:
        steps: list[PnpStep] = []
        for unit in self.units:
            if (yield from self._is_disk(unit)):
                yield from self._sent(steps, _cache(unit, SRB_FLAGS_NO_QUEUE_FREEZE), "SYNCHRONIZE CACHE")
            yield from self._sent(steps, srbs.control(SRB_FUNCTION_SHUTDOWN, unit))
        steps += yield self.port.pnp.stop
        return steps

    def _of_adapter(
        self, what: Callable[[Callable[[list[PnpStep]], None]], None]
    ) -> Generator[Step, Any, list[PnpStep]]:
        steps: list[PnpStep] = yield what
        return steps

    def _is_disk(self, unit: Unit) -> Generator[Step, Any, bool]:
        """Whether it has the driver for disks, which writes caches back; by its INQUIRY data, asked for once."""
        if unit not in self._types:
            data = yield from inquiry(self.port, unit)
            self._types[unit] = data[0] & 0x1F if data is not None else UNKNOWN_TYPE
        return self._types[unit] == 0

    def _sent(self, steps: list[PnpStep], srb: Srb, what: str = "") -> Generator[Step, Any, None]:
        yield send(self.port, srb)
        unit = f"{srb.path_id}:{srb.target_id}:{srb.lun}"
        steps.append(PnpStep(what or FUNCTION_NAMES[srb.function], status_text(srb), unit))

    def _owned(self, srb: Srb) -> Srb:
        srb.original_request = self.owner("class driver")
        return srb


def _cache(unit: Unit, flags: int) -> Srb:
    return srbs.command(unit, SYNCHRONIZE_CACHE, None, flags, CACHE_TIME_OUT)
