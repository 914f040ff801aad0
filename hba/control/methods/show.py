"""What the layers say about themselves. Each method is one subject of `hba show`."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any, cast

from hba import __version__, compiled
from hba.config.model import to_plain
from hba.control.method import Call, Method, NoParams
from hba.control.methods.verifier import report
from hba.control.parts import Parts
from hba.control.results.pci import Interrupts, MappedRange, Regs
from hba.control.results.show import Shown, Summary
from hba.control.results.units import Unit
from hba.scsi.address import placed
from hba.scsi.names import command_name
from hba.scsi.unit import UNKNOWN_TYPE
from hba.srb import FUNCTION_NAMES, SRB_FUNCTION_EXECUTE_SCSI


def summary(parts: Parts) -> dict[str, object]:
    """One line's worth, for `hba ls`."""
    config = parts.config
    engine = parts.engine.snapshot()
    return {
        "name": parts.name,
        "type": config.type,
        "port": config.port,
        "engine": config.engine,
        "miniport": config.miniport,
        "pid": os.getpid(),
        "version": __version__,
        "compiled": compiled.in_use(),
        "socket": config.socket or None,
        "connected": engine.get("state") == "connected",
        "client": engine.get("client"),
        "luns": sum(1 for _ in parts.bus),
        "violations": parts.verifier.violations if parts.verifier is not None else None,
    }


def process() -> dict[str, object]:
    """What the server costs: CPU seconds and memory in bytes (guest RAM mapped here counts as shared)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    memory: dict[str, object] = {}
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - hot enough to skip pathlib
            for line in status:
                if line.startswith(("VmRSS", "RssAnon", "RssFile", "RssShmem")):
                    key, _, value = line.partition(":")
                    memory[key] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # no /proc here: then there is nothing to show
    return {"cpu_user": usage.ru_utime, "cpu_system": usage.ru_stime, **memory}


def luns(parts: Parts) -> list[dict[str, object]]:
    return [{**placed(*unit.address), **unit.describe()} for unit in sorted(parts.bus, key=lambda unit: unit.address)]


def regs(parts: Parts) -> object:
    pci = parts.function.snapshot()
    return {
        "identity": pci.get("identity"),
        "power_state": pci.get("power_state"),
        "bus_master": pci.get("bus_master"),
        "bars": pci.get("bars"),
        "config": pci.get("config"),
        "adapter": parts.adapter.snapshot().get("registers"),
    }


def queues(parts: Parts) -> object:
    """Rings and whatever else the adapter has to say of itself (all but registers and counters), and the port."""
    adapter = parts.adapter.snapshot()
    rest = {key: value for key, value in adapter.items() if key not in ("registers", "counters")}
    port = parts.port.snapshot()
    for unit in _dicts(port.get("units")):
        device_type = _type_at(parts, str(unit["address"]))
        for key in ("outstanding", "queue", "queued"):
            for request in _dicts(unit.get(key)):
                function = request.get("function", SRB_FUNCTION_EXECUTE_SCSI)
                request["command"] = (
                    command_name(device_type, bytes.fromhex(str(request.get("cdb", ""))))
                    if function == SRB_FUNCTION_EXECUTE_SCSI
                    else FUNCTION_NAMES.get(cast(int, function), "")
                )
    class_driver = parts.machine.class_driver if parts.machine is not None else None
    return {
        "adapter": rest,
        "port": port,
        "class_driver": class_driver.describe() if class_driver is not None else None,
    }


def _dicts(value: object) -> list[dict[str, object]]:
    """Those parts of a snapshot that are tables; a count stands where a port lists nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _type_at(parts: Parts, address: str) -> int:
    """Peripheral device type of the unit at path:target:lun, as far as there is one."""
    _, target, lun = map(int, address.split(":"))
    unit = parts.bus.units.get(target, {}).get(lun)
    return UNKNOWN_TYPE if unit is None else unit.device_type


def irq(parts: Parts) -> object:
    return parts.function.snapshot().get("interrupts")


def dma(parts: Parts) -> object:
    return parts.function.snapshot().get("dma")


def counters(parts: Parts) -> object:
    pci = parts.function.snapshot()
    return {
        "adapter": {"type": parts.config.type, **cast(dict[str, object], parts.adapter.snapshot()["counters"])},
        "port": parts.port.snapshot().get("counters"),
        "pci": {key: pci.get(key) for key in ("accesses", "resets", "connections")},
        "vfio_user": parts.engine.snapshot(),
        "process": process(),
    }


SUBJECTS: dict[str, tuple[Callable[[Parts], object], str]] = {
    "summary": (summary, "The adapter in one line: name, type, port model, process, sockets, connection."),
    "regs": (regs, "Registers: config space, BARs and the adapter's own, decoded by name and field."),
    "queues": (queues, "The adapter's rings, and the port's queues: what blocks them, which requests are in them."),
    "luns": (luns, "Logical units with their storage."),
    "irq": (irq, "Interrupt vectors: mode, state, how often each fired."),
    "dma": (dma, "Guest memory that is mapped."),
    "counters": (counters, "What was counted since the start, layer by layer."),
    "verifier": (lambda parts: report(parts.verifier), ""),
    "config": (lambda parts: to_plain(parts.config), "The configuration in force, defaults filled in."),
}


def _method(subject: str, result: Any) -> Method:
    show, doc = SUBJECTS[subject]

    def run(call: Call, params: NoParams) -> object:
        return show(call.parts)

    return Method(f"show.{subject}", run, doc, result=result)


def show_all(call: Call, params: NoParams) -> object:
    return {subject: show(call.parts) for subject, (show, _) in SUBJECTS.items()}


def methods(shapes: Shown) -> tuple[Method, ...]:
    """One for each subject but the verifier, which takes parameters (verifier.py), and one for all."""
    results = {
        "summary": Summary,
        "regs": Regs,
        "queues": shapes.queues,
        "luns": list[Unit],
        "irq": Interrupts,
        "dma": list[MappedRange],
        "counters": shapes.counters,
        "config": shapes.config,
    }
    return (
        *(_method(subject, result) for subject, result in results.items()),
        Method("show.all", show_all, "All subjects in one answer.", result=shapes.everything),
    )
