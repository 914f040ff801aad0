"""hba.runtime: where the sockets are, and that the folder is ours alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from hba.errors import PermissionDenied
from hba.runtime import control_path, control_sockets, ensure_runtime_dir, runtime_dir


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBA_RUNTIME_DIR", "/a/b")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert runtime_dir() == Path("/a/b")
    monkeypatch.delenv("HBA_RUNTIME_DIR")
    assert runtime_dir() == Path("/run/user/7/hba")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_dir() == Path(f"/tmp/hba-{os.getuid()}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(tmp_path / "x" / "run"))
    return tmp_path / "x" / "run"


def test_it_is_made_private(folder: Path) -> None:
    assert ensure_runtime_dir() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ensure_runtime_dir() == folder


def test_a_link_or_a_file_in_its_place_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.parent.mkdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(PermissionDenied, match="is not a folder"):
        ensure_runtime_dir()
    folder.unlink()
    folder.write_text("")
    with pytest.raises(PermissionDenied, match="cannot be made"):
        ensure_runtime_dir()


def test_somebody_elses_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_runtime_dir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionDenied, match="belongs to user"):
        ensure_runtime_dir()


def test_control_sockets_are_found(folder: Path) -> None:
    assert control_sockets() == []
    ensure_runtime_dir()
    (folder / "no-socket.ctl").write_text("")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(control_path("a")))
    assert control_sockets() == [folder / "a.ctl"]
    server.close()
