"""The registration: what the rest of the program knows of the minimal adapter."""

from __future__ import annotations

from hba.adapters.types import AdapterType, GuestDriver, QemuDevice
from tests.adapters.minimal.adapter import MinimalAdapter
from tests.adapters.minimal.bench import MinimalDriver, MinimalInnerDriver
from tests.adapters.minimal.options import MinimalOptions
from tests.adapters.minimal.rules import MINIMAL_RULES
from tests.adapters.minimal.shapes import MinimalCounters, MinimalQueues
from tests.adapters.minimal.structures import IDENTITY
from tests.adapters.minimal.watch import watch

MINIMAL = AdapterType(
    name="minimal",
    title="minimal HBA",
    identity=IDENTITY,
    options=MinimalOptions,
    max_targets=lambda options: 4,
    make=MinimalAdapter,
    driver=GuestDriver("minimal_hba", r"minimal_hba", resets=("bus",), without_bus_master=("no bus master",)),
    queues=MinimalQueues,
    counters=MinimalCounters,
    bench_driver=MinimalDriver,
    inner_driver=MinimalInnerDriver,
    qemu=QemuDevice("minimal-hba", messages=("of QEMU's own",)),
    watch=watch,
    rules=MINIMAL_RULES,
)
