"""Registers and ports: GetDeviceBase and the Read/Write macros (CF-10, MB-16, LB-03).

A mapped address is an object here. It is an address: `base + 0x10` is one too, and is given to the Read and Write
routines like the pointer on Windows. Each access is checked against the mapped range and its space.

Sources: StorPortGetDeviceBase, StorPortFreeDeviceBase, StorPortValidateRange, StorPortReadRegisterUlong and the other
macros (storport.h); ScsiPortGetDeviceBase, ScsiPortValidateRange, ScsiPortReadPortUchar and the others (srb.h);
ACCESS_RANGE; Bug Check 0xF1, parameters 0x2003 and 0x2005.
"""

from __future__ import annotations

from hba.miniport.board import Board
from hba.pci.bars import IO, Bar
from hba.port.context import CALLBACK_NAMES, FIND_ADAPTER
from hba.port.library.host import Caller

UCHAR, USHORT, ULONG, ULONG64 = 1, 2, 4, 8  # bytes


class Mapping:
    """A range of a BAR that GetDeviceBase mapped."""

    __slots__ = ("bar", "first", "length", "live", "start")

    def __init__(self, bar: Bar, first: int, start: int, length: int) -> None:
        self.bar = bar
        self.first = first  # offset in the BAR
        self.start = start  # bus address
        self.length = length
        self.live = True


class MappedAddress:
    """A logical address of a register or port: what GetDeviceBase returns, or that + an offset in bytes."""

    __slots__ = ("mapping", "offset")

    def __init__(self, mapping: Mapping, offset: int = 0) -> None:
        self.mapping = mapping
        self.offset = offset

    def __add__(self, offset: int) -> MappedAddress:
        return MappedAddress(self.mapping, self.offset + offset)

    def __sub__(self, offset: int) -> MappedAddress:
        return MappedAddress(self.mapping, self.offset - offset)

    def __repr__(self) -> str:
        mapping = self.mapping
        space = "ports" if mapping.bar.space == IO else "registers"
        return f"<{space} {mapping.start:#x}+{mapping.length:#x} at offset {self.offset:#x}>"


class DeviceBase:
    """Mapping the adapter's ranges. `rule`: whose breach it is to ask for another, CF-10 (SCSI Port) or MB-16."""

    def __init__(self, caller: Caller, board: Board, rule: str) -> None:
        self._caller = caller
        self._board = board
        self._rule = rule

    def get_device_base(
        self, bus_type: int, system_io_bus_number: int, io_address: int, number_of_bytes: int, in_io_space: bool
    ) -> MappedAddress | None:
        """StorPortGetDeviceBase, ScsiPortGetDeviceBase: map [io_address, io_address + number_of_bytes).

        `bus_type` and `system_io_bus_number` are those of PORT_CONFIGURATION_INFORMATION. None: the range was not
        assigned (bug check 0xF1, 0x2003), or lies in the other space.
        """
        if covers(self._board, io_address, number_of_bytes):
            found = self._board.at(io_address)
            if found is not None and (found[0].space == IO) == bool(in_io_space):
                return MappedAddress(Mapping(found[0], found[1], io_address, number_of_bytes))
        self._caller.offence(
            self._rule,
            f"GetDeviceBase of {io_address:#x}+{number_of_bytes:#x} in {'I/O' if in_io_space else 'memory'} space, "
            "which was not assigned",
        )
        return None

    def free_device_base(self, mapped_address: MappedAddress | None) -> None:
        """StorPortFreeDeviceBase, ScsiPortFreeDeviceBase: only from hw_find_adapter, with what GetDeviceBase gave."""
        caller = self._caller
        if caller.callback != FIND_ADAPTER:
            caller.offence(self._rule, f"FreeDeviceBase from {CALLBACK_NAMES[caller.callback]}")
            return
        if not isinstance(mapped_address, MappedAddress) or mapped_address.offset or not mapped_address.mapping.live:
            caller.offence(self._rule, f"FreeDeviceBase of {mapped_address!r}, which GetDeviceBase did not return")
            return
        mapped_address.mapping.live = False


def covers(board: Board, address: int, length: int) -> bool:
    """Whether one of the assigned ranges holds [address, address + length)."""
    return any(start <= address and 0 < length <= start + size - address for start, size in board.access_ranges)


class ScsiPortRanges:
    """ScsiPortValidateRange."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def validate_range(
        self, bus_type: int, system_io_bus_number: int, io_address: int, number_of_bytes: int, in_io_space: bool
    ) -> bool:
        """ScsiPortValidateRange: whether no other driver has the range: True for this adapter's own (CF-10)."""
        return covers(self._board, io_address, number_of_bytes)


