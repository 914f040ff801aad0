"""A block device of this machine, watched for being pulled out and for changing its size.

Sources: linux/fs.h (BLK* ioctls), open(2) (O_EXCL on a block device: refused while it is mounted or otherwise in
use), fallocate(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import sysfs
from hba.storage.backend import Done
from hba.storage.descriptor import SECTOR, DescriptorBackend
from hba.storage.udev import DeviceWatch, let_go, watch_devices
from hba.storage.workers import WorkerPool

BLKROGET = 0x125E  # int: is it read-only?
BLKSSZGET = 0x1268  # int: logical sector size
BLKPBSZGET = 0x127B  # unsigned int: physical sector size
BLKGETSIZE64 = 0x80081272  # u64 bytes

_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM)
_INT = struct.Struct("i")
_U64 = struct.Struct("Q")


class HostBackend(DescriptorBackend):
    """The block device at `path`. `direct`: past this machine's page cache, the default for a device.

    Raises `StorageError`: no such device, in use (mounted), no permission, read-only.
    """

    kind = "host"

    def __init__(
        self, path: Path | str, loop: EventLoop, workers: WorkerPool, *, read_only: bool = False, direct: bool = True
    ) -> None:
        super().__init__(Path(path), loop, workers)
        self.read_only = read_only
        self.gone = False
        self._empty = False  # gone, because it has no medium: the device itself is still there
        self._away = False  # gone, and let go of: what comes to our path may be it
        self._written = 0  # writes and the like the device got, which it may keep in a volatile cache
        self._flushed = 0  # how many of them a flush has covered
        self._watch_udev: DeviceWatch | None = None
        fd = self._open(0)
        try:
            size = _size(fd)
            if not read_only and _integer(fd, BLKROGET):
                raise StorageError(f"{path} is a read-only device; set read_only = true", errno.EROFS)
            if size < SECTOR:
                raise StorageError(f"{path} has no medium (its size is {size} bytes)", errno.ENOMEDIUM)
            self.logical_block_size = _integer(fd, BLKSSZGET)
            self.physical_block_size = max(_integer(fd, BLKPBSZGET), self.logical_block_size)
            self.medium_block = self.physical_block_size
            self.erase_granule = self.logical_block_size  # fallocate on a block device wants whole sectors
            self._node = os.fstat(fd)
            self._identity = sysfs.identity(self._node)
            self.can_discard = not read_only and _discards(self._node.st_rdev)
            if direct:
                self._cached_fd, fd = fd, self._open(os.O_DIRECT)
        except OSError as problem:
            os.close(fd)
            raise StorageError(f"{path}: {problem.strerror}", problem.errno or 0) from None
        except StorageError:
            os.close(fd)
            raise
        self._start(fd, size, direct)
        self._watch_udev = watch_devices(loop, self._device_event)

    def _open(self, extra: int) -> int:
        path = self.path
        try:
            if not stat.S_ISBLK(path.stat().st_mode):
                raise StorageError(f'{path} is not a block device; use kind = "file" for a file', errno.ENOTBLK)
            # O_EXCL twice (the cached and the direct descriptor) would refuse ourselves; the first one holds it.
            exclusive = os.O_EXCL if not extra and not self.read_only else 0
            mode = os.O_RDONLY if self.read_only else os.O_RDWR
            return os.open(path, mode | exclusive | os.O_CLOEXEC | os.O_NONBLOCK | extra)
        except OSError as problem:
            code = problem.errno or 0
            advice = {
                errno.ENOENT: "there is no such device; `lsblk` lists those there are",
                errno.EBUSY: "it is in use: unmount it, and leave its RAID, LVM or swap",
                errno.EACCES: "no permission; add yourself to the group that owns it, or set its mode by a udev rule",
                errno.EPERM: "no permission; add yourself to the group that owns it, or set its mode by a udev rule",
                errno.EROFS: "it is read-only; set read_only = true",
                errno.ENXIO: "the device has gone, or has no medium",
                errno.ENOMEDIUM: "it has no medium; insert one",
            }.get(code, problem.strerror)
            raise StorageError(f"{path}: cannot open it: {advice}", code) from None

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        if self.gone:
            raise self._missing("read")
        return super().read(views, offset, done)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        if self.gone:
            raise self._missing("write")
        self._written += not fua
        return super().write(views, offset, done, fua)

    def _erase(self, what: str, work: Callable[[int, int], None] | None, offset: int, length: int, done: Done) -> bool:
        self._written += 1
        return super()._erase(what, work, offset, length, done)

    def flush(self, done: Done) -> bool:
        """After a return, the first one fails if the device had gone with something unflushed: nobody knows whether
        its cache survived."""
        if self.gone:
            raise self._missing("flush")
        if self._lost:
            self.errors += 1
            raise self._writes_lost()
        covered = self._written

        def flushed(error: StorageError | None) -> None:
            if self._lost:  # whatever became of the call: on a device that was let go of it fails with EBADF
                error = self._writes_lost()
            if error is None:
                self._flushed = max(self._flushed, covered)
            done(error)

        return super().flush(flushed)

    def _writes_lost(self) -> StorageError:
        """Said once: from then on whoever wrote knows."""
        self._lost = False
        return StorageError(
            f"{self.path}: the device went before it had flushed what it acknowledged; those writes may be lost",
            errno.EIO,
        )

    def _missing(self, what: str) -> StorageError:
        self.errors += 1
        return StorageError(f"{self.path}: cannot {what}: the device has gone", errno.ENODEV)

    # -- the device as this machine sees it -------------------------------------------------------------------

    def _measure(self) -> int:
        return _size(self._fd) // SECTOR * SECTOR

    def _checked(self, found: list[int], error: StorageError | None) -> None:
        if error is None and found[0] == 0 and not (self._closed or self._away):
            # Its medium was taken out, or it was let go (`losetup -d`): there is no disk of no size.
            found[0] = self.size
            self._empty = True
            self._set_gone()
        elif error is None and self._empty and not self._closed:
            self._empty = self.gone = False
            self._tell("back")
        if self.gone:
            found[:] = [self.size]
        super()._checked(found, error)

    def _watch(self) -> None:
        """Every few seconds: the kernel's news may not come here, and its news of a return comes before udev has made
        the device's other names and given it to its group."""
        super()._watch()
        if self.gone and not self._away and not sysfs.is_there(self._node):
            self._let_go()
        self._return()

    def _device_event(self, action: str, number: int) -> None:
        if self._closed:
            return
        ours = number == self._node.st_rdev and not self._away
        if ours and action == "remove":
            self._set_gone()
            self._let_go()
        elif ours and action == "change" and (self._empty or not self.gone):
            self.check_size()
        elif action in ("add", "change"):
            self._return()

    def _set_gone(self) -> None:
        if not self.gone:
            self.gone = True
            self._lost = self._lost or self._written > self._flushed
            self._flushed = self._written
            self._tell("gone")

    def _let_go(self) -> None:
        if not self._away and let_go(self._fd, self._cached_fd):
            self._away = True
            self._empty = False

    def _return(self) -> None:
        """Is the device that went at our path again, and usable? Then go on with it."""
        if not self._away or self._closed or not self._is_ours():
            return
        try:
            fresh = self._open(0)
        except StorageError:
            return
        opened = [fresh]
        try:
            node = os.fstat(fresh)
            size = _size(fresh) // SECTOR * SECTOR
            if size < SECTOR or sysfs.identity(node) != self._identity:
                return
            # dup2 puts the new device behind the old numbers, which calls in workers may still hold.
            if self._cached_fd >= 0:
                opened.append(self._open(os.O_DIRECT))
                os.dup2(fresh, self._cached_fd, inheritable=False)
            os.dup2(opened[-1], self._fd, inheritable=False)
        except (OSError, StorageError):
            return
        finally:
            for fd in opened:
                os.close(fd)
        self._node = node
        self.gone = self._empty = self._away = False
        self._changes += 1
        self._tell("back")
        if size != self.size:
            self.size = size
            self._tell("resized")

    def _is_ours(self) -> bool:
        """Is what has our name the device we had, with a medium? The guest's data has no place on another one.

        Without opening it for writing: when such a descriptor is closed udev has the kernel send news of a change, and
        on these we look again.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            same = sysfs.identity(os.fstat(fd)) == self._identity
            return same and _size(fd) >= SECTOR and _integer(fd, BLKSSZGET) == self.logical_block_size
        except OSError:
            return False
        finally:
            os.close(fd)

    def _vanished(self) -> bool:
        """A device that was pulled answers with EIO, as for a bad block; but it has no size any more."""
        try:
            return _size(self._fd) == 0
        except OSError:
            return True

    def _explain(self, error: StorageError, what: str, offset: int, length: int) -> StorageError:
        error = super()._explain(error, what, offset, length)
        if not self._closed and not self.gone and (error.errno in _GONE or self._vanished()):
            self._empty = error.errno == errno.ENOMEDIUM
            self._set_gone()
        if self.gone:
            self.errors -= 1  # counted above already
            return self._missing(what)
        return error

    def close(self) -> None:
        if self._watch_udev is not None:
            self._watch_udev.close()
            self._watch_udev = None
        if self.gone:
            self._stable = self._changes  # there is nothing to flush to any more, and everybody has been told
        super().close()

    def describe(self) -> dict[str, object]:
        state = {"state": "gone"} if self.gone and not self._closed else {}
        return super().describe() | state | {"watched": self._watch_udev is not None}


def _size(fd: int) -> int:
    (size,) = _U64.unpack(fcntl.ioctl(fd, BLKGETSIZE64, bytes(_U64.size)))
    return int(size)


def _integer(fd: int, request: int) -> int:
    (value,) = _INT.unpack(fcntl.ioctl(fd, request, bytes(_INT.size)))
    return int(value)


def _discards(number: int) -> bool:
    """Can the device zero a range by giving it up?"""
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for queue in (device / "queue", device / ".." / "queue"):  # a partition's is its disk's
        try:
            return all(int((queue / name).read_text()) > 0 for name in ("discard_max_bytes", "write_zeroes_max_bytes"))
        except (OSError, ValueError):
            continue
    return False
