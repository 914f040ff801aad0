"""Where the disks of a benchmark lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hba.bench import disk
from hba.errors import StorageError


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(disk, "MEMORY", folder)
    monkeypatch.delenv("TMPDIR", raising=False)
    return folder


def test_in_memory_if_there_is_room(memory: Path) -> None:
    folder = disk.make_folder(1 << 20)
    assert folder.parent == memory and folder.is_dir()


def test_else_among_the_temporary_files(memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (disk.make_folder(1 << 60), _without(memory)):
        assert folder.is_dir() and memory not in folder.parents
        folder.rmdir()
    memory.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert disk.make_folder(1 << 20).parent == tmp_path


def _without(memory: Path) -> Path:
    shutil.rmtree(memory)
    return disk.make_folder(1 << 20)


def test_a_disk_without_holes(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    disk.fill(path, 2 << 20)
    assert path.stat().st_size == 2 << 20 and path.stat().st_blocks * 512 >= 2 << 20
    with pytest.raises(StorageError, match="give the disks less room"):
        disk.fill(tmp_path / "none" / "disk", 1 << 20)
