"""Output goes wherever it is sent: every command, in terminals of four widths, with three character sets, to four kinds
of sink, with and without colours.
"""

from __future__ import annotations

import os
import pty
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

import pytest

from hba.errors import EXIT_INTERNAL, EXIT_OK, EXIT_PIPE, EXIT_STORAGE
from hba.lab.space import full_disk
from hba.terminal import entry, screen
from hba.terminal.tables import columns_of
from tests.cli.shape import check_error
from tests.cli.stage import LONG, PROGRAMS, commands, staged

WIDTHS = (40, 60, 80, 200)
CHARSETS = ("utf-8", "latin-1", "ascii")
SINKS = ("terminal", "pipe", "closed pipe", "full device")
SETTINGS = ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"})

HBA, LAUNCH, PREPARE = PROGRAMS
LINES = [
    (HBA, "--help"),
    (HBA, "shwo"),
    (HBA, "ls"),
    (HBA, "ls", "--json"),
    (HBA, "show"),
    *(
        (HBA, "show", name)
        for name in ("regs", "queues", "luns", "irq", "dma", "counters", "verifier", "config", "all")
    ),
    (HBA, "show", "nobody"),
    (HBA, "lun"),
    (HBA, "lun", "ls"),
    (HBA, "lun", "add", "2", "--memory", "--size", "1M"),
    (HBA, "lun", "remove", "2"),
    (HBA, "lun", "eject", "1"),
    (HBA, "lun", "insert", "1", "--memory", "--size", "1M"),
    (HBA, "lun", "resize", "1", "1M"),
    (HBA, "lun", "read-only", "1"),
    (HBA, "inject"),
    (HBA, "inject", "scsi", "1", "000000000000"),
    (HBA, "inject", "send", "flush", "1"),
    (HBA, "inject", "io-control", "1"),
    (HBA, "inject", "wmi", "1"),
    (HBA, "inject", "power", "D3", "1"),
    (HBA, "inject", "pnp", "query-capabilities", "1"),
    (HBA, "inject", "remove", "1"),
    (HBA, "inject", "machine", "sleep"),
    (HBA, "inject", "dump", "1"),
    (HBA, "inject", "rescan"),
    (HBA, "inject", "tracing", "on"),
    (HBA, "events", "--count", "1"),
    (HBA, "trace"),
    (HBA, "explain"),
    (HBA, "explain", "MB-05"),
    (HBA, "doctor"),
    (HBA, "bench", "fake0", "--unit", "1:0"),
    (HBA, "bench", "--ports"),
    (HBA, "bench", "--levels"),
    (HBA, "bench", "--guest"),
    (HBA, "systemd"),
    (HBA, "version"),
    (HBA, "check", "good.toml"),
    (HBA, "check", "bad.toml"),
    (HBA, "serve", "good.toml"),
    (LAUNCH, "--help"),
    (LAUNCH, "--list-suites"),
    (LAUNCH, "--suite", "smoke"),
    (PREPARE, "6.1"),
]
# What must be whole however narrow the terminal is.
WHOLE = {"ls": ["fake0", LONG], "check good.toml": [LONG], "serve good.toml": ["pvscsi0", LONG]}
TABLES = ("ls", "explain", "lun ls", "check good.toml")  # where no line is wider than the terminal without need


def test_every_command_is_here() -> None:
    shown = {(program, *path) for program, path, _ in commands()}
    assert {place for place in shown if not any(line[: len(place)] == place for line in LINES)} == set()


