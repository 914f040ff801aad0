"""Where a disk's protection information is kept: eight bytes beside every block, in a store of their own.

They lie there inverted, so that what was never written is all FFh (APPLICATION TAG FFFFh: not checked), and a block
that is unmapped or zeroed gives its place up. In memory, or in a file of our own format: a header, then the bytes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.backend import Backend, Done
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool

SIZE = 8  # bytes of protection information
NOTHING = b"\xff" * SIZE

_MAGIC = b"hba T10 protection information\0\0"
_HEADER = struct.Struct("<32sIIB")  # magic, version, bytes in a block, whether the disk is formatted with it
_VERSION = 1
_START = 4096  # where the information begins
_SECTOR = 512
_INVERTED = bytes(byte ^ 0xFF for byte in range(256))


class Tags:
    """The protection information of `blocks` blocks, in `store` from byte `start` on. Owns the store."""

    def __init__(self, store: Backend, block_size: int, *, start: int = 0, enabled: bool = True) -> None:
        self.store = store
        self.enabled = enabled  # FORMAT UNIT may switch it off
        self._block_size = block_size
        self._start = start

    def read(self, lba: int, count: int, into: bytearray, done: Done) -> bool:
        """The information of some blocks into the first bytes of `into`."""
        view = memoryview(into)[: count * SIZE]

        def inverted(error: StorageError | None) -> None:
            if error is None:
                view[:] = bytes(view).translate(_INVERTED)
            done(error)

        if not self.store.read([view], self._start + lba * SIZE, inverted):
            return False
        view[:] = bytes(view).translate(_INVERTED)
        return True

    def write(self, lba: int, information: bytes, done: Done, fua: bool = False) -> bool:
        return self.store.write([memoryview(information.translate(_INVERTED))], self._start + lba * SIZE, done, fua=fua)

    def forget(self, lba: int, count: int, done: Done) -> bool:
        return self.store.discard(self._start + lba * SIZE, count * SIZE, done)

    def enable(self, enabled: bool, done: Done) -> bool:
        """Whether the disk is formatted with protection information from now on."""
        self.enabled = enabled
        if not self._start:
            return True
        return self.store.write([memoryview(_header(self._block_size, enabled))], 0, done, fua=True)

    def resize(self, blocks: int) -> None:
        """Raises `StorageError`."""
        self.store.resize(_bytes_for(blocks, self._start))

    def close(self) -> None:
        self.store.close()


OpenTags = Callable[[int, int], Tags]  # (blocks, bytes in a block)


def _bytes_for(blocks: int, start: int) -> int:
    return start + -(-max(1, blocks) * SIZE // _SECTOR) * _SECTOR


def _header(block_size: int, enabled: bool) -> bytes:
    return _HEADER.pack(_MAGIC, _VERSION, block_size, enabled).ljust(_SECTOR, b"\0")


def in_memory(blocks: int, block_size: int) -> Tags:
    """Gone at the end."""
    return Tags(MemoryBackend(_bytes_for(blocks, 0)), block_size)


def in_file(path: Path, loop: EventLoop, workers: WorkerPool, blocks: int, block_size: int) -> Tags:
    """In the file `path`, which is made when it is missing and must be one of ours when it is not.

    It is locked while it is open. Raises `StorageError`.
    """
    made = _make(path, block_size)
    try:
        store = FileBackend(path, loop, workers)
    except StorageError:
        if made:
            path.unlink(missing_ok=True)
        raise
    try:
        enabled = _check(path, block_size)
        size = _bytes_for(blocks, _START)
        if store.size != size:
            store.resize(size)
        return Tags(store, block_size, start=_START, enabled=enabled)
    except BaseException:
        store.close()
        raise


def _make(path: Path, block_size: int) -> bool:
    """Make the file unless there is one; whether it was made."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as problem:
        raise StorageError(
            f"{path}: the protection information cannot be kept there: {problem.strerror}", problem.errno or 0
        ) from None
    try:
        os.write(file, _header(block_size, True).ljust(_START, b"\0"))
        return True
    except OSError as problem:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: the protection information cannot be kept there: {problem.strerror}", problem.errno or 0
        ) from None
    finally:
        os.close(file)


def _check(path: Path, block_size: int) -> bool:
    """Whether the disk is formatted with protection information, from the header. Raises `StorageError`."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise StorageError(
            f"{path} exists and is not protection information of ours: name another protection_file, or delete it",
            errno.EINVAL,
        )
    _, version, size, enabled = _HEADER.unpack(header)
    if version != _VERSION:
        raise StorageError(f"{path} is protection information of another version ({version})", errno.EINVAL)
    if size != block_size:
        raise StorageError(
            f"{path} is protection information of a disk with blocks of {size} bytes, this one has {block_size}",
            errno.EINVAL,
        )
    return bool(enabled)
