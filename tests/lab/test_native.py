"""The hot modules are compiled before a guest's adapter starts, and nothing depends on it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from hba import compiled
from hba.compiled import build
from hba.lab import native
from hba.lab.progress import Progress


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the folder in it where the modules for this source would be."""
    monkeypatch.setenv("HBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HBA_PURE", raising=False)
    return compiled.folder()


def compile_first() -> str:
    said = io.StringIO()
    native.compile_first(Progress(said))
    return said.getvalue()


def test_what_is_not_there_is_made_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make() -> Path:
        place.mkdir(parents=True)
        made.append(place)
        return place

    monkeypatch.setattr(build, "build", make)
    monkeypatch.setattr(build, "check", lambda: None)
    assert "compiling the hot modules" in compile_first()
    assert compile_first() == ""
    assert made == [place]


def test_who_wants_the_source_waits_for_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBA_PURE", "1")
    monkeypatch.setattr(build, "build", lambda: pytest.fail("it was made"))
    assert compile_first() == ""


def test_without_a_compiler_the_source_runs_and_that_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    said = compile_first()
    assert said.startswith(
        "hba runs as Python source: compiling needs the C compiler no-such-compiler; apt-get install"
    )
    assert "compiling the hot modules" not in said


def test_modules_that_do_not_compile_are_said_and_the_source_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "check", lambda: None)
    monkeypatch.setattr(build, "_SETUP", "raise SystemExit('no such thing')")
    said = compile_first()
    assert "failed" in said
    assert "hba runs as Python source: the port cannot be compiled; no such thing" in said


def test_a_cache_that_cannot_be_written_is_said(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setattr(build, "check", lambda: None)
    assert "set HBA_CACHE to another folder" in compile_first()


def test_the_modules_are_compiled_at_once(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compilers that wait for each other: one after the other they would wait for ever."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one processor")
    compiler = tmp_path / "cc"
    meeting = tmp_path / "meeting"
    os.mkfifo(meeting)
    # The first one waits for two others: two of the group's sources, and the one of a module's own.
    compiler.write_text(
        "#!/bin/sh\n"
        f"exec 3<>{meeting}\n"
        f"if mkdir {tmp_path}/first 2>/dev/null; then read -r _ <&3; read -r _ <&3; else echo >&3; fi\n"
        "echo 'error: nothing is made here' >&2\n"
        "exit 1\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(build, "sources", lambda: [path for path in compiled.sources() if path.name == "turn.py"])
    assert "hba runs as Python source: the port cannot be compiled" in compile_first()