@pytest.fixture(scope="module", autouse=True)
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("stage")
    (folder / "good.toml").write_text(f'[[adapter]]\ntype = "pvscsi"\nsocket = "{LONG}"\n')
    (folder / "bad.toml").write_text('[[adapter]]\ntype = "pvscis"\nprot = 1\n')
    with staged(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


class Ended(NamedTuple):
    """A run: its exit code, and what came out; on a terminal both are one."""

    code: int
    out: bytes
    err: bytes


class Drain:
    """Reads a descriptor until its other end is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = bytearray()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                piece = os.read(self._fd, 65536)
            except OSError:  # how a pseudo-terminal ends
                return
            if not piece:
                return
            self._data += piece

    def end(self) -> bytes:
        self._thread.join()
        os.close(self._fd)
        return bytes(self._data).replace(b"\r\n", b"\n")


def piped() -> tuple[int, Drain]:
    ours, theirs = os.pipe()
    return theirs, Drain(ours)


@contextmanager
def opened(sink: str, width: int) -> Iterator[tuple[int, int, list[Drain]]]:
    """Descriptors for standard output and standard error, and who reads what comes there."""
    if sink == "terminal":
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, width))
        yield theirs, os.dup(theirs), [Drain(ours)]
        return
    err, errors = piped()
    if sink == "pipe":
        out, shown = piped()
        yield out, err, [shown, errors]
    elif sink == "closed pipe":
        ours, out = os.pipe()
        os.close(ours)
        yield out, err, [errors]
    else:
        yield os.open("/dev/full", os.O_WRONLY), err, [errors]


def run(line: tuple[str, ...], sink: str, width: int, charset: str, setting: dict[str, str]) -> Ended:
    """As the program's `main` runs it."""
    program, *words = line
    with pytest.MonkeyPatch.context() as patch, opened(sink, width) as (out, err, drains):
        for name, value in setting.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", open(out, "w", encoding=charset))  # noqa: PTH123, SIM115
        patch.setattr(sys, "stderr", open(err, "w", encoding=charset))  # noqa: PTH123, SIM115
        screen.prepare_streams()
        try:
            code = entry.run(PROGRAMS[program], program, words, full_disk)
        finally:
            sys.stdout.close()
            sys.stderr.close()
        found = [drain.end() for drain in drains]
    return Ended(code, found[0] if len(found) == 2 or sink == "terminal" else b"", found[-1])


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_any_terminal(line: tuple[str, ...]) -> None:
    plain = run(line, "pipe", 80, "utf-8", {})
    for width, charset, sink, setting in product(WIDTHS, CHARSETS, SINKS, SETTINGS):
        ended = run(line, sink, width, charset, setting)
        try:
            check(line, plain, ended, sink, width, charset, setting)
        except AssertionError as error:
            raise AssertionError(f"{' '.join(line)}, {width} columns, {charset}, {sink}, {setting}: {ended}") from error


def check(
    line: tuple[str, ...], plain: Ended, ended: Ended, sink: str, width: int, charset: str, setting: dict[str, str]
) -> None:
    words = " ".join(line[1:])
    everything = ended.out + ended.err
    text = everything.decode(charset)  # as who reads it does
    assert ended.code != EXIT_INTERNAL and "Traceback" not in text
    if sink != "terminal" or setting:
        assert "\x1b" not in text and "\r" not in text
    if sink in ("terminal", "pipe"):
        repeated = words.startswith("lun ")  # what was added is there
        assert ended.code == plain.code or (repeated and ended.code in (0, 9))
        if sink == "terminal":
            assert [part for part in WHOLE.get(words, ()) if part not in text] == []
            assert words not in TABLES or [row for row in text.split("\n") if _too_wide(_bare(row), width)] == []
        return
    if words.startswith("serve"):  # an adapter goes on, whoever listens
        assert ended.code == EXIT_OK
    elif plain.out and plain.code == EXIT_OK and ended.code != 9:
        assert ended.code == (EXIT_PIPE if sink == "closed pipe" else EXIT_STORAGE)
        if sink == "closed pipe":
            assert not ended.err
        else:
            message = check_error(text, EXIT_STORAGE, line[1:], as_json="--json" in line)
            assert message.startswith("standard output: No space left on device; ")


def _too_wide(row: str, width: int) -> bool:
    """A long word has to be whole; anything else fits."""
    return columns_of(row) > width and max(map(len, row.split())) <= width // 2


def _bare(row: str) -> str:
    return row.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize(("choice", "coloured"), [("always", True), ("never", False), ("auto", False)])
def test_colours_can_be_chosen(choice: str, coloured: bool) -> None:
    ended = run((HBA, "--color", choice, "show"), "pipe", 80, "utf-8", {"NO_COLOR": "1"})
    assert (b"\x1b[1m" in ended.out) == coloured
    ended = run((HBA, "--color", choice, "show"), "terminal", 80, "utf-8", {})
    assert (b"\x1b[1m" in ended.out) == (choice != "never")


def test_what_a_character_set_has_not_is_said_in_ascii() -> None:
    ended = run((HBA, "events", "--count", "1"), "pipe", 80, "ascii", {})
    assert ended.out.endswith(b" storage  target 0, lun 0, event ...\n")
    ended = run((HBA, "show", "verifier"), "pipe", 80, "latin-1", {})
    assert rb"the sky fell ... \u6f22" in ended.out
