"""The few Linux calls for storage that Python's `os` does not have: fallocate, the type of a file system, OFD locks.

Sources: fallocate(2), statfs(2), fcntl(2) "Open file description locks", linux/magic.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10

TMPFS_MAGIC = 0x01021994
RAMFS_MAGIC = 0x858458F6
EXT4_MAGIC = 0xEF53  # ext2 and ext3, too

_FLOCK = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises `OSError`; the file system may know none of it (EOPNOTSUPP)."""
    while _libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def punch_hole(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)


def file_system(fd: int) -> int:
    """The magic number of the file system `fd` is on (f_type of statfs(2)); 0 when it does not say."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs: f_type is its first word
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[:4], "little")


def lives_in_memory(fd: int) -> bool:
    """The file is on tmpfs or ramfs: no call on it waits for a device, none of it outlives the machine."""
    return file_system(fd) in (TMPFS_MAGIC, RAMFS_MAGIC)


def writes_to_page_cache(fd: int) -> bool:
    """A buffered write is a copy into memory of this machine (no server, no other process has to answer it), but the
    file system has no RWF_NOWAIT to say so for a single write. Others have it (XFS, Btrfs) or are no such thing
    (network file systems, FUSE)."""
    return file_system(fd) == EXT4_MAGIC


def lock_file(fd: int, exclusive: bool) -> bool:
    """Lock the whole file for as long as `fd` is open. False when the file system has no locks.

    An open-file-description lock: QEMU's image locks are of this kind, so each sees the other's.
    Raises `BlockingIOError` when someone else holds it.
    """
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as problem:
        if problem.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(errno.EAGAIN, "locked by another process") from None
        return False
    return True
