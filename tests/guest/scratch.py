"""Where the disks of guests lie while a test runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes; the largest suite has two disks of 640 MiB


def scratch(prefix: str) -> Path:
    """A new folder, for the caller to remove. Its path is short, as those of sockets must be; pytest's are long.

    In memory where there is enough of it: then a machine whose disk is full, if only for a moment and by somebody
    else's doing, fails no guest.
    """
    base = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))
