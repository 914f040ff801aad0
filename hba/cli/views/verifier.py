"""What the verifier found."""

from __future__ import annotations

from typing import Any

from hba.adapters.registry import ADAPTERS
from hba.cli.output import line, pairs, table, text


def view(value: dict[str, Any]) -> None:
    pairs([("level", value["level"]), ("findings", totals(value)), ("overrides", value.get("overrides"))])
    rules = ADAPTERS.rules
    table(
        ("rule", "count", "title"),
        [(rule, count, rules[rule].title if rule in rules else None) for rule, count in value["counts"].items()],
    )
    for finding in value["findings"]:
        line(f"{finding['time'] / 1e9:.6f} s  {finding['severity']} {finding['rule']}: {finding['message']}")
        pairs(
            [
                ("where", finding["where"]),
                ("srb", finding["srb"]),
                ("details", finding["details"]),
            ],
            6,
        )
        for step in finding["history"]:
            line(text(step), 8)


def totals(value: dict[str, Any]) -> str:
    if value["level"] == "off":
        return "the verifier is off"
    severities = {key: count for key, count in value["severities"].items() if count}
    return ", ".join(f"{count} {key}" for key, count in severities.items()) or "none"
