"""Printing: text and tables for people, JSON for programs.

Names, messages and serial numbers come from control sockets, where the server or through it the guest chose them. What
is printed here goes through `visible`, so that none of them can speak to the terminal; JSON has escapes of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from hba.contract import versioned
from hba.terminal import screen
from hba.terminal.tables import aligned, lay_out
from hba.visible import visible

F = TypeVar("F", bound=Callable[..., Any])

# What an adapter answers is bounded; what becomes of it here is, too: no row for each item with a cell for every key
# that any of them has.
MAX_COLUMNS = 64
MAX_DIGITS = 16


def json_option(command: F) -> F:
    """--json, the same everywhere."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def print_json(value: Mapping[str, object]) -> None:
    """An object with its `schema_version`; what it is must be in `hba.cli.results`.

    All in ASCII: what could move a terminal's cursor or turn its text round is escaped.
    """
    click.echo(json.dumps(versioned(value), indent=2))


def print_json_line(value: Mapping[str, object]) -> None:
    """The same as one line of several."""
    click.echo(json.dumps(versioned(value)))
    sys.stdout.flush()


def say(text: str, err: bool = False) -> None:
    """A line of text."""
    click.echo(visible(text), err=err)


def heading(text: str) -> None:
    click.echo(click.style(visible(text), bold=True))


def line(text: str, indent: int = 2) -> None:
    say(" " * indent + text)


def pairs(rows: Iterable[tuple[str, object]], indent: int = 2) -> None:
    """Aligned `name  value` lines; what is None or empty is left out."""
    kept = [(visible(name), text(value)) for name, value in rows if value not in (None, "", [], {})]
    for shown in aligned(kept, indent):
        say(shown)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 2) -> None:
    """Aligned columns, numbers to the right, in what room the terminal has."""
    cells = [[visible(text(cell)) for cell in row] for row in rows]
    lines = lay_out([visible(name) for name in columns], cells, indent, screen.width(sys.stdout))
    for shown in lines:
        click.echo(shown)


def text(value: object) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


def size(value: object) -> str:
    """Bytes as people say them: 67108864 -> "64.0 MiB"."""
    if not isinstance(value, int | float):
        return text(value)
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def hexadecimal(value: object, digits: int = 0) -> str:
    return f"0x{value:0{min(digits, MAX_DIGITS)}x}" if isinstance(value, int) else text(value)


def duration(nanoseconds: object) -> str:
    """A time span as people say it: 1500000 -> "1.5 ms"."""
    if not isinstance(nanoseconds, int | float):
        return text(nanoseconds)
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(nanoseconds) >= factor:
            return f"{nanoseconds / factor:.1f} {unit}"
    return f"{nanoseconds} ns"


def generic(value: object, indent: int = 2) -> None:
    """Anything JSON has, readable: nested dictionaries as blocks, lists of dictionaries as tables."""
    if isinstance(value, Mapping):
        flat = [(str(key), item) for key, item in value.items() if not _nested(item)]
        pairs(flat, indent)
        for key, item in value.items():
            if _nested(item):
                line(f"{key}:", indent)
                generic(item, indent + 2)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        columns = list(dict.fromkeys(key for item in value for key in item if not _nested(item[key])))
        if len(columns) <= MAX_COLUMNS:
            table(columns, [[item.get(column) for column in columns] for item in value], indent)
        else:
            for item in value:
                generic(item, indent)
    elif value not in (None, [], {}):
        line(text(value), indent)


def _nested(item: object) -> bool:
    if isinstance(item, Mapping):
        return bool(item)
    return isinstance(item, list) and any(isinstance(part, Mapping) for part in item)
