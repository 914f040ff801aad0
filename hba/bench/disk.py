"""The disks of a benchmark: files in memory where there is such a place, so that it measures us and not a disk.

Whoever sets TMPDIR has said where temporary files go, and has them there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hba.errors import StorageError

MEMORY = Path("/dev/shm")
RESERVE = 64 << 20  # bytes of it left to others


def make_folder(size: int) -> Path:
    """A new folder for `size` bytes of disks: in memory if there is room, else among the temporary files."""
    in_memory = "TMPDIR" not in os.environ and _has_room(size)
    return Path(tempfile.mkdtemp(prefix="hba-bench-", dir=MEMORY if in_memory else None))


def _has_room(size: int) -> bool:
    try:
        place = os.statvfs(MEMORY)
    except OSError:
        return False
    return os.access(MEMORY, os.W_OK) and place.f_bavail * place.f_frsize >= size + RESERVE


def fill(path: Path, size: int) -> None:
    """Real blocks, so that reads do not find holes. Raises `StorageError` when there is no room."""
    chunk = os.urandom(1 << 20)
    try:
        with path.open("wb") as file:
            for _ in range(size >> 20):
                file.write(chunk)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; give the disks less room (--size)", error.errno or 0) from error
