"""What the kernel's sysfs says of the device behind a device node: who it is, whether it is still there, what it takes.

Sources: Linux Documentation/ABI/stable/sysfs-block, drivers/scsi/scsi_sysfs.c (wwid, state). A partition has what its
disk has. Where there is no sysfs, nothing is known.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

# A SCSI device's, an NVMe namespace's, a virtio disk's own name; the same below the disk of a partition.
_NAMES = ("device/wwid", "wwid", "serial", "device/serial")
_LEAVING = ("cancel", "deleted")  # states of a SCSI device that the kernel removes
_SCSI_ADDRESS = re.compile(r"\d+:\d+:\d+:\d+")  # names the folder of a SCSI device, which has a state
_PAGE = 4096


class Limits(NamedTuple):
    """Of commands passed through: bytes in one transfer, and in a logical block. 0: not known."""

    transfer: int
    block: int


def folder(node: os.stat_result) -> Path:
    """The device's folder, whether or not it is there."""
    kind = "block" if stat.S_ISBLK(node.st_mode) else "char"
    return Path(f"/sys/dev/{kind}/{os.major(node.st_rdev)}:{os.minor(node.st_rdev)}")


def identity(node: os.stat_result) -> str:
    """What tells the device from any other, the same wherever and whenever it is plugged in; empty when not known."""
    for above in ("", ".."):
        for name in _NAMES:
            if said := _read(folder(node) / above / name):
                return said
    return ""


def is_there(node: os.stat_result) -> bool:
    """Whether the kernel still has the device and is not about to remove it."""
    where = folder(node)
    leaving = any(_is_leaving(where / above / "device") for above in ("", ".."))
    return not leaving and where.exists()  # in this order: it may be removed at this moment


def _is_leaving(device: Path) -> bool:
    """Whether a SCSI device is one that the kernel removes: from its state to its driver to its nodes (device_del).

    When the state cannot be read any more the nodes may still be there, and errors of I/O look like the medium's.
    """
    state = _read(device / "state")
    if state:
        return state in _LEAVING
    return _SCSI_ADDRESS.fullmatch(device.resolve().name) is not None


def device_type(node: os.stat_result) -> int | None:
    """Peripheral device type of a SCSI device (SPC-4), None of any other."""
    said = _read(folder(node) / "device" / "type")
    return int(said) if said.isdecimal() else None


def limits(node: os.stat_result) -> Limits:
    """How much data one SG_IO can carry: the queue's limit, and its segments full of single pages."""
    for queue in (folder(node) / "queue", *folder(node).glob("device/block/*/queue")):
        try:
            most, segments, block = (
                int((queue / name).read_text()) for name in ("max_hw_sectors_kb", "max_segments", "logical_block_size")
            )
        except (OSError, ValueError):
            continue
        # Our buffer need not begin with a page.
        return Limits(min(most * 1024, max(1, segments - 1) * _PAGE), block)
    return Limits(0, 0)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
