"""The configuration in force."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, line


def view(value: dict[str, Any]) -> None:
    rest = {key: _readable(item) for key, item in value.items() if key != "lun"}
    generic(rest)
    for unit in value["lun"]:
        line(f"unit {unit['target']}:{unit['lun']}:")
        generic({key: item for key, item in unit.items() if key not in ("target", "lun")}, 4)


def _readable(item: Any) -> Any:
    """Operation codes as the standards write them."""
    if isinstance(item, dict) and isinstance(item.get("rw_opcodes"), list | tuple):
        return {**item, "rw_opcodes": " ".join(f"{opcode:02X}h" for opcode in item["rw_opcodes"])}
    return item
