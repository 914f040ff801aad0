"""Configuration files: any text is a configuration or is refused with a reason, in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hba.config.load import parse
from hba.config.model import Config
from hba.errors import ConfigError
from hba.lab.paths import PACKAGE, PROJECT
from tests.fuzz.machine import NOWHERE
from tests.fuzz.reader import EDGES, Reader
from tests.fuzz.target import Target

FILE = NOWHERE / "hba.toml"
EXAMPLES = [path.read_bytes() for path in sorted((PROJECT / "docs" / "examples").glob("*.toml"))]
MOST_EDITS = 40


def _words(schema: Any) -> Iterator[str]:
    """Keys and values that mean something in a configuration."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        yield from (value for value in schema.get("enum", ()) if isinstance(value, str))
        for item in schema.values():
            yield from _words(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from _words(item)


WORDS = sorted(set(_words(json.loads((PACKAGE / "config" / "schema.json").read_text("utf-8")))))
PIECES = [
    "[[adapter]]\n", "[[adapter.lun]]\n", "[adapter.pci]\n", "[adapter.pvscsi]\n", "[adapter]\n", "[[[", "]]", "= ",
    "{ ", " }", ", ", '""', '"""', "'", "'''", "true", "false", "inf", "-nan", "1979-05-27T07:32:00Z", "0x", "1e999",
    "-1", "\\u0000", "\\U0010ffff", "# ", "\n", "\r", "\t", "\0", '"64M"', '"1T"', "[1, 2]", "{ a = { a = 1 } }",
    *(f"{edge}" for edge in EDGES), *(f"{word} = " for word in WORDS), *(f'"{word}"' for word in WORDS),
]  # fmt: skip


def run(data: bytes) -> None:
    reader = Reader(data)
    kind = reader.u8()
    text = bytearray() if kind == 0xFF else bytearray(EXAMPLES[kind % len(EXAMPLES)])
    if kind == 0xFF:
        text += reader.bytes(1 << 16)
    for _ in reader.steps(MOST_EDITS):
        _edit(text, reader)
    _read(text.decode("utf-8", "replace"))


def _edit(text: bytearray, reader: Reader) -> None:
    """Take something out, or put something in."""
    at = reader.u16() % (len(text) + 1)
    kind = reader.u8()
    if kind & 1:
        del text[at : at + reader.u8()]
    if kind & 2:
        text[at:at] = PIECES[reader.u16() % len(PIECES)].encode()
    if kind & 4:
        text[at:at] = reader.piece()
    if kind & 8:
        text[at:at] = text[: reader.u8()]


def _read(text: str) -> None:
    try:
        config = parse(text, FILE)
    except ConfigError as error:
        for line in str(error).splitlines():
            assert line.strip(), "a reason that is none"
        assert str(FILE) in str(error)
        return
    _sensible(config)


def _sensible(config: Config) -> None:
    assert config.adapters
    names = [adapter.name for adapter in config.adapters]
    assert len(set(names)) == len(names)
    for adapter in config.adapters:
        assert Path(adapter.socket).is_absolute()
        places = [(lun.target, lun.lun) for lun in adapter.lun]
        assert len(set(places)) == len(places)


def _seeds() -> Iterator[bytes]:
    for number in range(len(EXAMPLES)):
        yield bytes((number,))
        yield bytes((number, 40, 0, 2, 30, 0, 90, 0, 1, 9))
    for text in (
        b"",
        b"[[adapter]]\n",
        b'[[adapter]]\ntype = "pvscsi"\n',
        b"adapter = 1",
        b"a.b.c.d = [[[[]]]]",
        b"\xff\xfe",
    ):
        yield b"\xff" + text


TARGET = Target("configuration", run, tuple(_seeds()), tuple(word.encode() for word in WORDS))
