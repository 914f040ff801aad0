"""Whether a client shares the memory whose descriptor it sends, or only seems to.

With a private mapping of the file (QEMU's `share=off`) what the guest writes stays in pages of the client's own, and
the file keeps what it had: zeros. The descriptor does not tell; the client's list of mappings does (proc(5),
/proc/pid/maps).
"""

from __future__ import annotations

import os
from pathlib import Path

from hba.vfio_user.mappings import mapped_at

_MOST = 1 << 20  # bytes of the list that are read; the memory of a machine stands in the first hundred lines
_FILES = 64  # that are looked up for one client; a machine has a few


class Sharing:
    """What one client, process `pid`, shares. Where it cannot be told (another user's process, no mapping found), it is
    taken at its word."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[tuple[str, str], bool] = {}

    def is_private(self, fd: int) -> bool:
        """Whether the client has mappings of the file, and all of them are private."""
        status = os.fstat(fd)
        return self._is_private(f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", str(status.st_ino))

    def is_private_at(self, address: int) -> bool:
        """The same of the file that is mapped at an address of ours."""
        file = mapped_at(address)
        return file is not None and self._is_private(file.device, file.inode)

    def _is_private(self, device: str, inode: str) -> bool:
        key = device, inode
        known = self._known.get(key)
        if known is None:
            if not self._pid or len(self._known) >= _FILES:
                return False
            known = self._known[key] = self._look(device, inode)
        return known

    def _look(self, device: str, inode: str) -> bool:
        try:
            with Path(f"/proc/{self._pid}/maps").open("rb") as file:
                text = file.read(_MOST)
        except OSError:
            return False
        kinds = set()
        for line in text.decode(errors="replace").splitlines():
            fields = line.split(None, 5)  # range, rwxp or rwxs, offset, device, inode, name
            if len(fields) >= 5 and fields[3] == device and fields[4] == inode:
                kinds.add(fields[1][3:])
        return kinds == {"p"}
