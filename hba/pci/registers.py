"""Declared registers: one declaration gives dispatch, reset values, the decoded view and the documentation.

A `Register` reads like the line of the manual it comes from:

    Register("INTR_STATUS", 0x100C, access=RW1C, fields={"CMPL_0": 0, "MSG": (3, 2)}, doc="Interrupt causes")

A `RegisterBlock` holds the values of a set of them and calls named side effects:

    @block.on_write("COMMAND")
    def command(value: int) -> None: ...

How accesses that are not exactly one register wide are handled (the guest may send any offset, size and value):

- A read touches each register in its range once, in ascending order, and cuts the bytes it asked for out of them;
  a register cleared by reading loses only the bytes that were read.
- A write touches each register in its range once, in ascending order. Bytes outside the access keep their value for
  read-write bits and count as zero for all others, so nothing is acknowledged or commanded by accident.
- Bytes that belong to no register read as `undefined` and ignore writes; so does the missing direction of a read-only
  or write-only register.

Each of these is counted, and told to who watches (`RegisterWatcher`).
All multi-byte values are little-endian (PCI Local Bus Specification 3.0, section 6.1).
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import overload

from hba.native import mypyc_attr

Bits = int | tuple[int, int]  # one bit, or (highest, lowest)
WriteHandler = Callable[[int], None]
ReadHandler = Callable[[], int]

_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_WIDTHS = (8, 16, 32, 64)


class DeclarationError(ValueError):
    """A register declaration contradicts itself or another one: a defect of the code that declares it."""


class Access(StrEnum):
    """What software may do to bits, and what that does to them."""

    RO = "ro"  # read-only: the device changes them
    WO = "wo"  # write-only: read as zero; the value last written is kept for the decoded view
    RW = "rw"  # read-write
    RW1C = "rw1c"  # writing one clears
    RW1S = "rw1s"  # writing one sets
    RC = "rc"  # reading clears


RO, WO, RW, RW1C, RW1S, RC = Access.RO, Access.WO, Access.RW, Access.RW1C, Access.RW1S, Access.RC


@dataclass(frozen=True)
class Field:
    """Some bits of a register.

    `access` None: as the register says. `values`: names of the values that have one.
    """

    bits: Bits
    access: Access | None = None
    values: Mapping[int, str] = field(default_factory=dict)
    doc: str = ""

    @property
    def high(self) -> int:
        return self.bits if isinstance(self.bits, int) else self.bits[0]

    @property
    def low(self) -> int:
        return self.bits if isinstance(self.bits, int) else self.bits[1]

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << (self.high - self.low + 1)) - 1) << self.low

    @property
    def range(self) -> str:
        """`7` or `7:4`, as manuals write it."""
        return str(self.low) if self.high == self.low else f"{self.high}:{self.low}"

    def of(self, value: int) -> int:
        """This field's value in a register's `value`."""
        return (value & self.mask) >> self.low


class Register:
    """The declaration of one register; immutable once made, and without a value: that is in a `RegisterBlock`.

    `offset`   bytes from the start of the block
    `width`    bits: 8, 16, 32 or 64
    `access`   of all bits, unless a field says otherwise
    `reset`    value after reset
    `fields`   name -> bit, (high, low) or `Field`. When there are any, the bits outside all of them are reserved:
               they read as their reset value and ignore writes. Without fields every bit is the register's.
    `values`   names of whole values (command codes), for registers without fields
    `doorbell` a write is an event, and its value says nothing: a client may have it as one (`hba.pci.doorbells`)
    `local`    a write changes registers and interrupts, or notes something for later, and reaches neither guest memory
               nor the port: it is carried out in the middle of an access to guest memory, too
    `source`   document and section

    Raises `DeclarationError` when the declaration contradicts itself.
    """

    def __init__(
        self,
        name: str,
        offset: int,
        width: int = 32,
        access: Access = RW,
        reset: int = 0,
        fields: Mapping[str, Bits | Field] | None = None,
        values: Mapping[int, str] | None = None,
        doc: str = "",
        source: str = "",
        doorbell: bool = False,
        local: bool = False,
    ) -> None:
        self.name = name
        self.offset = offset
        self.width = width
        self.access = access
        self.reset = reset
        self.values: Mapping[int, str] = dict(values or {})
        self.doc = doc
        self.source = source
        self.doorbell = doorbell
        self.local = local
        self.fields: Mapping[str, Field] = {
            key: item if isinstance(item, Field) else Field(item) for key, item in (fields or {}).items()
        }
        self._check()
        self.masks = {kind: self._mask_of(kind) for kind in Access}
        """Bits of each access kind, in place."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.width // 8

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.offset + self.size

    @property
    def readable(self) -> bool:
        """Whether reads reach it: anything but a register of write-only bits."""
        return not self.masks[WO] or self.masks[WO] != self._used

    @property
    def writable(self) -> bool:
        """Whether any bit answers to a write."""
        masks = self.masks
        return bool(masks[WO] | masks[RW] | masks[RW1C] | masks[RW1S])

    @property
    def _used(self) -> int:
        if not self.fields:
            return (1 << self.width) - 1
        return sum(item.mask for item in self.fields.values())

    def _mask_of(self, kind: Access) -> int:
        if not self.fields:
            return (1 << self.width) - 1 if self.access == kind else 0
        return sum(item.mask for item in self.fields.values() if (item.access or self.access) == kind)

    def _check(self) -> None:
        where = f"register {self.name!r}"
        if not _NAME.match(self.name):
            raise DeclarationError(f"{where}: a name is upper case letters, digits and _, as in INTR_STATUS")
        if self.width not in _WIDTHS:
            raise DeclarationError(f"{where}: width {self.width} is none of {', '.join(map(str, _WIDTHS))} bits")
        if self.offset < 0:
            raise DeclarationError(f"{where}: offset {self.offset} is negative")
        if not 0 <= self.reset < 1 << self.width:
            raise DeclarationError(f"{where}: reset value 0x{self.reset:x} does not fit {self.width} bits")
        if self.doorbell and (self.access != WO or self.fields):
            raise DeclarationError(f"{where}: a doorbell is write-only and has no fields: its value says nothing")
        if self.fields and self.values:
            raise DeclarationError(f"{where}: has fields, so name values at a field, not at the register")
        for value in self.values:
            if not 0 <= value < 1 << self.width:
                raise DeclarationError(f"{where}: named value 0x{value:x} does not fit {self.width} bits")
        seen: dict[str, int] = {}
        for name, item in self.fields.items():
            if not _NAME.match(name):
                raise DeclarationError(f"{where}, field {name!r}: a name is upper case letters, digits and _")
            if item.low < 0 or item.high < item.low:
                raise DeclarationError(f"{where}, field {name}: bits {item.bits} are not (high, low)")
            if item.high >= self.width:
                raise DeclarationError(
                    f"{where}, field {name}: bit {item.high} is outside the register's {self.width} bits"
                )
            for other, mask in seen.items():
                if mask & item.mask:
                    raise DeclarationError(f"{where}: fields {other} and {name} overlap")
            for value in item.values:
                if not 0 <= value <= item.mask >> item.low:
                    raise DeclarationError(f"{where}, field {name}: named value {value} does not fit bits {item.range}")
            seen[name] = item.mask

    def decode(self, value: int) -> list[dict[str, object]]:
        """The fields of `value`, highest first: name, bits, value and the value's name if it has one."""
        if self.values:
            meaning = self.values.get(value)
            return [{"name": self.name, "bits": f"{self.width - 1}:0", "value": value, "meaning": meaning}]
        ordered = sorted(self.fields.items(), key=lambda pair: -pair[1].low)
        return [
            {"name": name, "bits": item.range, "value": item.of(value), "meaning": item.values.get(item.of(value))}
            for name, item in ordered
        ]

    def __repr__(self) -> str:
        return f"Register({self.name}, 0x{self.offset:x}, {self.width}, {self.access})"


