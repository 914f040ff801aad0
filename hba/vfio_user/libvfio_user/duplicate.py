"""Guest memory the library has mapped, mapped once more for us.

The library unmaps a range as soon as its callback has returned, whoever still reads or writes there, and a request in
flight does: its views keep pages only of a mapping of our own. mremap(2) makes one of the same pages: with an old size
of 0 it leaves the old mapping where it is. It takes the place of an anonymous mapping of Python's, which from then on
stands for it, and unmaps it when the last view has gone.
"""

from __future__ import annotations

import ctypes
import mmap
import os

_MAP_NORESERVE = 0x4000  # asm-generic/mman.h; the anonymous pages are never touched
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2  # linux/mman.h
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)


def duplicate(base: int, length: int) -> mmap.mmap:
    """`length` bytes of a shared mapping at the page `base`, a second time; written to only where the first one is.

    Raises OSError where the kernel does not (EINVAL: it is private), or there is no address space.
    """
    # In two steps: one that fails has unmapped the place it was to go to, and another thread may have taken that.
    copy = _mremap(base, 0, length, _MREMAP_MAYMOVE, None)
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    there = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _mremap(copy, length, length, _MREMAP_MAYMOVE | _MREMAP_FIXED, there)
    return memory


def _mremap(old: int, old_size: int, size: int, flags: int, new: int | None) -> int:
    result: int = _libc.mremap(old, old_size, size, flags, new)
    if result == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mremap: {os.strerror(number)}")
    return result


def reaches(memory: mmap.mmap, last: int) -> bool:
    """Whether byte `last` is there. Touching a mapped page beyond the end of its file kills the process, so the kernel
    is asked to: it says EFAULT."""
    near, far = os.pipe2(os.O_CLOEXEC)
    try:
        with memoryview(memory) as view:
            return os.write(far, view[last : last + 1]) == 1
    except OSError:
        return False
    finally:
        os.close(near)
        os.close(far)
