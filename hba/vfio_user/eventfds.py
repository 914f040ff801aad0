"""Eventfds a client has sent, or what it says are eventfds."""

from __future__ import annotations

from pathlib import Path


def is_eventfd(fd: int) -> bool:
    """Whether `fd` is an eventfd: writing to anything else the client may have passed could block or do harm."""
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink()) == "anon_inode:[eventfd]"
    except OSError:
        return False
