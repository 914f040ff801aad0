"""Interrupts: how the guest gets them, and what became of each."""

from __future__ import annotations

from typing import Any

from hba.cli.output import generic, pairs, table


def view(value: Any) -> None:
    if not isinstance(value, dict) or "indexes" not in value:
        generic(value)
        return
    rest = dict(value)
    indexes = rest.pop("indexes")
    sent = rest.pop("sent", {})
    pairs(rest.items())
    table(
        ("interrupt", "vectors", "sent", "connected", "masked", "pending", "resampled"),
        [
            (
                index["name"],
                index["vectors"],
                sent.get(index["name"]),
                _vectors(index["connected"]),
                _vectors(index["masked"]),
                _vectors(index["pending"]),
                index["resample"],
            )
            for index in indexes
        ],
    )


def _vectors(numbers: list[int]) -> str:
    """`0-3, 7`"""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans) or "-"
