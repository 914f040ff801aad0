"""The board a chip sits on: where its registers are, and that each of them is the chip's."""

from __future__ import annotations

import pytest

from hba.miniport.board import IO_BASE, MEMORY_BASE, AccessRange, Board, board_of
from hba.miniport.chip import Chip
from hba.scsi.task import RESPONSE_RESET, Task
from tests.miniport.rig import AnsweringBus, Memory

CONTROL, STATUS, COMPLETED, ACTIVE, RESET = 0x04, 0x08, 0x0C, 0x10, 0x14


@pytest.fixture
def chip() -> Chip:
    bus = AnsweringBus()
    bus.hold = True
    return Chip(bus, Memory())


@pytest.fixture
def board(chip: Chip) -> Board:
    return board_of(chip)


def test_the_system_has_set_the_board_up(board: Board) -> None:
    """As firmware leaves it: both BARs have an address and are decoded, and the device may be a bus master."""
    config = board.config_space
    assert config.command == 0b111
    assert [config.read(offset, 4) for offset in range(0x10, 0x28, 4)] == [MEMORY_BASE, IO_BASE | 1, 0, 0, 0, 0]
    assert (config.bar_address(0), config.bar_address(1)) == (MEMORY_BASE, IO_BASE)


def test_ranges_and_what_decodes_an_address(board: Board) -> None:
    memory, ports = board.bars[MEMORY_BASE], board.bars[IO_BASE]
    assert board.access_ranges == ((MEMORY_BASE, 0x1000), (IO_BASE, 0x100))
    assert [found.range_in_memory for found in board.access_ranges] == [True, False]
    assert [AccessRange(start, 16).range_in_memory for start in (0xFFFF, 0x1_0000)] == [False, True]
    addresses = [base + offset for base, bar in board.bars.items() for offset in (-1, 0, bar.size - 1, bar.size)]
    assert [board.at(address) for address in addresses] == [
        *(None, (memory, 0), (memory, 0xFFF), None),
        *(None, (ports, 0), (ports, 0xFF), None),
    ]


def test_what_is_no_register_reads_as_ones(board: Board) -> None:
    for bar in board.bars.values():
        assert bar.read(board.registers.size, 4) == bar.read(bar.size - 4, 4) == 0xFFFF_FFFF
        assert bar.read(RESET, 4) == 0xFFFF_FFFF  # which can only be written
        assert bar.read(0, 4).to_bytes(4, "little") == b"HBA1"


def test_interrupts_by_register(chip: Chip, board: Board) -> None:
    raised: list[bool] = []
    chip.on_interrupt = lambda: raised.append(True)
    registers = board.registers
    assert registers.read(CONTROL, 4) == 1
    registers.write(CONTROL, 4, 2)  # INTERRUPT_ENABLE is bit 0
    assert registers.read(CONTROL, 4) == 0 and not chip.interrupts_enabled
    chip.raise_interrupt()
    assert registers.read(STATUS, 4) == 1 and raised == []
    registers.write(STATUS, 4, 0)  # writing one clears it, nothing else does
    registers.write(STATUS, 4, 2)
    assert registers.read(STATUS, 4) == 1
    registers.write(CONTROL, 4, 1)
    assert registers.read(CONTROL, 4) == 1 and raised == [True]
    registers.write(STATUS, 4, 1)
    assert registers.read(STATUS, 4) == 0 and not chip.asserted


def test_commands_by_register(chip: Chip, board: Board) -> None:
    registers, bus = board.registers, chip.bus
    assert isinstance(bus, AnsweringBus)
    tasks = [Task(bytes(6)) for _ in range(3)]
    for task in tasks:
        chip.start(0, 0, task)
    bus.release(tasks[0])
    chip.acknowledge()
    assert [registers.read(offset, 4) for offset in (STATUS, COMPLETED, ACTIVE)] == [2, 1, 2]
    registers.write(RESET, 4, 0)
    registers.write(RESET, 4, 2)
    assert bus.held == tasks[1:]
    registers.write(RESET, 4, 1)
    assert bus.held == [] and [task.response for task in tasks] == [0, RESPONSE_RESET, RESPONSE_RESET]
    assert [registers.read(offset, 4) for offset in (STATUS, COMPLETED, ACTIVE)] == [3, 3, 0]
    chip.completed.clear()
    assert [registers.read(offset, 4) for offset in (STATUS, COMPLETED)] == [1, 0]
