"""Which sectors of a store are in the overlay: a sparse bitmap.

Looking for where a run ends costs a step for each `SPAN` of sectors that are all alike, not for each sector or region:
16 TiB that were never written are 4096 steps.
"""

from __future__ import annotations

SECTOR = 512  # bytes
REGION = 2048  # sectors described by one integer: 1 MiB
ENTRY = REGION // 8  # bytes of a region's bits in a file
_ALL = (1 << REGION) - 1
SPAN = 4096  # regions counted together: 4 GiB

Run = tuple[bool, int, int]  # (present?, first sector, sector after the last)


class SectorMap:
    """One bit per sector, kept only for regions that have one set; `dirty` collects the regions that changed."""

    def __init__(self) -> None:
        self.regions: dict[int, int] = {}
        self.dirty: set[int] = set()
        self.count = 0  # sectors present
        self._spans: dict[int, int] = {}  # sectors present of each span that has one

    def mark(self, first: int, end: int) -> None:
        """Sectors [first, end) are present from now on."""
        regions = self.regions
        while first < end:
            region, bit = divmod(first, REGION)
            width = min(REGION - bit, end - first)
            bits = ((1 << width) - 1) << bit if width < REGION else _ALL
            old = regions.get(region, 0)
            new = old | bits
            if new != old:
                regions[region] = _ALL if new == _ALL else new
                self.dirty.add(region)
                self._counted(region, (new ^ old).bit_count())
            first += width

    def _counted(self, region: int, more: int) -> None:
        self.count += more
        self._spans[region // SPAN] = self._spans.get(region // SPAN, 0) + more

    def _alike(self, region: int, bit: int) -> bool | None:
        """Whether the whole span that begins with this region is present, or absent; None when it is mixed."""
        if bit or region % SPAN:
            return None
        count = self._spans.get(region // SPAN, 0)
        return False if not count else True if count == SPAN * REGION else None

    def runs(self, first: int, end: int, limit: int = 1 << 62) -> list[Run]:
        """[first, end) as runs of equal state, in order; at most about `limit` of them (the last may be cut short)."""
        result: list[Run] = []
        state, start = False, first
        position = first
        while position < end and len(result) < limit:
            region, bit = divmod(position, REGION)
            alike = self._alike(region, bit)
            if alike is not None:
                if alike != state and position > start:
                    result.append((state, start, position))
                    start = position
                state = alike
                position = min(end, position + SPAN * REGION)
                continue
            width = min(REGION - bit, end - position)
            bits = self.regions.get(region, 0) >> bit
            while width > 0 and len(result) < limit:
                present = bool(bits & 1)
                # Adding one to 0b..0111 clears the ones at its low end: the lowest zero is where the run ends.
                length = ((~bits & (bits + 1)) if present else (bits & -bits)).bit_length() - 1
                length = min(length, width) if length >= 0 else width
                if present != state and position > start:
                    result.append((state, start, position))
                    start = position
                state = present
                position += length
                width -= length
                bits >>= length
        if position > start:
            result.append((state, start, position))
        return result

    def pack(self, region: int) -> bytes:
        """The region's bits as they are kept in a file, sector 0 in bit 0 of byte 0."""
        return self.regions.get(region, 0).to_bytes(ENTRY, "little")

    def load(self, region: int, data: bytes) -> None:
        bits = int.from_bytes(data, "little")
        if bits:
            self.regions[region] = bits
            self._counted(region, bits.bit_count())
