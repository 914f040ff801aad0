"""Zeroing or giving up the whole medium in pieces, for FORMAT UNIT and SANITIZE."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hba.storage.backend import Done

if TYPE_CHECKING:
    from hba.scsi.disk.background import Background
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

PIECE = 64 << 20  # bytes: freeing as much memory as this takes some milliseconds


def pieces(unit: Disk, erase: Callable[[int, int, Done], bool], offset: int, length: int) -> Steps:
    """`erase` a range of the store piece by piece, with a turn of the event loop in between."""
    end = offset + length
    while offset < end:
        count = min(PIECE, end - offset)
        yield partial(erase, offset, count)
        offset += count
        if offset < end:
            yield None


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
