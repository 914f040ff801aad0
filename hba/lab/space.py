"""A full disk, said as such: which folders of ours are on it, and where else they can be."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hba.errors import StorageError
from hba.lab.process import CommandFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)
MIB = 1 << 20


def full_disk(error: BaseException, cache: Path | None = None) -> StorageError | None:
    """The error to show when `error` comes from a full disk, ours or a tool's; None when it does not.

    `cache`: the folder of the lab's cache, if it is in use.
    """
    if isinstance(error, OSError):
        full, what = error.errno in _FULL, error.filename
    else:
        # What a tool printed: none of them has an exit code for it.
        full, what = isinstance(error, CommandFailed) and os.strerror(errno.ENOSPC) in str(error), None
    if not full:
        return None
    where = f" ({what})" if what else ""
    temporary = Path(tempfile.gettempdir())
    rooms = f"{temporary} has {_free(temporary)} MiB free"
    others = "another folder for disks and logs with TMPDIR"
    if cache is not None:
        rooms += f", {cache} has {_free(cache)} MiB free"
        others += ", one for QEMU, guest image and kernel (1 GiB, twice that while they are made) with HBA_CACHE"
    return StorageError(f"a disk is full{where}: {rooms}; make room, or name {others}", errno.ENOSPC)


def _free(folder: Path) -> str:
    try:
        return str(shutil.disk_usage(folder).free // MIB)
    except OSError:
        return "?"
