"""Compiled modules: taken when they fit the source, and only from folders that are ours.

The build itself is in the hands of scripts/test, which runs this directory and the tests of all that is compiled with
it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hba import compiled
from hba.compiled import build
from hba.errors import EXIT_INTERNAL, EXIT_SETUP, HbaError

ASK = "import hba\nfrom hba import compiled\nprint(compiled.in_use())"


def ask(**environment: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the folder in it where the modules for this source would be."""
    monkeypatch.setenv("HBA_CACHE", str(tmp_path))
    monkeypatch.delenv("HBA_PURE", raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return compiled.folder()


def test_what_is_compiled_is_the_ports_way() -> None:
    names = {compiled.module_name(source) for source in compiled.sources()}
    assert {"hba.port.base", "hba.port.ledger", "hba.port.storport.driver", "hba.port.scsiport.driver"} <= names
    assert not any(name.endswith(("config", "__init__")) for name in names)


def test_this_run_uses_what_it_says(pytestconfig: pytest.Config) -> None:
    wanted = os.environ.get("HBA_PURE", "") in ("", "0") and compiled.folder().is_dir()
    assert compiled.in_use() == wanted


def test_the_source_runs_where_nothing_was_compiled_or_when_it_is_asked_for(place: Path) -> None:
    assert ask() == "False"
    assert ask(HBA_PURE="1") == "False"
    assert not compiled.use()


def test_a_folder_that_others_can_write_to_is_not_trusted(place: Path) -> None:
    place.mkdir(parents=True)
    assert compiled.use()
    place.chmod(0o777)
    assert not compiled.use()


def test_other_source_is_another_folder(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = tmp_path / "ledger.py"
    changed.write_text("changed = True\n")
    monkeypatch.setattr(compiled, "sources", lambda: [changed])
    monkeypatch.setattr(compiled, "module_name", lambda source: "hba.port.ledger")
    assert compiled.folder() != place


def test_nobody_asks_for_what_is_not_compiled(place: Path) -> None:
    finder = compiled._Finder(place, frozenset({"hba.port.ledger"}))
    assert finder.find_spec("hba.port.config", None) is None
    found = finder.find_spec("hba.port.ledger", None)
    assert found is not None and found.origin == str(place / "hba" / "port" / f"ledger{compiled.SUFFIX}")


def test_no_compiler_is_told_with_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(HbaError, match="needs the C compiler no-such-compiler; apt-get install gcc, or set CC"):
        build.build()
    assert not place.exists()


def test_what_the_compiler_says_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_SETUP", "raise SystemExit('no such thing as {group}')")
    with pytest.raises(HbaError, match="cannot be compiled; no such thing as hba_native"):
        build.build()
    assert not place.exists() and list(place.parent.iterdir()) == []


def test_what_is_ours_to_mend_is_no_compiler_that_is_missing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scripts/test` goes on without a compiler, and fails with one that does not take our modules."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "_SETUP", "raise SystemExit('no')")
        assert build.main() == EXIT_INTERNAL
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.main() == EXIT_SETUP


def test_what_is_there_is_not_made_again(place: Path) -> None:
    place.mkdir(parents=True)
    assert build.build() == place
