"""What was counted since the start."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, pairs, size


def view(value: dict[str, Any]) -> None:
    layers = dict(value)
    process(layers.pop("process", None) or {})
    generic(layers)


def process(value: dict[str, Any]) -> None:
    pairs(
        [
            ("cpu", f"{value.get('cpu_user', 0):.2f} s user, {value.get('cpu_system', 0):.2f} s system"),
            *((key, size(item)) for key, item in value.items() if not key.startswith("cpu")),
        ]
    )
