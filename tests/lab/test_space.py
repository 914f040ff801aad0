"""A full disk is told as one."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from hba.errors import EXIT_STORAGE, GuestError, StorageError
from hba.lab import process
from hba.lab.cache import Cache
from hba.lab.process import CommandFailed
from hba.lab.progress import Progress, Step
from hba.lab.space import full_disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_ours(tmp_path: Path, code: int) -> None:
    full = full_disk(OSError(code, "text", "/some/file"), tmp_path)
    assert full is not None and full.exit_code == EXIT_STORAGE
    assert "(/some/file)" in str(full) and f"{tmp_path} has " in str(full) and "HBA_CACHE" in str(full)
    assert "HBA_CACHE" not in str(full_disk(OSError(code, "text")))


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert full_disk(OSError(errno.EIO, "text"), tmp_path) is None
    assert full_disk(GuestError("in the guest: No space left on device"), tmp_path) is None
    assert full_disk(CommandFailed("tar ended with exit code 2"), tmp_path) is None


def test_of_a_tool_while_an_entry_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real tool on a real full device, in whatever language the user has."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")

    def build(folder: Path, _step: Step) -> None:
        process.run(["dd", "if=/dev/zero", "of=/dev/full", "count=1"])

    cache = Cache(Progress(io.StringIO()), tmp_path)
    with pytest.raises(StorageError, match="a disk is full: ") as caught:
        cache.entry("a", "making a", build)
    assert isinstance(caught.value.__cause__, CommandFailed)
    assert not cache.path("a").exists()
