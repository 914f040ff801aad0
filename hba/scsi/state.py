"""What a unit must remember over a power loss: saved mode pages, reservations with APTPL.

One small JSON file per unit, replaced atomically and synced before the command that changed it ends; it is written in a
worker. Without a path nothing can be saved, and the unit says so: PS=0 in mode pages, PTPL_C=0 in REPORT CAPABILITIES.
The file is made at the start, locked while it is in use, and refused when it is not one of ours.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from hba.errors import StorageError
from hba.storage.backend import Done
from hba.storage.linux import lock_file
from hba.storage.workers import WorkerPool

MAX_SIZE = 1 << 20  # bytes; ours has some hundred
_MAGIC = "hba unit state"


_Number = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_Initiator = Annotated[str, msgspec.Meta(pattern=r"^\d{1,3}$")]
_Key = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
_Page = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{2}/[0-9a-f]{2}$")]
_Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){0,255}$")]


class _Reservations(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[_Initiator, _Key]
    holder: Annotated[int, msgspec.Meta(ge=0, le=255)] | None
    type: Literal[0, 1, 3, 5, 6, 7, 8]
    generation: _Number


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The file. `mode_pages`: "code/subcode" in hex -> the bytes after the page's header in hex."""

    format: str
    mode_pages: dict[_Page, _Hex] | None = None
    reservations: _Reservations | None = None


class SavedState:
    """Sections of JSON data by name ("mode_pages", "reservations")."""

    def __init__(self, path: Path | None, workers: WorkerPool | None = None) -> None:
        """Without `workers` the file is written where the call is made.

        Raises `StorageError` when the file cannot be read, made or locked, or is not ours.
        """
        self.path = path
        self._workers = workers
        self._sections: dict[str, Any] = {}
        self._lock = -1  # the file, open and locked
        self._waiting: deque[tuple[str, Any, Done]] = deque()
        self._busy = False
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            self._write(path, {})
            return
        except OSError as problem:
            raise StorageError(
                f"{path}: the unit's saved state cannot be opened: {problem.strerror}; choose another state_file",
                problem.errno or 0,
            ) from None
        try:
            self._claim(path, self._lock)
            with os.fdopen(os.dup(self._lock), "rb") as file:
                data = file.read(MAX_SIZE + 1)
            self._sections = _parsed(path, data)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _claim(path: Path, fd: int) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StorageError(f"{path} is not a regular file; choose another state_file", errno.EINVAL)
        try:
            lock_file(fd, exclusive=True)
        except BlockingIOError:
            raise StorageError(
                f"{path} is in use by another unit or process; give this unit a state_file of its own", errno.EBUSY
            ) from None

    @property
    def available(self) -> bool:
        return self.path is not None

    def get(self, section: str) -> Any:
        """What was saved under this name, or None."""
        return self._sections.get(section)

    def put(self, section: str, value: Any, done: Done) -> bool:
        """Save durably: True when that is done, False when `done` will be called. Raises `StorageError`."""
        path = self.path
        if path is None or self._sections.get(section) == value:
            return True
        if self._workers is None:
            sections = {**self._sections, section: value}
            self._write(path, sections)
            return True
        self._waiting.append((section, value, done))
        self._next()
        return False

    def _next(self) -> None:
        """One at a time: each is written with what the ones before it saved."""
        if self._busy or not self._waiting or self.path is None or self._workers is None:
            return
        self._busy = True
        section, value, done = self._waiting.popleft()
        sections = {**self._sections, section: value}
        self._workers.submit(partial(self._write, self.path, sections), partial(self._written, done))

    def _written(self, done: Done, error: StorageError | None) -> None:
        self._busy = False
        if error is not None and self.path is not None:
            error = StorageError(f"{self.path}: the unit's state cannot be saved: {error}", error.errno)
        done(error)
        self._next()

    def _write(self, path: Path, sections: dict[str, Any]) -> None:
        """May run in a worker; one at a time."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        fd = -1
        try:
            temporary.unlink(missing_ok=True)  # of a process that died with our number
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            data = msgspec.json.format(msgspec.json.encode({"format": _MAGIC, **_said(sections)}), indent=1) + b"\n"
            _write_all(fd, data)
            os.fsync(fd)
            lock_file(fd, exclusive=True)  # before anybody can find it
            temporary.replace(path)
        except OSError as problem:
            if fd >= 0:
                os.close(fd)
            temporary.unlink(missing_ok=True)
            raise StorageError(
                f"{path}: the unit's state cannot be saved: {problem.strerror}", problem.errno or 0
            ) from problem
        before, self._lock = self._lock, fd
        if before >= 0:
            os.close(before)
        self._sections = sections
        _sync_folder(path)

    def close(self) -> None:
        """Give the file up; what is being written is written."""
        if self._workers is not None and self._busy:
            self._workers.wait(lambda: not self._busy, 5.0)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    """The sections of a file's content. Raises `StorageError` when it is not ours."""
    try:
        if len(data) > MAX_SIZE:
            raise ValueError(f"it has more than {MAX_SIZE} bytes")
        file = msgspec.json.decode(data, type=_File)
        if file.format != _MAGIC:
            raise ValueError("it is of another kind")
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"{path} exists and is not a unit's saved state ({error}); choose another state_file, or delete it",
            errno.EINVAL,
        ) from None
    found = {"mode_pages": file.mode_pages}
    if file.reservations is not None:
        found["reservations"] = msgspec.structs.asdict(file.reservations)
    return {name: value for name, value in found.items() if value is not None}


def _said(sections: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sections.items() if value is not None}


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _sync_folder(path: Path) -> None:
    """The new name is durable, too."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # a folder that may be written but not read
    try:
        os.fsync(folder)
    except OSError as problem:
        raise StorageError(
            f"{path}: the unit's state cannot be saved: {problem.strerror}", problem.errno or 0
        ) from None
    finally:
        os.close(folder)
