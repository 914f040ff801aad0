"""Base address registers: what lies behind each, and where in it.

A `Bar` is a window of a power-of-two size with areas in it; an area is a `RegisterBlock` (one may be placed in several
BARs, as controllers do that mirror their I/O ports in memory). Space between the areas is undefined: it reads as one
byte value and ignores writes, is counted, and told to who watches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hba.pci.registers import RO, RW, Cell, DeclarationError, Field, Register, RegisterBlock, RegisterWatcher

MEMORY: Final = "memory"
IO: Final = "io"

_SOURCE: Final = "PCI Local Bus Specification 3.0, section 6.2.5.1"
_MSIX_SOURCE: Final = "PCI Local Bus Specification 3.0, section 6.8.2"


class Bar:
    """One base address register and what it decodes.

    `size`          bytes, a power of two: at least 16 for memory, 4 to 256 for I/O
    `blocks`        offset in the BAR -> register block
    `space`         MEMORY or IO
    `wide`          a 64-bit memory BAR; it takes the next index as well
    `undefined`     the byte that space without a block reads as

    Raises `DeclarationError` for a size PCI does not allow and for blocks that overlap or do not fit.
    """

    def __init__(
        self,
        size: int,
        blocks: Mapping[int, RegisterBlock] | None = None,
        *,
        space: str = MEMORY,
        wide: bool = False,
        prefetchable: bool = False,
        undefined: int = 0,
    ) -> None:
        if space not in (MEMORY, IO):
            raise DeclarationError(f"a BAR is in {MEMORY!r} or {IO!r} space, not {space!r}")
        least, most = (4, 256) if space == IO else (16, 1 << 63)
        if size & (size - 1) or not least <= size <= most:
            raise DeclarationError(f"a BAR in {space} space has a power of two of at least {least} bytes, not {size}")
        if space == IO and (wide or prefetchable):
            raise DeclarationError("a BAR in I/O space is neither 64-bit nor prefetchable")
        if size > 1 << 31 and not wide:
            raise DeclarationError(f"a BAR of {size} bytes must be 64-bit (wide=True)")
        self.size = size
        self.space = space
        self.wide = wide
        self.prefetchable = prefetchable
        self.undefined = undefined
        self._watchers: tuple[RegisterWatcher, ...] = ()
        self.undefined_accesses = 0
        self._starts: list[int] = []
        self._blocks: list[RegisterBlock] = []
        self._reads: dict[int, Cell] = {}  # the registers of all blocks by offset in the BAR: the common access
        self._writes: dict[int, Cell] = {}
        for offset, block in (blocks or {}).items():
            self.place(offset, block)

    def place(self, offset: int, block: RegisterBlock) -> None:
        """Put `block` at `offset`. Raises `DeclarationError` when it does not fit or overlaps another."""
        end = offset + block.size
        if offset < 0 or end > self.size:
            raise DeclarationError(
                f"block {block.name} (0x{block.size:x} bytes) at 0x{offset:x} "
                f"does not fit a BAR of 0x{self.size:x} bytes"
            )
        for start, other in self.blocks:
            if offset < start + other.size and start < end:
                raise DeclarationError(
                    f"block {block.name} (0x{offset:x}..0x{end - 1:x}) overlaps "
                    f"{other.name} (0x{start:x}..0x{start + other.size - 1:x})"
                )
        index = bisect_right(self._starts, offset)
        self._starts.insert(index, offset)
        self._blocks.insert(index, block)
        self._reads.update((offset + inside, cell) for inside, cell in block.exact("read").items())
        self._writes.update((offset + inside, cell) for inside, cell in block.exact("write").items())

    @property
    def blocks(self) -> list[tuple[int, RegisterBlock]]:
        """(offset, block), ascending."""
        return list(zip(self._starts, self._blocks, strict=True))

    def read(self, offset: int, size: int) -> int:
        """What software reads: a little-endian integer of `size` bytes."""
        cell = self._reads.get(offset)
        if cell is not None and cell.size == size:
            return cell.read()
        return self._read_across(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """What software writes: `size` bytes as a little-endian integer."""
        cell = self._writes.get(offset)
        if cell is not None and cell.size == size:
            cell.write(value)
            return
        self._write_across(offset, size, value)

    def is_local(self, offset: int, size: int) -> bool:
        """Whether this is all of a register that is declared `local`, and a write goes there."""
        cell = self._writes.get(offset)
        return cell is not None and cell.size == size and cell.register.local

    def _parts(self, offset: int, size: int) -> list[tuple[RegisterBlock, int, int, int]]:
        """What of [offset, offset + size) lies in blocks: (block, offset in it, offset in the access, bytes)."""
        parts = []
        for start, block in zip(self._starts, self._blocks, strict=True):
            first = max(offset, start)
            last = min(offset + size, start + block.size)
            if first < last:
                parts.append((block, first - start, first - offset, last - first))
        return parts

    def _read_across(self, offset: int, size: int) -> int:
        result = bytearray([self.undefined]) * size
        defined = 0
        for block, inside, at, length in self._parts(offset, size):
            result[at : at + length] = block.read(inside, length).to_bytes(length, "little")
            defined += length
        value = int.from_bytes(result, "little")
        if defined < size:
            self._note("read", offset, size, value)
        return value

    def _write_across(self, offset: int, size: int, value: int) -> None:
        data = value.to_bytes(size, "little")
        defined = 0
        for block, inside, at, length in self._parts(offset, size):
            block.write(inside, length, int.from_bytes(data[at : at + length], "little"))
            defined += length
        if defined < size:
            self._note("write", offset, size, value)

    def _note(self, kind: str, offset: int, size: int, value: int) -> None:
        self.undefined_accesses += 1
        for watcher in self._watchers:
            watcher.undefined(kind, offset, size, value)

    def watch(self, watcher: RegisterWatcher) -> None:
        """Tell it of accesses to the space between the blocks, which are watched each for itself."""
        self._watchers += (watcher,)

    def reset(self) -> None:
        """Every block's registers back to their reset values."""
        for block in self._blocks:
            block.reset()

    def decode(self) -> list[dict[str, object]]:
        """The decoded view of each block, with offsets in this BAR."""
        return [block.decode(start) for start, block in self.blocks]

    def registers(self, index: int) -> list[Register]:
        """This BAR's own registers in config space, as BAR `index`: one, or two for a 64-bit BAR."""
        offset = 0x10 + 4 * index
        if self.space == IO:
            fields: dict[str, Field] = {
                "SPACE": Field(0, RO, {0: "memory", 1: "I/O"}),
                "ADDRESS": Field((31, _log2(self.size)), RW, doc="I/O base address"),
            }
            reset = 1
        else:
            fields = {
                "SPACE": Field(0, RO, {0: "memory", 1: "I/O"}),
                "TYPE": Field((2, 1), RO, {0: "32-bit", 2: "64-bit"}),
                "PREFETCHABLE": Field(3, RO),
            }
            if self.size <= 1 << 31:
                fields["ADDRESS"] = Field((31, _log2(self.size)), RW, doc="memory base address")
            reset = self.prefetchable << 3 | self.wide << 2
        doc = f"{self.space} window of 0x{self.size:x} bytes"
        low = Register(f"BAR{index}", offset, 32, RO, reset, fields, doc=doc, source=_SOURCE)
        if not self.wide:
            return [low]
        shift = max(0, _log2(self.size) - 32)
        high = {"ADDRESS": Field((31, shift), RW, doc="upper half of the memory base address")}
        return [low, Register(f"BAR{index}_HIGH", offset + 4, 32, RO, 0, high, doc=doc, source=_SOURCE)]


