"""The one writer of tables: aligned columns where they fit, wrapped prose where that helps, else a block for each row.

Nothing is cut and no column goes: a name or a socket that is shown can be copied, however narrow the terminal is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

MAX_WIDTH = 200  # columns that others are filled up to: one absurd cell does not make each row as long
_GAP = "  "
_PROSE = 16  # columns that a column of prose keeps at least


def lay_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], indent: int = 2, width: int | None = None
) -> list[str]:
    """The lines: the header first, unless there was only room for blocks. Empty without rows.

    `rows` are printable text; columns of numbers go to the right. `width`: columns of the terminal, None for any.
    """
    if not rows:
        return []
    titles = [_title(name) for name in columns]
    numeric = [all(_is_number(row[at]) for row in rows) for at in range(len(columns))]
    widths = [cells_width([titles[at], *(row[at] for row in rows)]) for at in range(len(columns))]
    if width is not None:
        narrowed = _narrow(widths, titles, rows, width - indent - len(_GAP) * (len(columns) - 1))
        if narrowed is None:
            return _blocks(columns, rows, indent, width)
        widths = narrowed
    return [
        " " * indent + line for row in (titles, *rows) for line in _row(row, widths, numeric, wrap=width is not None)
    ]


def aligned(rows: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """`name  value` lines, the values one below the other."""
    width = cells_width(name for name, _ in rows)
    return [f"{' ' * indent}{padded(name, width)}{_GAP}{value}" for name, value in rows]


def cells_width(cells: Iterable[str]) -> int:
    """What the widest of `cells` takes, within reason."""
    return min(MAX_WIDTH, max(map(columns_of, cells), default=0))


def columns_of(text: str) -> int:
    """How many columns `text` takes in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # here: most tables are ASCII

    return cell_len(text)


def padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - columns_of(text))
    return space + text if right else text + space


def _narrow(widths: Sequence[int], titles: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths that fit into `room` columns, taken from prose, the widest first; None when there are none."""
    narrowed = list(widths)
    for at in sorted(range(len(widths)), key=lambda at: -widths[at]):
        excess = sum(narrowed) - room
        if excess <= 0:
            break
        words = [word for row in rows for word in row[at].split(" ")]
        least = max(_PROSE, cells_width([titles[at], *words]))
        narrowed[at] = min(narrowed[at], max(least, narrowed[at] - excess))
    return narrowed if sum(narrowed) <= room else None


def _row(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], wrap: bool) -> Iterator[str]:
    parts = [_wrapped(cell, width) if wrap else [cell] for cell, width in zip(cells, widths, strict=True)]
    for line in zip_longest(*parts, fillvalue=""):
        filled = (padded(cell, width, right) for cell, width, right in zip(line, widths, numeric, strict=True))
        yield _GAP.join(filled).rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    if columns_of(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], indent: int, width: int) -> list[str]:
    """A line for each cell, more for long prose, and an empty one between rows."""
    names = cells_width(columns)
    room = max(_PROSE, width - indent - names - len(_GAP))
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        for name, cell in zip(columns, row, strict=True):
            label = name
            for part in _wrapped(cell, room):
                lines.append(f"{' ' * indent}{padded(label, names)}{_GAP}{part}".rstrip())
                label = ""
    return lines


def _title(name: str) -> str:
    return name.upper() if name.isascii() else name  # the Greek letter of µs has a capital nobody would read


def _is_number(cell: str) -> bool:
    return bool(cell) and cell.lstrip("-").replace(".", "", 1).isdigit()
