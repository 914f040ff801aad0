"""The guest's stage 0: a small cpio archive, written here, that finds the root file system and goes there.

It holds a static busybox, the modules needed before the root is mounted, and the scripts of `qemu/guest/`. It is
made anew for every start, so a change of those scripts needs no new image.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from hba.lab import paths
from hba.lab.kernel import Kernel

_GUEST_FILES = ("init", "agent.py", "poweroff")


def build(kernel: Kernel, busybox: Path) -> bytes:
    """The archive for `-initrd`."""
    scripts = paths.QEMU / "guest"
    entries: list[tuple[str, int, bytes]] = [
        *((folder, stat.S_IFDIR | 0o755, b"") for folder in ("bin", "dev", "proc", "sys", "lab", "modules", "new")),
        ("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        ("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        ("init", stat.S_IFREG | 0o755, (scripts / "stage0").read_bytes()),
        *((f"lab/{name}", stat.S_IFREG | 0o755, (scripts / name).read_bytes()) for name in _GUEST_FILES),
    ]
    for module in (kernel.boot_modules / "order").read_text().split():
        entries.append((f"modules/{module}", stat.S_IFREG | 0o644, (kernel.boot_modules / module).read_bytes()))
    entries.append(("modules/order", stat.S_IFREG | 0o644, (kernel.boot_modules / "order").read_bytes()))
    return b"".join(newc(entries))


def newc(entries: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    """A cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

    Each entry is (name, mode with file type, content); a link's content is its target.
    """
    for number, (name, mode, content) in enumerate(entries, start=1):
        yield from _member(name, number, mode, content)
    yield from _member("TRAILER!!!", 0, 0, b"")


def _member(name: str, inode: int, mode: int, content: bytes) -> Iterator[bytes]:
    raw_name = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(raw_name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    yield header + raw_name + b"\0" * (-(len(header) + len(raw_name)) % 4)
    yield content + b"\0" * (-len(content) % 4)
