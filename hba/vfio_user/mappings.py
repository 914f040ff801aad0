"""What is mapped in this process (proc(5), /proc/pid/maps)."""

from __future__ import annotations

from typing import NamedTuple


class MappedFile(NamedTuple):
    """As the list of mappings has it: `device` in hexadecimal, major:minor."""

    device: str
    inode: str
    path: str


def mapped_at(address: int) -> MappedFile | None:
    """The file behind an address of ours."""
    try:
        with open("/proc/self/maps", "rb") as file:  # noqa: PTH123 - for each map of a client's memory
            for line in file:
                # range, rwxp or rwxs, offset, device, inode, name
                fields = line.decode(errors="replace").split(None, 5)
                start, _, end = fields[0].partition("-")
                if int(start, 16) <= address < int(end, 16):
                    return MappedFile(fields[3], fields[4], fields[5].strip() if len(fields) > 5 else "")
    except OSError:
        pass  # no /proc here
    return None
