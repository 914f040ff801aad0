"""What the rest of the program has to know of an HBA it emulates: one `AdapterType` for each.

A package below `hba.adapters` makes its own in `type.py`, and `registry` lists it; nothing else names a type. What is
heavy (the adapter, the benchmark's driver) is imported when it is made: the configuration is checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.shapes import AdapterCounters
from hba.rules import RULES, catalogue
from hba.rules.rule import Rule
from hba.shapes import Result

if TYPE_CHECKING:
    from hba.adapters.adapter import Adapter
    from hba.adapters.bench import BenchDriver, InnerDriver
    from hba.loop import EventLoop
    from hba.pci.identity import Identity
    from hba.pci.memory import GuestMemory
    from hba.port.driver import PortDriver
    from hba.scsi.bus import ScsiBus
    from hba.verifier import Verifier

O = TypeVar("O", bound=Struct)  # noqa: E741 - its options


@dataclass(frozen=True)
class Wiring:
    """What an adapter is put between, and how its PCI function presents itself."""

    loop: EventLoop
    port: PortDriver
    bus: ScsiBus
    memory: GuestMemory
    msi: bool = True
    msix_vectors: int = 0  # 0: without MSI-X
    posted_writes: bool = False
    ioeventfd: bool = True  # offer events for doorbells, where writes are not posted
    poll: PollOptions | None = None  # None: its defaults
    interrupts: InterruptOptions | None = None


@dataclass(frozen=True)
class GuestDriver:
    """The guest's own driver, Linux's: what the lab and the suites in the guest have to know of it."""

    name: str  # in /sys/bus/pci/drivers
    log: str  # a pattern (re): how its messages in the kernel's log can be told
    resets: tuple[str, ...]  # kinds it can do, as sg_reset calls them: "device", "target", "bus", "host"
    without_bus_master: tuple[str, ...] = ()  # patterns of what it says when it is bound with bus mastering off


@dataclass(frozen=True)
class QemuDevice:
    """QEMU's own model of the same HBA, to hold ours against."""

    driver: str  # of QEMU's -device; its SCSI bus is ID.0
    messages: tuple[str, ...] = ()  # patterns of what the guest's driver says of it that is no fault


@dataclass(frozen=True)
class AdapterType(Generic[O]):
    """One HBA that can be emulated.

    `name`         `type` in a configuration, and the name of the table with its options
    `title`        for people
    `identity`     of its PCI function
    `options`      the table with its options; all of them have defaults
    `max_targets`  targets its driver can be told of, with these options (one of them may be called so and say it)
    `make`         an adapter, wired
    `watch`        puts the verifier of its guest's driver around one, if there is something to verify
    `driver`       the guest's
    `qemu`         QEMU's own model, if it has one
    `rules`        of the guest's driver that follow from this interface alone; IDs are unique among all types
    `queues`, `counters`  what its snapshot has (`counters` of it; all else but the registers): Structs that are tagged
                   with its name as `type`
    `bench_driver` the driver for `hba bench`: of the adapter behind a socket, with so many bytes of memory for data,
                   for the unit at (target, lun)
    `inner_driver` the driver for `hba bench --ports`, of an adapter in the same process
    """

    name: str
    title: str
    identity: Identity
    options: type[O]
    max_targets: Callable[[O], int]
    make: Callable[[Wiring, O], Adapter]
    driver: GuestDriver
    queues: type[Result]
    counters: type[AdapterCounters]
    bench_driver: Callable[[str | Path, int, int, int], BenchDriver]
    inner_driver: Callable[[Adapter], InnerDriver]
    qemu: QemuDevice | None = None
    watch: Callable[[Adapter, Verifier], None] | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def pci_id(self) -> str:
        """As udev writes it: `VENDOR:DEVICE`, in upper-case hexadecimal."""
        return f"{self.identity.vendor:04X}:{self.identity.device:04X}"


class Registry:
    """The types there are. The first is the default, where a program makes a configuration of its own."""

    def __init__(self, *types: AdapterType[Any]) -> None:
        self._types = {kind.name: kind for kind in types}
        assert len(self._types) == len(types), "two types of the same name"
        self.default = types[0]
        # Every rule there is, whoever keeps it: the ports' and their miniports', all guests', those of each type.
        self.rules = catalogue(*RULES.values(), *(rule for kind in types for rule in kind.rules))

    def __getitem__(self, name: str) -> AdapterType[Any]:
        return self._types[name]

    def __iter__(self) -> Iterator[AdapterType[Any]]:
        return iter(self._types.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._types)
