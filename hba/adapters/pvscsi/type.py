"""What the rest of the program knows of PVSCSI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hba.adapters.pvscsi.identity import IDENTITY
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.rules import PVSCSI_RULES
from hba.adapters.pvscsi.shapes import PvscsiCounters, PvscsiQueues
from hba.adapters.types import AdapterType, GuestDriver, QemuDevice, Wiring

if TYPE_CHECKING:
    from hba.adapters.adapter import Adapter
    from hba.adapters.pvscsi.bench import PvscsiBenchDriver, PvscsiInnerDriver
    from hba.verifier import Verifier

_NO_CONFIG = "PVSCSI_CMD_CONFIG failed"


def _make(wiring: Wiring, options: PvscsiOptions) -> Adapter:
    from hba.adapters.pvscsi.adapter import PvscsiAdapter

    return PvscsiAdapter(wiring, options)


def _watch(adapter: Adapter, verifier: Verifier) -> None:
    from hba.adapters.pvscsi.watch import watch

    watch(adapter, verifier)


def _bench_driver(socket: str | Path, data_size: int, target: int, lun: int) -> PvscsiBenchDriver:
    from hba.adapters.pvscsi.bench import PvscsiBenchDriver

    return PvscsiBenchDriver(socket, data_size, target, lun)


def _inner_driver(adapter: Adapter) -> PvscsiInnerDriver:
    from hba.adapters.pvscsi.bench import PvscsiInnerDriver

    return PvscsiInnerDriver(adapter)


PVSCSI = AdapterType(
    name="pvscsi",
    title="VMware PVSCSI",
    identity=IDENTITY,
    options=PvscsiOptions,
    max_targets=lambda options: options.max_targets,
    make=_make,
    driver=GuestDriver(
        name="vmw_pvscsi",
        log=r"vmw_pvscsi",
        resets=("device", "bus", "host"),
        # It asks for the configuration page before it switches bus mastering on; a device that obeys the bit cannot
        # answer, and the driver says so, once, and goes on with 16 targets.
        without_bus_master=(_NO_CONFIG,),
    ),
    queues=PvscsiQueues,
    counters=PvscsiCounters,
    bench_driver=_bench_driver,
    inner_driver=_inner_driver,
    # QEMU's does not know the configuration page that the driver asks every adapter for.
    qemu=QemuDevice("pvscsi", messages=(_NO_CONFIG,)),
    watch=_watch,
    rules=PVSCSI_RULES,
)
