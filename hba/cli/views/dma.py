"""Guest memory that is mapped."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, hexadecimal, line, size, table


def view(value: Any) -> None:
    if not isinstance(value, list):
        generic(value)
        return
    line(total(value))
    table(
        ("bus address", "end", "size", "access", "reached by"),
        [
            (
                hexadecimal(item["iova"], 12),
                hexadecimal(item["iova"] + item["size"] - 1, 12),
                size(item["size"]),
                item["access"],
                item["by"],
            )
            for item in value
        ],
    )


def total(value: list[dict[str, Any]]) -> str:
    return f"{len(value)} {'map' if len(value) == 1 else 'maps'}, {size(sum(item['size'] for item in value))}"