class StorPortRanges:
    """StorPortValidateRange."""

    def validate_range(
        self, bus_type: int, system_io_bus_number: int, io_address: int, number_of_bytes: int, in_io_space: bool
    ) -> bool:
        """StorPortValidateRange: obsolete; always TRUE for compatibility, as its page says."""
        return True


class Registers:
    """The Read and Write routines of registers (memory space) and ports (I/O space), little-endian.

    LB-03: an access outside of a mapped range is bug check 0xF1, 0x2005. Here it is a finding; it reads all ones, and
    a write goes nowhere. At any IRQL.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def _at(self, address: object, size: int, io: bool, how: str) -> tuple[Bar, int] | None:
        if not isinstance(address, MappedAddress):
            self._caller.offence("LB-03", f"{how} of {address!r}, which is no address GetDeviceBase gave out")
            return None
        mapping, offset = address.mapping, address.offset
        if not mapping.live:
            self._caller.offence("LB-03", f"{how} of {address!r}, which was freed")
        elif offset < 0 or offset + size > mapping.length:
            self._caller.offence("LB-03", f"{how} of {size} bytes outside of the mapped range: {address!r}")
        elif (mapping.bar.space == IO) != io:
            wanted = "port" if mapping.bar.space == IO else "register"
            self._caller.offence("LB-03", f"{how} of {address!r}: use the {wanted} routines")
        else:
            return mapping.bar, mapping.first + offset
        return None

    def _read(self, address: MappedAddress, size: int, io: bool) -> int:
        found = self._at(address, size, io, "read")
        return found[0].read(found[1], size) if found is not None else (1 << 8 * size) - 1

    def _write(self, address: MappedAddress, size: int, io: bool, value: int) -> None:
        found = self._at(address, size, io, "write")
        if found is not None:
            found[0].write(found[1], size, value & ((1 << 8 * size) - 1))

    def _read_buffer(
        self, address: MappedAddress, size: int, io: bool, buffer: bytearray | memoryview, count: int
    ) -> None:
        """`count` values into `buffer`: of consecutive registers, or all of the one port."""
        for index in range(count):
            at = address if io else address + index * size
            buffer[index * size : (index + 1) * size] = self._read(at, size, io).to_bytes(size, "little")

    def _write_buffer(
        self, address: MappedAddress, size: int, io: bool, buffer: bytes | bytearray | memoryview, count: int
    ) -> None:
        for index in range(count):
            at = address if io else address + index * size
            self._write(at, size, io, int.from_bytes(buffer[index * size : (index + 1) * size], "little"))

    # -- registers ---------------------------------------------------------------------------------------------

    def read_register_uchar(self, register: MappedAddress) -> int:
        """StorPortReadRegisterUchar, ScsiPortReadRegisterUchar."""
        return self._read(register, UCHAR, False)

    def read_register_ushort(self, register: MappedAddress) -> int:
        """StorPortReadRegisterUshort, ScsiPortReadRegisterUshort."""
        return self._read(register, USHORT, False)

    def read_register_ulong(self, register: MappedAddress) -> int:
        """StorPortReadRegisterUlong, ScsiPortReadRegisterUlong."""
        return self._read(register, ULONG, False)

    def read_register_buffer_uchar(self, register: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadRegisterBufferUchar, ScsiPortReadRegisterBufferUchar: `count` values, consecutive registers."""
        self._read_buffer(register, UCHAR, False, buffer, count)

    def read_register_buffer_ushort(self, register: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadRegisterBufferUshort, ScsiPortReadRegisterBufferUshort."""
        self._read_buffer(register, USHORT, False, buffer, count)

    def read_register_buffer_ulong(self, register: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadRegisterBufferUlong, ScsiPortReadRegisterBufferUlong."""
        self._read_buffer(register, ULONG, False, buffer, count)

    def write_register_uchar(self, register: MappedAddress, value: int) -> None:
        """StorPortWriteRegisterUchar, ScsiPortWriteRegisterUchar."""
        self._write(register, UCHAR, False, value)

    def write_register_ushort(self, register: MappedAddress, value: int) -> None:
        """StorPortWriteRegisterUshort, ScsiPortWriteRegisterUshort."""
        self._write(register, USHORT, False, value)

    def write_register_ulong(self, register: MappedAddress, value: int) -> None:
        """StorPortWriteRegisterUlong, ScsiPortWriteRegisterUlong."""
        self._write(register, ULONG, False, value)

    def write_register_buffer_uchar(
        self, register: MappedAddress, buffer: bytes | bytearray | memoryview, count: int
    ) -> None:
        """StorPortWriteRegisterBufferUchar, ScsiPortWriteRegisterBufferUchar: `count` values, consecutive registers."""
        self._write_buffer(register, UCHAR, False, buffer, count)

    def write_register_buffer_ushort(
        self, register: MappedAddress, buffer: bytes | bytearray | memoryview, count: int
    ) -> None:
        """StorPortWriteRegisterBufferUshort, ScsiPortWriteRegisterBufferUshort."""
        self._write_buffer(register, USHORT, False, buffer, count)

    def write_register_buffer_ulong(
        self, register: MappedAddress, buffer: bytes | bytearray | memoryview, count: int
    ) -> None:
        """StorPortWriteRegisterBufferUlong, ScsiPortWriteRegisterBufferUlong."""
        self._write_buffer(register, ULONG, False, buffer, count)

    # -- ports -------------------------------------------------------------------------------------------------

    def read_port_uchar(self, port: MappedAddress) -> int:
        """StorPortReadPortUchar, ScsiPortReadPortUchar."""
        return self._read(port, UCHAR, True)

    def read_port_ushort(self, port: MappedAddress) -> int:
        """StorPortReadPortUshort, ScsiPortReadPortUshort."""
        return self._read(port, USHORT, True)

    def read_port_ulong(self, port: MappedAddress) -> int:
        """StorPortReadPortUlong, ScsiPortReadPortUlong."""
        return self._read(port, ULONG, True)

    def read_port_buffer_uchar(self, port: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadPortBufferUchar, ScsiPortReadPortBufferUchar: `count` values of the same port."""
        self._read_buffer(port, UCHAR, True, buffer, count)

    def read_port_buffer_ushort(self, port: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadPortBufferUshort, ScsiPortReadPortBufferUshort."""
        self._read_buffer(port, USHORT, True, buffer, count)

    def read_port_buffer_ulong(self, port: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadPortBufferUlong, ScsiPortReadPortBufferUlong."""
        self._read_buffer(port, ULONG, True, buffer, count)

    def write_port_uchar(self, port: MappedAddress, value: int) -> None:
        """StorPortWritePortUchar, ScsiPortWritePortUchar."""
        self._write(port, UCHAR, True, value)

    def write_port_ushort(self, port: MappedAddress, value: int) -> None:
        """StorPortWritePortUshort, ScsiPortWritePortUshort."""
        self._write(port, USHORT, True, value)

    def write_port_ulong(self, port: MappedAddress, value: int) -> None:
        """StorPortWritePortUlong, ScsiPortWritePortUlong."""
        self._write(port, ULONG, True, value)

    def write_port_buffer_uchar(self, port: MappedAddress, buffer: bytes | bytearray | memoryview, count: int) -> None:
        """StorPortWritePortBufferUchar, ScsiPortWritePortBufferUchar: `count` values to the same port."""
        self._write_buffer(port, UCHAR, True, buffer, count)

    def write_port_buffer_ushort(self, port: MappedAddress, buffer: bytes | bytearray | memoryview, count: int) -> None:
        """StorPortWritePortBufferUshort, ScsiPortWritePortBufferUshort."""
        self._write_buffer(port, USHORT, True, buffer, count)

    def write_port_buffer_ulong(self, port: MappedAddress, buffer: bytes | bytearray | memoryview, count: int) -> None:
        """StorPortWritePortBufferUlong, ScsiPortWritePortBufferUlong."""
        self._write_buffer(port, ULONG, True, buffer, count)


class WideRegisters(Registers):
    """Storport has 64-bit registers, too (64-bit Windows)."""

    def read_register_ulong64(self, register: MappedAddress) -> int:
        """StorPortReadRegisterUlong64."""
        return self._read(register, ULONG64, False)

    def read_register_buffer_ulong64(self, register: MappedAddress, buffer: bytearray | memoryview, count: int) -> None:
        """StorPortReadRegisterBufferUlong64."""
        self._read_buffer(register, ULONG64, False, buffer, count)

    def write_register_ulong64(self, register: MappedAddress, value: int) -> None:
        """StorPortWriteRegisterUlong64."""
        self._write(register, ULONG64, False, value)

    def write_register_buffer_ulong64(
        self, register: MappedAddress, buffer: bytes | bytearray | memoryview, count: int
    ) -> None:
        """StorPortWriteRegisterBufferUlong64."""
        self._write_buffer(register, ULONG64, False, buffer, count)
