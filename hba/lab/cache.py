"""Things that take long to make and are made once: each entry appears whole or not at all.

The cache is a folder of the user's, `$HBA_CACHE`, else `$XDG_CACHE_HOME/hba`, else `~/.cache/hba`. An entry's
name carries a hash of everything it was made from, so a changed recipe makes a new entry and never reuses an old one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hba.errors import HbaError, PermissionDenied
from hba.lab.progress import Progress, Step
from hba.lab.space import full_disk
from hba.places import cache_root


def key_of(*parts: str | bytes) -> str:
    """Twelve hex digits that change when any part changes."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:12]


class Cache:
    """A folder of finished entries, safe for several processes at once."""

    def __init__(self, progress: Progress, root: Path | None = None) -> None:
        self.progress = progress
        self.root = root or cache_root()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermissionDenied(
                f"the cache folder {self.root} cannot be made ({error.strerror}); set HBA_CACHE to one that can"
            ) from error

    def path(self, name: str) -> Path:
        """Where the entry `name` is, or would be."""
        return self.root / name

    def entry(self, name: str, title: str, build: Callable[[Path, Step], None]) -> Path:
        """The path of entry `name`, made by `build(empty folder, step)` when it does not exist.

        The folder is built aside and renamed when complete. A second process that wants the same entry waits
        for the first; what an interrupted build left is removed by the next one. A full disk is a `StorageError`.
        """
        final = self.path(name)
        if final.exists():
            return final
        lock = os.open(self.root / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(lock, title)
            if final.exists():
                return final
            aside = self.root / f".{name}.building"
            _remove(aside)
            aside.mkdir()
            try:
                with self.progress.step(title) as step:
                    build(aside, step)
                aside.rename(final)
            except (HbaError, OSError) as error:
                if (full := full_disk(error, self.root)) is not None:
                    raise full from error
                raise
            finally:
                _remove(aside)
            return final
        finally:
            os.close(lock)

    def _take(self, lock: int, title: str) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self.progress.step(f"{title}: waiting for another process that is making it"):
                fcntl.flock(lock, fcntl.LOCK_EX)


def _remove(folder: Path) -> None:
    """Remove a tree, with folders in it that carry no write permission."""

    def make_writable_and_retry(function: Callable[[str], object], path: str, _why: object) -> None:
        Path(path).parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
        function(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=make_writable_and_retry)
