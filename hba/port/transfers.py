"""Transfers the adapter cannot do in one piece: split above the miniport, as the class driver does.

CF-05 (MaximumTransferLength), CF-06 and MB-14 (NumberOfPhysicalBreaks: breaks between elements under SCSI Port,
physical pages under Storport) and CF-07 (AlignmentMask). Reads and writes are cut into several, one after the other;
a buffer that misses the alignment goes through an aligned copy. What can be neither (a parameter list above the
limit) is refused with INVALID_REQUEST, so no SRB above the limits ever reaches a miniport.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hba.dma import DmaBuffer, Segment
from hba.miniport.bounce import bounce_buffer
from hba.miniport.config import SP_UNINITIALIZED, PortConfigurationInformation
from hba.port.config import PortConfig
from hba.port.request import Request
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
    Srb,
)

NO_LIMIT: Final = SP_UNINITIALIZED
PAGE_SIZE: Final = 4096

# opcode: (offset and bytes of the LBA, offset and bytes of the transfer length), SBC
_READ_WRITE = {
    0x08: (1, 3, 4, 1),
    0x0A: (1, 3, 4, 1),
    0x28: (2, 4, 7, 2),
    0x2A: (2, 4, 7, 2),
    0xA8: (2, 4, 6, 4),
    0xAA: (2, 4, 6, 4),
    0x88: (2, 8, 10, 4),
    0x8A: (2, 8, 10, 4),
}
# READ(6) and WRITE(6): the upper bits of these bytes are no part of the LBA.
SHORT_LBA: Final = 3
SHORT_BLOCKS: Final = 1 << 21


def _pages(segment: Segment) -> int:
    """Physical pages an element has bytes in."""
    address, length = segment
    return (address % PAGE_SIZE + length + PAGE_SIZE - 1) // PAGE_SIZE


class TransferLimits:
    """What one SRB may carry. Defaults: anything.

    `max_pages`  physical pages, those of each element for itself: never fewer than there are elements
    """

    def __init__(
        self,
        max_length: int = NO_LIMIT,
        max_segments: int = NO_LIMIT,
        alignment_mask: int = 0,
        bounce: bool = True,
        max_pages: int = NO_LIMIT,
    ) -> None:
        self.max_length = max_length
        self.max_segments = max_segments
        self.max_pages = max_pages
        self.alignment_mask = alignment_mask
        # Up to here nothing has to be looked at: half of the pages for the bytes, and each element can have two more.
        self.sure_length = -1 if alignment_mask else min(max_length, max_pages // 2 * PAGE_SIZE)
        self.sure_segments = min(max_segments, max_pages // 4)
        self.bounce = bounce

    @classmethod
    def of(cls, info: PortConfigurationInformation, options: PortConfig) -> TransferLimits:
        breaks = info.number_of_physical_breaks
        segments = pages = NO_LIMIT
        if breaks != SP_UNINITIALIZED:
            counted = getattr(options, "physical_breaks", "breaks")  # MB-14; SCSI Port has no choice (CF-06)
            if counted == "pages":
                pages = max(1, breaks)
            else:
                segments = breaks + 1 if counted == "breaks" else max(1, breaks)
        bounce = options.misaligned == "bounce"
        return cls(info.maximum_transfer_length, segments, info.alignment_mask, bounce, pages)

    def fits(self, data: DmaBuffer) -> bool:
        if data.length > self.max_length or len(data.segments) > self.max_segments:
            return False
        return self.max_pages == NO_LIMIT or sum(map(_pages, data.segments)) <= self.max_pages

    def room(self, segments: list[Segment], pages: int, address: int) -> int:
        """Bytes an element at `address` may have behind `segments`, which have `pages` pages."""
        if len(segments) >= self.max_segments or pages >= self.max_pages:
            return 0
        return (self.max_pages - pages) * PAGE_SIZE - address % PAGE_SIZE

    def aligned(self, data: DmaBuffer) -> bool:
        mask = self.alignment_mask
        return not mask or not any(address & mask for address, _ in data.segments)


def shape(limits: TransferLimits, request: Request) -> Train | None:
    """How a request above the limits is carried. None: it is fine as it is."""
    data = request.srb.mdl
    assert data is not None
    aligned = limits.aligned(data)
    if aligned and limits.fits(data):
        return None
    if not aligned:
        if not limits.bounce or (data.length > limits.max_length and not _blocks(request.srb)):
            return Train("misaligned transfers refused", request, data, None, limits, refused=True)
        copy = bounce_buffer(data.length)
        if request.srb.srb_flags & SRB_FLAGS_DATA_OUT:
            copy.write(data.read())
        return Train("misaligned transfers copied", request, copy, data, limits)
    if not _blocks(request.srb):
        return Train("transfers above the limit refused", request, data, None, limits, refused=True)
    return Train("transfers split", request, data, None, limits)


def _blocks(srb: Srb) -> int:
    """Blocks a read or write transfers; 0: it is none, its length does not fit its data, or it goes beyond the last
    block that such a command can name (its parts could not)."""
    cdb = srb.cdb
    fields = _READ_WRITE.get(cdb[0]) if cdb else None
    if fields is None:
        return 0
    lba_at, lba_size, count_at, count_size = fields
    if len(cdb) < count_at + count_size:
        return 0
    count = int.from_bytes(cdb[count_at : count_at + count_size], "big")
    lba = int.from_bytes(cdb[lba_at : lba_at + lba_size], "big")
    last = 1 << 8 * lba_size
    if lba_size == SHORT_LBA:
        lba %= SHORT_BLOCKS
        last = SHORT_BLOCKS
        count = count or 256
    if not count or srb.data_transfer_length % count or lba + count > last:
        return 0
    return count


def _cdb_of(cdb: bytes, block: int, count: int) -> bytes:
    """The same command for `count` blocks, `block` blocks further on: of one that `_blocks` has looked at."""
    lba_at, lba_size, count_at, count_size = _READ_WRITE[cdb[0]]
    lba = int.from_bytes(cdb[lba_at : lba_at + lba_size], "big")
    part = bytearray(cdb)
    part[lba_at : lba_at + lba_size] = (lba + block).to_bytes(lba_size, "big")
    part[count_at : count_at + count_size] = count.to_bytes(count_size, "big")
    return bytes(part)


def pieces(data: DmaBuffer, unit: int, limits: TransferLimits) -> Iterator[DmaBuffer] | None:
    """Cut `data` into parts within the limits, each a multiple of `unit` bytes; None when that cannot be done."""
    cuts: list[tuple[list[Segment], int]] = []
    current: list[Segment] = []
    size = pages = 0
    todo = list(reversed(data.segments))
    while todo:
        address, length = todo.pop()
        take = min(length, limits.max_length - size, limits.room(current, pages, address))
        if take:
            current.append((address, take))
            size += take
            pages += _pages((address, take))
            if take < length:
                todo.append((address + take, length - take))
            continue
        todo.append((address, length))
        # Full: give back what is beyond the last whole block.
        surplus = size % unit
        size -= surplus
        if not size:
            return None
        while surplus:
            last, last_length = current.pop()
            back = min(surplus, last_length)
            if last_length > back:
                current.append((last, last_length - back))
            todo.append((last + last_length - back, back))
            surplus -= back
        cuts.append((current, size))
        current, size, pages = [], 0, 0
    if size:
        cuts.append((current, size))
    if size % unit:
        return None
    return _views(data, cuts)


def _views(data: DmaBuffer, cuts: list[tuple[list[Segment], int]]) -> Iterator[DmaBuffer]:
    offset = 0
    for segments, size in cuts:
        yield DmaBuffer(segments, data.slice(offset, size), size)
        offset += size


class Train:
    """One request carried as several, strictly one after the other; the first that fails ends it."""

    def __init__(
        self,
        what: str,
        request: Request,
        data: DmaBuffer,
        copy_back_to: DmaBuffer | None,
        limits: TransferLimits,
        refused: bool = False,
    ) -> None:
        self.what = what  # is counted
        self.refused = refused
        self.request = request
        self.data = data
        self.copy_back_to = copy_back_to
        self.moved = 0
        self.block = 0
        srb = request.srb
        blocks = _blocks(srb)
        self.block_size = srb.data_transfer_length // blocks if blocks else max(1, data.length)
        self.whole = limits.fits(data)
        parts = iter([data]) if self.whole else pieces(data, self.block_size, limits)
        self.parts: Iterator[DmaBuffer] = parts if parts is not None else iter(())
        self.srb_status = SRB_STATUS_SUCCESS if parts is not None and not refused else SRB_STATUS_INVALID_REQUEST

    def next_part(self) -> Srb | None:
        """None: it is over."""
        part = next(self.parts, None) if self.srb_status == SRB_STATUS_SUCCESS else None
        if part is None:
            return None
        whole = self.request.srb
        srb = Srb(whole.function, whole.path_id, whole.target_id, whole.lun)
        srb.srb_flags = whole.srb_flags
        srb.queue_action = whole.queue_action
        srb.time_out_value = whole.time_out_value
        srb.sense_info_buffer_length = whole.sense_info_buffer_length
        srb.cdb = whole.cdb if self.whole else _cdb_of(whole.cdb, self.block, part.length // self.block_size)
        srb.cdb_length = whole.cdb_length
        srb.mdl = part
        srb.data_transfer_length = part.length
        srb.queue_sort_key = whole.queue_sort_key + self.block
        self.block += part.length // self.block_size
        self.request.child = srb
        return srb

    def part_done(self, srb: Srb) -> None:
        whole = self.request.srb
        self.moved += srb.data_transfer_length
        whole.scsi_status = srb.scsi_status
        whole.sense_info_buffer = srb.sense_info_buffer
        if srb.srb_status & SRB_STATUS_MASK != SRB_STATUS_SUCCESS:
            self.srb_status = srb.srb_status

    def end(self) -> int:
        """What was moved is the request's; its SrbStatus."""
        if not self.refused:
            whole = self.request.srb
            self.request.child = None
            target = self.copy_back_to
            if target is not None and whole.srb_flags & SRB_FLAGS_DATA_IN:
                target.write(self.data.read(0, self.moved))
                target.commit(self.moved)
            whole.data_transfer_length = self.moved
        return self.srb_status
