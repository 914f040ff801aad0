"""Where a key stands in a TOML file. The parser does not say, so this reads the text a second time, for messages only.

It follows table headers, keys, tables in braces over several lines, and multi-line strings; what is in a list gets the
line that starts the list.
"""

from __future__ import annotations

import re
from pathlib import Path

_HEADER = re.compile(r"^\s*(\[\[?)\s*(.*?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=(.*)$"""
)
_NO_BRACE = re.compile(r"""("(?:[^"\\]|\\.)*"|'[^']*'|#.*)""")  # strings and comments, whose braces are none
_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(?:\.|$)""")


def _split(dotted: str) -> list[str]:
    return [next(part for part in match.groups() if part is not None) for match in _PART.finditer(dotted)]


def locate(text: str) -> dict[tuple[str | int, ...], int]:
    """Line numbers (from 1) by key path, in the form `("adapter", 0, "lun", 1, "type")`."""
    found: dict[tuple[str | int, ...], int] = {}
    lists: dict[tuple[str | int, ...], int] = {}  # arrays of tables: how many entries so far
    table: tuple[str | int, ...] = ()
    braces: list[tuple[str | int, ...]] = []  # the tables in braces we are in
    brackets = 0  # the lists we are in
    fence = ""  # the quotes that end the multi-line string we are in
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            if fence in line:
                fence = ""
            continue
        bare = _NO_BRACE.sub("", line)
        if brackets:
            brackets += bare.count("[") - bare.count("]")
        elif not braces and (header := _HEADER.match(line)):
            names = _split(header[2])
            table = ()
            for name in names[:-1]:
                table = (*table, name)
                if table in lists:
                    table = (*table, lists[table] - 1)
            table = (*table, *names[-1:])
            if header[1] == "[[":
                index = lists.get(table, 0)
                lists[table] = index + 1
                found.setdefault(table, number)
                table = (*table, index)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            path = braces[-1] if braces else table
            for name in _split(key[1]):
                path = (*path, name)
                found.setdefault(path, number)
            value = key[2].strip()
            for quotes in ('"""', "'''"):
                if value.startswith(quotes) and quotes not in value[3:]:
                    fence = quotes
            if not fence:
                opened = bare.count("{") - bare.count("}")
                brackets = max(0, bare.count("[") - bare.count("]"))
                if not brackets:
                    braces += [path] * max(0, opened)
                    del braces[len(braces) + min(0, opened) :]
        elif braces:
            del braces[max(0, len(braces) - bare.count("}")) :]
    return found


def line_of(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int | None:
    """The line of `path`, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def place(file: Path, path: tuple[str | int, ...]) -> str:
    """`file:line` of `path`, read again from the file; the file alone when it does not have it any more."""
    try:
        line = line_of(locate(file.read_text("utf-8")), path)
    except (OSError, ValueError):
        line = None
    return f"{file}:{line}" if line else f"{file}"
