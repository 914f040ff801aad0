"""Registers, decoded by name and field."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, hexadecimal, line, pairs, size, table


def view(value: dict[str, Any]) -> None:
    identity = value.get("identity") or {}
    if identity:
        pairs(
            [
                ("device", f"{identity['vendor']:04x}:{identity['device']:04x}"),
                ("subsystem", f"{identity['subsystem_vendor']:04x}:{identity['subsystem']:04x}"),
                ("class", f"{identity['class_code']:06x} rev {identity['revision']:02x}"),
                ("power", value.get("power_state")),
                ("bus master", value.get("bus_master")),
            ]
        )
    table(
        ("bar", "space", "size", "address", "decodes"),
        [
            (bar["index"], bar["space"], size(bar["size"]), hexadecimal(bar["address"], 8), bar["enabled"])
            for bar in value.get("bars") or []
        ],
    )
    block(value.get("adapter"))
    block(value.get("config"))


def block(registers: Any) -> None:
    """One block: a line per register, a line per field that says something."""
    if not isinstance(registers, dict) or "registers" not in registers:
        generic(registers)
        return
    line(f"{registers.get('block', 'registers')}:")
    rows: list[tuple[object, ...]] = []
    for register in registers["registers"]:
        digits = register["width"] // 4
        rows.append(
            (
                hexadecimal(register["offset"], 4),
                register["name"],
                register["access"],
                hexadecimal(register["value"], digits),
                fields(register),
            )
        )
    table(("offset", "register", "access", "value", "fields"), rows, indent=4)


def fields(register: dict[str, Any]) -> str:
    """`CMPL_0=1 MODE=2 (fast)`: named values always, others when they are not zero."""
    words = []
    for field in register["fields"]:
        if field["name"] == register["name"] and field["meaning"]:
            words.append(str(field["meaning"]))
        elif field["meaning"]:
            words.append(f"{field['name']}={field['value']} ({field['meaning']})")
        elif field["value"] and field["name"] != register["name"]:
            words.append(f"{field['name']}={hexadecimal(field['value']) if field['value'] > 9 else field['value']}")
    return " ".join(words)
