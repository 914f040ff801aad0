"""The private folder of an experiment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hba.lab.rundir import RunDir


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "file").write_text("x")
    folder.close()
    assert not folder.path.exists()


def test_it_can_be_kept(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.keep()
    folder.close()
    RunDir(tmp_path).close()
    assert folder.path.exists()


def test_one_in_use_is_left_alone(tmp_path: Path) -> None:
    first = RunDir(tmp_path)
    RunDir(tmp_path).close()
    assert first.path.exists()
    first.close()


def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom hba.lab.rundir import RunDir\n"
        "print(RunDir(Path(sys.argv[1])).path, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, os.fspath(tmp_path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = Path(killed.stdout.strip())
    assert left.exists()
    RunDir(tmp_path).close()
    assert not left.exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / ".in-use").touch()
    (tmp_path / "hba-lab-link").symlink_to(precious)
    RunDir(tmp_path).close()
    assert precious.exists()


def test_sockets_fit_whatever_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    folder = RunDir()
    try:
        assert len(os.fsencode(folder.path / "adapter-00.sock")) <= 107
    finally:
        folder.close()
