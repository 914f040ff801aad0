"""The configuration in force."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, line
from hba.port.storport.config import MAP_BUFFERS_NAMES
from hba.scsi.address import unit_name
from hba.scsi.names import operation_name


def view(value: dict[str, Any]) -> None:
    rest = {key: _readable(item) for key, item in value.items() if key != "lun"}
    generic(rest)
    for unit in value["lun"]:
        line(f"unit {unit_name(unit['target'], unit['lun'])}:")
        generic({key: item for key, item in unit.items() if key not in ("target", "lun")}, 4)


def _readable(item: Any) -> Any:
    """Operation codes as the standards write them, and MapBuffers by its name."""
    if not isinstance(item, dict):
        return item
    shown = dict(item)
    if isinstance(item.get("rw_opcodes"), list | tuple):
        shown["rw_opcodes"] = ", ".join(f"{operation_name(code)} {code:02X}h".strip() for code in item["rw_opcodes"])
    value = item.get("map_buffers")
    if value in MAP_BUFFERS_NAMES and not isinstance(value, bool):  # Storport's; SCSI Port's is yes or no
        shown["map_buffers"] = MAP_BUFFERS_NAMES[value]
    return shown
