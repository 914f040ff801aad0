"""A raw file: byte n of the store is byte n of the file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import linux
from hba.storage.descriptor import SECTOR, DescriptorBackend
from hba.storage.extents import Extents
from hba.storage.workers import WorkerPool


class FileBackend(DescriptorBackend):
    """The raw file at `path`.

    `size`           bytes. With `create` a missing file is made this large (sparse); an existing one must have it.
    `create`         make the file when it is missing; needs `size`.
    `direct`         O_DIRECT: past the page cache, every transfer in a worker. Guest pages are aligned; what is not
                     goes through the page cache.
    `inline_writes`  whether to write in the event loop where the file system cannot promise not to wait (ext4):
                     "auto" while nothing speaks for a wait (see `hba.storage.inline`), "never", or "always", which
                     lets a writer that the kernel throttles hold up the guest's register accesses too.
    `unnamed`        the caller deletes the file while it is open: that is no news.
    Raises `StorageError` that says why the file cannot be used and what to do.
    """

    kind = "file"

    def __init__(
        self,
        path: Path | str,
        loop: EventLoop,
        workers: WorkerPool,
        *,
        size: int | None = None,
        read_only: bool = False,
        create: bool = False,
        direct: bool = False,
        inline_writes: str = "auto",
        unnamed: bool = False,
    ) -> None:
        super().__init__(Path(path), loop, workers)
        self.read_only = read_only
        self.deleted = False  # by others, while we have it open
        self._links = 1
        self._unnamed = unnamed
        self._extents = Extents()
        self._looked = 0  # st_mtime_ns when they were asked
        # O_NONBLOCK: opening a FIFO by mistake must not wait for its other end. It means nothing to a regular file.
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if read_only else os.O_RDWR)
        fd, made = self._open(flags, create and not read_only, size)
        try:
            self.locked = self._lock(fd)
            if made and size is not None:
                os.ftruncate(fd, size)
            information = self._check(fd, size)
            if direct:
                self._cached_fd, fd = fd, self._open_direct(flags)
        except BaseException as problem:
            for open_fd in (fd, self._cached_fd):
                if open_fd >= 0:
                    os.close(open_fd)
            if made:
                self.path.unlink(missing_ok=True)
            if isinstance(problem, OSError):
                raise StorageError(f"{self.path}: {problem.strerror}", problem.errno or 0) from None
            raise
        self.physical_block_size = 4096 if information.st_blksize >= 4096 else SECTOR
        self._at_once = linux.lives_in_memory(fd) and not direct
        self.can_discard = not read_only and _punches_holes(fd, information.st_size)
        if inline_writes == "auto" and not linux.writes_to_page_cache(fd):
            inline_writes = "never"
        self._start(fd, information.st_size, direct, inline_writes)

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self, flags: int, create: bool, size: int | None) -> tuple[int, bool]:
        """Returns the descriptor and whether the file was made just now."""
        path = self.path
        if size is not None and (size <= 0 or size % SECTOR):
            raise StorageError(f"{path}: size {size} is not a positive multiple of {SECTOR}", errno.EINVAL)
        try:
            return os.open(path, flags), False
        except FileNotFoundError:
            if not create or size is None:
                raise StorageError(
                    f"{path} does not exist; name an existing file, or give create = true and a size", errno.ENOENT
                ) from None
        except IsADirectoryError:
            raise StorageError(f"{path} is a directory; name a file in it", errno.EISDIR) from None
        except OSError as problem:
            raise self._refused(problem) from None
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileNotFoundError:
            raise StorageError(f"{path.parent} does not exist; create that directory first", errno.ENOENT) from None
        except OSError as problem:
            raise self._refused(problem) from None

    def _refused(self, problem: OSError) -> StorageError:
        code = problem.errno or 0
        mode = "reading" if self.read_only else "reading and writing"
        advice = {
            errno.EACCES: f"no permission for {mode}; change its mode or owner"
            + ("" if self.read_only else ", or set read_only = true"),
            errno.EROFS: "its file system is read-only; set read_only = true",
            errno.ETXTBSY: "it is a program that is running",
        }.get(code, problem.strerror)
        return StorageError(f"{self.path}: cannot open it: {advice}", code)

    def _lock(self, fd: int) -> bool:
        try:
            return linux.lock_file(fd, exclusive=not self.read_only)
        except BlockingIOError:
            raise StorageError(
                f"{self.path} is in use by another process (an adapter, or QEMU); stop that one, "
                "give this one its own file, or open both with read_only = true",
                errno.EBUSY,
            ) from None

    def _check(self, fd: int, size: int | None) -> os.stat_result:
        information = os.fstat(fd)
        path = self.path
        if stat.S_ISDIR(information.st_mode):
            raise StorageError(f"{path} is a directory; name a file in it", errno.EISDIR)
        if stat.S_ISBLK(information.st_mode):
            raise StorageError(f'{path} is a block device; use kind = "host" for it', errno.EINVAL)
        if not stat.S_ISREG(information.st_mode):
            raise StorageError(f"{path} is not a regular file", errno.EINVAL)
        actual = information.st_size
        if actual == 0 or actual % SECTOR:
            raise StorageError(
                f"{path} has {actual} bytes, not a positive multiple of {SECTOR}; "
                f"`truncate -s {max(SECTOR, -(-actual // SECTOR) * SECTOR)} {path}` makes it one",
                errno.EINVAL,
            )
        if size is not None and actual != size:
            raise StorageError(
                f"{path} has {actual} bytes, the configuration says {size}; leave size out, or correct one of them",
                errno.EINVAL,
            )
        return information

    def _open_direct(self, flags: int) -> int:
        try:
            return os.open(self.path, flags | os.O_DIRECT)
        except OSError as problem:
            if problem.errno == errno.EINVAL:
                raise StorageError(
                    f"{self.path}: its file system has no direct I/O; set direct = false", errno.EINVAL
                ) from None
            raise

    # -- the file's own ways ----------------------------------------------------------------------------------

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        """As the file system says; asked anew when the file has changed, whoever changed it."""
        changed = os.fstat(self._fd).st_mtime_ns
        if changed != self._looked:
            self._looked = changed
            self._extents.forget()
        return self._extents.look(self._fd, offset, length)

    def _zero_blocking(self, offset: int, length: int) -> None:
        """What is not there reads as zeros already, and need not take space to go on doing so."""
        end = offset + length
        extents = Extents()  # this is another thread
        while offset < end:
            present, count = extents.look(self._fd, offset, end - offset)
            if present:
                super()._zero_blocking(offset, count)
            offset += count

    def _measure(self) -> int:
        information = os.fstat(self._fd)
        self._links = information.st_nlink
        return information.st_size // SECTOR * SECTOR

    def _checked(self, found: list[int], error: StorageError | None) -> None:
        super()._checked(found, error)
        if self._links == 0 and not (self.deleted or self._unnamed or self._closed):
            # It works until it is closed, and then it is lost: no error for the guest, but somebody must be told.
            self.deleted = True
            self._tell(f"error: {self.path} was deleted; its content is lost when the unit is removed or we end")

    def resize(self, size: int) -> None:
        if size <= 0 or size % SECTOR:
            raise StorageError(f"{self.path}: size {size} is not a positive multiple of {SECTOR}", errno.EINVAL)
        if self.read_only:
            raise StorageError(f"{self.path} is open read-only", errno.EROFS)
        try:
            os.ftruncate(self._fd, size)
        except OSError as problem:
            raise StorageError(
                f"{self.path}: cannot make it {size} bytes: {problem.strerror}", problem.errno or 0
            ) from None
        self._changes += 1
        self.size = size

    def describe(self) -> dict[str, object]:
        state = {"state": "deleted"} if self.deleted and not self._closed else {}
        return super().describe() | state | {"locked": self.locked}


def _punches_holes(fd: int, size: int) -> bool:
    """Ask by punching where the file has ended already: nothing changes."""
    try:
        linux.punch_hole(fd, -(-size // 65536) * 65536, 65536)
    except OSError:
        return False
    return True
