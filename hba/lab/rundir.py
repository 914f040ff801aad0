"""The private folder of one experiment: sockets, logs and disks, removed as one when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from hba.errors import PermissionDenied

_PREFIX = "hba-lab-"
_LOCK = ".in-use"
_KEPT = ".kept"
# A UNIX socket's path has room for 107 bytes (unix(7)); ours are the folder plus a short name.
_LONGEST = 107 - len("/adapter-00.sock")


class RunDir:
    """A new folder, mode 0700, below the system's temporary one."""

    def __init__(self, base: Path | None = None) -> None:
        base = base or Path(tempfile.gettempdir())
        if len(os.fsencode(base)) + len(_PREFIX) + 9 > _LONGEST:
            base = Path("/tmp")
        _sweep(base)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        except OSError as error:
            raise PermissionDenied(f"no folder can be made in {base} ({error.strerror}); set TMPDIR") from error
        # Held while we live: a folder whose lock is free was left by somebody who was killed.
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def keep(self) -> None:
        """Leave the folder there when it is closed, and let no later experiment remove it."""
        (self.path / _KEPT).touch()

    def close(self) -> None:
        """Remove the folder, unless it is to be kept."""
        if not (self.path / _KEPT).exists():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(base: Path) -> None:
    """Remove the folders of experiments that were killed before they could."""
    for folder in base.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or (folder / _KEPT).exists():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
