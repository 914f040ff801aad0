"""Steps on a terminal, and where a line cannot be overwritten."""

from __future__ import annotations

import io

import pytest

from hba.lab.progress import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    progress = Progress(stream)
    with progress.step("making [it]") as step:
        step.update("half of it … [/bold]")
    return stream.getvalue()


def test_a_terminal_gets_a_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in shown(Terminal()) and "making [it]: done" in shown(Terminal())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_escapes_gets_lines(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    lines = shown(Terminal()).splitlines()
    assert lines[:2] == ["making [it] ...", "  half of it … [/bold]"] and lines[2].startswith("making [it]: done (")


@pytest.mark.parametrize("forced", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch, forced: str) -> None:
    monkeypatch.setenv(forced, "1")
    assert "\x1b" not in shown(io.StringIO())


def test_a_terminal_without_unicode_gets_a_spinner_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    terminal.encoding = "ascii"  # type: ignore[misc]
    assert shown(terminal).replace("…", "").isascii()