@mypyc_attr(allow_interpreted_subclasses=True)
class RegisterWatcher:
    """Watches accesses to registers, and does nothing. Override what is of interest. `kind`: "read" or "write".

    All offsets are those of the block or BAR that is watched.
    """

    def accessed(self, kind: str, register: Register, value: int) -> None:
        """Software has read this, or is about to write it."""

    def undefined(self, kind: str, offset: int, size: int, value: int) -> None:
        """An access to bytes that belong to no register."""

    def wrong_width(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        """An access that was not exactly one register wide."""

    def wrong_direction(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        """A write to what can only be read, or a read of what can only be written."""


class Cell:
    """One register of a block at run time: its value, what it does, how often it was touched.

    `value` may be read and set by the device directly; no side effect runs and no access rule applies.
    """

    __slots__ = (
        "clear_on_read",
        "keep",
        "merge",
        "on_read",
        "on_write",
        "peek",
        "plain",
        "reads",
        "register",
        "size",
        "store",
        "value",
        "visible",
        "w1c",
        "w1s",
        "watchers",
        "writes",
    )

    def __init__(self, register: Register) -> None:
        masks = register.masks
        full = (1 << register.width) - 1
        self.register = register
        self.size = register.size
        self.value = register.reset
        self.store = masks[RW] | masks[WO]  # bits that take the written value
        self.keep = full & ~self.store  # bits a write leaves alone
        self.merge = masks[RW]  # bits that keep their value in the bytes a narrow write does not touch
        self.w1c = masks[RW1C]
        self.w1s = masks[RW1S]
        self.plain = self.store == full  # a write just replaces the value: commands, doorbells
        self.visible = full & ~masks[WO]
        self.clear_on_read = masks[RC]
        self.watchers: tuple[RegisterWatcher, ...] = ()
        self.on_read: ReadHandler | None = None
        self.on_write: WriteHandler | None = None
        self.peek: ReadHandler | None = None
        self.reads = 0
        self.writes = 0

    def read(self) -> int:
        """A read of the whole register by software."""
        self.reads += 1
        value = (self.value if self.on_read is None else self.on_read()) & self.visible
        if self.clear_on_read:
            self.value &= ~self.clear_on_read
        for watcher in self.watchers:
            watcher.accessed("read", self.register, value)
        return value

    def write(self, value: int) -> None:
        """A write of the whole register by software."""
        self.writes += 1
        for watcher in self.watchers:
            watcher.accessed("write", self.register, value)
        if self.plain:
            self.value = value
        else:
            self.value = (self.value & self.keep & ~(value & self.w1c)) | (value & self.store) | (value & self.w1s)
        if self.on_write is not None:
            self.on_write(value)


class _Direction:
    """The registers that answer to reads, or to writes: exact lookup by offset, and search for everything else."""

    __slots__ = ("cells", "exact", "starts")

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = sorted(cells, key=lambda cell: cell.register.offset)
        self.starts = [cell.register.offset for cell in self.cells]
        self.exact = {cell.register.offset: cell for cell in self.cells}

    def overlapping(self, offset: int, size: int) -> Iterator[Cell]:
        """Cells with bytes in [offset, offset + size), ascending."""
        index = bisect_right(self.starts, offset) - 1
        if index < 0 or self.cells[index].register.end <= offset:
            index += 1
        while index < len(self.cells) and self.starts[index] < offset + size:
            yield self.cells[index]
            index += 1


@mypyc_attr(allow_interpreted_subclasses=True)
class RegisterBlock:
    """The values of declared registers, and what reading and writing them does.

    `size`       bytes the block covers; by default up to its last register
    `undefined`  the byte that undeclared space reads as

    Two registers may share an offset when one is read-only and the other write-only, as hardware likes to do.
    Raises `DeclarationError` for duplicate names, overlaps and registers beyond `size`.
    """

    def __init__(self, name: str, registers: Sequence[Register], size: int | None = None, undefined: int = 0) -> None:
        self.name = name
        self.size = max((register.end for register in registers), default=0) if size is None else size
        self.undefined = undefined
        self.registers = tuple(sorted(registers, key=lambda register: register.offset))
        self._cells: dict[str, Cell] = {}
        for register in self.registers:
            if register.name in self._cells:
                raise DeclarationError(f"block {name}: two registers are called {register.name}")
            if register.end > self.size:
                raise DeclarationError(
                    f"block {name}: {register.name} at 0x{register.offset:x} "
                    f"ends beyond the block's 0x{self.size:x} bytes"
                )
            self._cells[register.name] = Cell(register)
        cells = self._cells.values()
        self._reading = _Direction(cell for cell in cells if cell.register.readable)
        self._writing = _Direction(cell for cell in cells if cell.register.writable)
        self._check_overlaps(self._reading)
        self._check_overlaps(self._writing)
        self._reads = self._reading.exact
        self._writes = self._writing.exact
        self._watchers: tuple[RegisterWatcher, ...] = ()
        self.undefined_accesses = 0
        self.wrong_width_accesses = 0
        self.wrong_direction_accesses = 0

    def _check_overlaps(self, direction: _Direction) -> None:
        for first, second in zip(direction.cells, direction.cells[1:], strict=False):
            one, two = first.register, second.register
            if two.offset < one.end:
                raise DeclarationError(
                    f"block {self.name}: {one.name} (0x{one.offset:x}..0x{one.end - 1:x}) and {two.name} "
                    f"(0x{two.offset:x}..0x{two.end - 1:x}) overlap; only a read-only and a write-only register may"
                )

    # -- by name ----------------------------------------------------------------------------------------------

    def cell(self, name: str) -> Cell:
        """The run-time state of register `name`, for code that touches it often. Raises `DeclarationError`."""
        cell = self._cells.get(name)
        if cell is None:
            near = difflib.get_close_matches(name, self._cells, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(self._cells) or 'none'}"
            raise DeclarationError(f"block {self.name} has no register {name!r}{hint}")
        return cell

    def __getitem__(self, name: str) -> int:
        return self.cell(name).value

    def __setitem__(self, name: str, value: int) -> None:
        cell = self.cell(name)
        cell.value = value & ((1 << cell.register.width) - 1)

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    def field(self, name: str, field_name: str) -> int:
        """The value of one field. Raises `DeclarationError` for unknown names."""
        cell = self.cell(name)
        item = cell.register.fields.get(field_name)
        if item is None:
            near = difflib.get_close_matches(field_name, cell.register.fields, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DeclarationError(f"register {name} has no field {field_name!r}{hint}")
        return item.of(cell.value)

    def at(self, offset: int, kind: str = "read") -> Register | None:
        """The register that holds the byte at `offset`, for reads or for writes."""
        direction = self._reading if kind == "read" else self._writing
        cell = next(direction.overlapping(offset, 1), None)
        return None if cell is None else cell.register

    # -- side effects -----------------------------------------------------------------------------------------

    @overload
    def on_write(self, name: str) -> Callable[[WriteHandler], WriteHandler]: ...
    @overload
    def on_write(self, name: str, handler: WriteHandler) -> WriteHandler: ...
    def on_write(
        self, name: str, handler: WriteHandler | None = None
    ) -> WriteHandler | Callable[[WriteHandler], WriteHandler]:
        """Call `handler(value)` after every write to register `name`; also usable as a decorator.

        `value` is what software wrote; the register already holds what came of it. Raises `DeclarationError` for an
        unknown or read-only register and for a second handler.
        """
        if handler is None:
            return lambda function: self.on_write(name, function)
        cell = self.cell(name)
        if not cell.register.writable:
            raise DeclarationError(f"register {name} is read-only: nothing is written to it")
        if cell.on_write is not None:
            raise DeclarationError(f"register {name} already has a write handler")
        cell.on_write = handler
        return handler

    @overload
    def on_read(self, name: str, *, peek: ReadHandler | None = None) -> Callable[[ReadHandler], ReadHandler]: ...
    @overload
    def on_read(self, name: str, handler: ReadHandler, *, peek: ReadHandler | None = None) -> ReadHandler: ...
    def on_read(
        self, name: str, handler: ReadHandler | None = None, *, peek: ReadHandler | None = None
    ) -> ReadHandler | Callable[[ReadHandler], ReadHandler]:
        """Let `handler()` give the value of every read of register `name`; also usable as a decorator.

        `peek()` gives it to the decoded view without the side effects of a read; without one the view shows the value
        stored in the block. Raises `DeclarationError` for an unknown or write-only register and for a second handler.
        """
        if handler is None:
            return lambda function: self.on_read(name, function, peek=peek)
        cell = self.cell(name)
        if not cell.register.readable:
            raise DeclarationError(f"register {name} is write-only: nothing is read from it")
        if cell.on_read is not None:
            raise DeclarationError(f"register {name} already has a read handler")
        cell.on_read = handler
        cell.peek = peek
        return handler

    def watch(self, watcher: RegisterWatcher) -> None:
        """Tell it of every access to this block, writes before they take effect."""
        self._watchers += (watcher,)
        for cell in self._cells.values():
            cell.watchers += (watcher,)

    # -- accesses ---------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """What software reads in `size` bytes at `offset`, as a little-endian integer."""
        cell = self._reads.get(offset)
        if cell is None or cell.size != size:
            return self._read_other(offset, size)
        return cell.read()

    def write(self, offset: int, size: int, value: int) -> None:
        """What software writes: `size` bytes at `offset`, as a little-endian integer."""
        cell = self._writes.get(offset)
        if cell is None or cell.size != size:
            self._write_other(offset, size, value)
            return
        cell.write(value)

    def _read_other(self, offset: int, size: int) -> int:
        result = bytearray([self.undefined]) * size
        found = 0
        narrow: Register | None = None
        for cell in self._reading.overlapping(offset, size):
            register = cell.register
            first = max(offset, register.offset)
            last = min(offset + size, register.end)
            skip = (first - register.offset) * 8
            lanes = ((1 << (last - first) * 8) - 1) << skip
            untouched = cell.value & cell.clear_on_read & ~lanes
            value = cell.read()
            cell.value |= untouched
            result[first - offset : last - offset] = ((value & lanes) >> skip).to_bytes(last - first, "little")
            found += last - first
            narrow = narrow or register
        read = int.from_bytes(result, "little")
        self._note("read", self._writing, offset, size, read, found, narrow)
        return read

    def _write_other(self, offset: int, size: int, value: int) -> None:
        data = value.to_bytes(size, "little")
        found = 0
        narrow: Register | None = None
        for cell in self._writing.overlapping(offset, size):
            register = cell.register
            first = max(offset, register.offset)
            last = min(offset + size, register.end)
            skip = (first - register.offset) * 8
            lanes = ((1 << (last - first) * 8) - 1) << skip
            part = int.from_bytes(data[first - offset : last - offset], "little") << skip
            found += last - first
            narrow = narrow or register
            cell.write(part | (cell.value & cell.merge & ~lanes))
        self._note("write", self._reading, offset, size, value, found, narrow)

    def _note(
        self, kind: str, opposite: _Direction, offset: int, size: int, value: int, found: int, register: Register | None
    ) -> None:
        """Count and report an access that was not exactly one register."""
        if register is not None and (register.offset != offset or register.size != size):
            self.wrong_width_accesses += 1
            for watcher in self._watchers:
                watcher.wrong_width(kind, register, offset, size, value)
        if found == size:
            return
        direction = self._writing if opposite is self._reading else self._reading
        other = next(
            (
                cell.register
                for cell in opposite.overlapping(offset, size)
                if next(direction.overlapping(cell.register.offset, cell.size), None) is None
            ),
            None,
        )
        if other is not None:
            self.wrong_direction_accesses += 1
            for watcher in self._watchers:
                watcher.wrong_direction(kind, other, offset, size, value)
        else:
            self.undefined_accesses += 1
            for watcher in self._watchers:
                watcher.undefined(kind, offset, size, value)

    def exact(self, kind: str) -> Mapping[int, Cell]:
        """The cells that answer to a "read" or "write" of exactly their own width, by offset in the block."""
        return self._reads if kind == "read" else self._writes

    def reset(self) -> None:
        """Every register back to its reset value; handlers and counters stay, no handler runs."""
        for cell in self._cells.values():
            cell.value = cell.register.reset

    # -- migration --------------------------------------------------------------------------------------------

    def save(self) -> dict[str, int]:
        """The value of every register, by name."""
        return {name: cell.value for name, cell in self._cells.items()}

    def check_saved(self, values: Mapping[str, int]) -> None:
        """Raises ValueError unless `values` is of a block with the same registers."""
        if missing := [name for name in self._cells if name not in values]:
            raise ValueError(f"block {self.name}: no value for register {missing[0]}")
        for name, value in values.items():
            cell = self._cells.get(name)
            if cell is None:
                raise ValueError(f"block {self.name} has no register {name}")
            if not 0 <= value < 1 << cell.register.width:
                raise ValueError(f"block {self.name}: 0x{value:x} does not fit register {name}")

    def restore(self, values: Mapping[str, int]) -> None:
        """Take over what `save` gave and `check_saved` found good; no handler runs."""
        for name, value in values.items():
            self._cells[name].value = value

    # -- views ------------------------------------------------------------------------------------------------

    def decode(self, base: int = 0) -> dict[str, object]:
        """The block by name and field, JSON-able and without side effects.

        `base` is added to the offsets shown (the block's place in its BAR).
        """
        registers: list[dict[str, object]] = []
        for cell in self._cells.values():
            register = cell.register
            value = cell.value if cell.peek is None else cell.peek()
            registers.append(
                {
                    "name": register.name,
                    "offset": base + register.offset,
                    "width": register.width,
                    "access": str(register.access),
                    "value": value,
                    "reset": register.reset,
                    "fields": register.decode(value),
                    "reads": cell.reads,
                    "writes": cell.writes,
                    "doc": register.doc,
                }
            )
        return {
            "block": self.name,
            "registers": registers,
            "undefined_accesses": self.undefined_accesses,
            "wrong_width_accesses": self.wrong_width_accesses,
            "wrong_direction_accesses": self.wrong_direction_accesses,
        }

    def document(self) -> str:
        """The block's part of the register manual, in Markdown."""
        return document(self.name, self.registers)


def document(title: str, registers: Sequence[Register]) -> str:
    """A Markdown section with one table row a register and one a field, made from the declarations alone."""
    lines = [
        f"## {title}",
        "",
        "| Offset | Register or field | Bits | Access | Reset | Meaning |",
        "|---|---|---|---|---|---|",
    ]
    for register in sorted(registers, key=lambda item: item.offset):
        meaning = _cell(register.doc, register.values, register.source)
        digits = register.width // 4
        lines.append(
            f"| 0x{register.offset:04x} | **{register.name}** | {register.width - 1}:0 | {register.access} "
            f"| 0x{register.reset:0{digits}x} | {meaning} |"
        )
        for name, item in sorted(register.fields.items(), key=lambda pair: -pair[1].low):
            access = item.access or register.access
            meaning = _cell(item.doc, item.values, "")
            lines.append(f"| | {name} | {item.range} | {access} | {item.of(register.reset):#x} | {meaning} |")
    return "\n".join(lines) + "\n"


def _cell(doc: str, values: Mapping[int, str], source: str) -> str:
    """One table cell: the sentence, the named values, the source."""
    parts = [doc] if doc else []
    if values:
        parts.append(", ".join(f"{value:#x} {name}" for value, name in sorted(values.items())))
    if source:
        parts.append(f"[{source}]")
    return ". ".join(part.rstrip(".") for part in parts).replace("|", "\\|")
