"""Zeroing or giving up the whole medium in pieces, for FORMAT UNIT and SANITIZE."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hba.scsi.disk.background import Background
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

PIECE = 256 << 20  # bytes


def zeroing(unit: Disk, discard: bool, background: Background) -> Steps:
    """All blocks read as zeros afterwards; `discard` gives the space up, too."""
    store = unit.store()
    total = unit.blocks * unit.block_size
    position = 0
    while position < total:
        length = min(PIECE, total - position)
        yield partial(store.discard if discard else store.zero, position, length)
        position += length
        background.progress = position * 0xFFFF // total
        yield None