@dataclass(frozen=True, slots=True)
class MsixLayout:
    """Where a function keeps its MSI-X table and pending bit array: offsets in BAR `bar`, multiples of 8."""

    vectors: int
    bar: int
    table_offset: int
    pba_offset: int

    def __post_init__(self) -> None:
        if not 1 <= self.vectors <= 2048:
            raise DeclarationError(f"MSI-X has 1 to 2048 vectors, not {self.vectors}")
        if self.table_offset % 8 or self.pba_offset % 8:
            raise DeclarationError("MSI-X table and pending bit array start at multiples of 8")


def msix_table(vectors: int) -> RegisterBlock:
    """The MSI-X table: 16 bytes a vector.

    QEMU keeps the guest's table to itself and routes by event file descriptors, so these values are what a client
    without a table of its own wrote, and decide nothing.
    """
    registers: list[Register] = []
    for vector in range(vectors):
        base = 16 * vector
        registers += [
            Register(f"VECTOR{vector}_ADDRESS", base, 64, fields={"ADDRESS": (63, 2)}, source=_MSIX_SOURCE),
            Register(f"VECTOR{vector}_DATA", base + 8, 32, source=_MSIX_SOURCE),
            Register(f"VECTOR{vector}_CONTROL", base + 12, 32, reset=1, fields={"MASK": 0}, source=_MSIX_SOURCE),
        ]
    return RegisterBlock("MSIX_TABLE", registers)


def msix_pba(vectors: int) -> RegisterBlock:
    """The MSI-X pending bit array: one bit a vector, in 64-bit registers PENDING0, PENDING1, ..."""
    count = (vectors + 63) // 64
    return RegisterBlock(
        "MSIX_PBA",
        [Register(f"PENDING{index}", 8 * index, 64, RO, source=_MSIX_SOURCE) for index in range(count)],
    )


def _log2(size: int) -> int:
    return size.bit_length() - 1
