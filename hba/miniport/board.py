"""The board a chip sits on, as its driver sees it over PCI: config space and two BARs with the chip's registers.

BAR 0 (memory, 4 KiB) and BAR 1 (I/O, 256 ports) both begin with the registers below. A miniport gets at them as on
Windows: `get_bus_data`, `get_device_base` of a range of `config.access_ranges`, `read_register_ulong` and its like, or
`read_port_ulong` and its like (hba.port.library.registers). The methods of `Chip` do the same and more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hba.miniport.chip import Chip
from hba.pci.bars import IO, Bar
from hba.pci.config_space import COMMAND_BUS_MASTER, COMMAND_IO, COMMAND_MEMORY, ConfigSpace
from hba.pci.identity import Identity
from hba.pci.registers import RO, RW1C, WO, Field, Register, RegisterBlock

MEMORY_BASE: Final = 0xF000_0000  # where the system put BAR 0 and BAR 1
IO_BASE: Final = 0xC000
IO_SPACE: Final = 0x1_0000  # bus addresses below this are I/O ports, those above are memory
SOME_ADAPTER = Identity(vendor=0x1234, device=0x4842, class_code=0x010000)  # SCSI bus controller; of nobody

_SOURCE: Final = "this project: hba/miniport/board.py"
_REGISTERS = (
    Register("IDENTITY", 0x00, access=RO, reset=0x3141_4248, doc="'HBA1'", source=_SOURCE),
    Register("CONTROL", 0x04, fields={"INTERRUPT_ENABLE": 0}, doc="chip.interrupts_enabled", source=_SOURCE),
    Register(
        "STATUS",
        0x08,
        access=RW1C,
        fields={
            "INTERRUPT": Field(0, doc="the line is up; writing one is chip.acknowledge()"),
            "COMPLETION": Field(1, RO, doc="there is something in chip.completed"),
        },
        source=_SOURCE,
    ),
    Register("COMPLETED", 0x0C, access=RO, doc="commands in chip.completed", source=_SOURCE),
    Register("ACTIVE", 0x10, access=RO, doc="commands the chip has", source=_SOURCE),
    Register("RESET", 0x14, access=WO, fields={"BUS": 0}, doc="chip.reset_bus()", source=_SOURCE),
    Register("SCRATCH", 0x18, 64, doc="holds what is written", source=_SOURCE),
)


class AccessRange(NamedTuple):
    """ACCESS_RANGE (srb.h): a range of bus addresses the adapter was assigned."""

    range_start: int
    range_length: int  # bytes, or ports

    @property
    def range_in_memory(self) -> bool:
        """False: I/O ports, of which PCI has 64 Ki."""
        return self.range_start >= IO_SPACE


class Board:
    """Config space and BARs of one chip. Made once; what was written to it stays over stop and restart.

    `bars`  by the bus address each begins at
    """

    def __init__(self, chip: Chip, identity: Identity = SOME_ADAPTER) -> None:
        self.registers = _chip_registers(chip)
        memory = Bar(0x1000, {0: self.registers}, undefined=0xFF)
        ports = Bar(0x100, {0: self.registers}, space=IO, undefined=0xFF)
        self.config_space = ConfigSpace(identity, {0: memory, 1: ports})
        command = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER
        self.config_space.restore({"BAR0": MEMORY_BASE, "BAR1": IO_BASE, "COMMAND": command})
        self.bars = {MEMORY_BASE: memory, IO_BASE: ports}

    @property
    def access_ranges(self) -> tuple[AccessRange, ...]:
        """What PORT_CONFIGURATION_INFORMATION.AccessRanges is, in the order of the BARs."""
        return tuple(AccessRange(start, bar.size) for start, bar in self.bars.items())

    def at(self, address: int) -> tuple[Bar, int] | None:
        """(BAR, offset in it) that decodes a bus address; None: none does."""
        for start, bar in self.bars.items():
            if start <= address < start + bar.size:
                return bar, address - start
        return None

    def reset(self) -> None:
        """A function level reset (PCI Express Base Specification, section 6.6.2): the registers, not where they are."""
        self.registers.reset()


def board_of(chip: Chip) -> Board:
    """The board `chip` sits on; made, with the identity the chip was given, when it is first asked for."""
    board = chip.board
    if not isinstance(board, Board):
        identity = chip.identity
        board = chip.board = Board(chip, identity if isinstance(identity, Identity) else SOME_ADAPTER)
    return board


def _chip_registers(chip: Chip) -> RegisterBlock:
    block = RegisterBlock("CHIP", _REGISTERS, undefined=0xFF)

    @block.on_write("CONTROL")
    def control(value: int) -> None:
        chip.interrupts_enabled = bool(value & 1)

    @block.on_write("STATUS")
    def status(value: int) -> None:
        if value & 1:
            chip.acknowledge()

    @block.on_write("RESET")
    def reset(value: int) -> None:
        if value & 1:
            chip.reset_bus()

    block.on_read("CONTROL", lambda: int(chip.interrupts_enabled))
    block.on_read("STATUS", lambda: int(chip.asserted) | (2 if chip.completed else 0))
    block.on_read("COMPLETED", lambda: len(chip.completed))
    block.on_read("ACTIVE", lambda: len(chip.active))
    return block
