"""GetDeviceBase, the Read and Write routines, config space."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.base import SCSI_SET_RUNNING_CONFIG, SCSI_STOP_ADAPTER
from hba.miniport.board import IO_BASE, MEMORY_BASE, SOME_ADAPTER, board_of
from hba.miniport.chip import Chip
from hba.miniport.driver_entry import PCI_BUS
from hba.pci.identity import Identity
from hba.port.library.bus_data import CMOS, PCI_CONFIGURATION
from tests.port.library.conftest import MakeRig
from tests.port.storport.rig import HeldBus, Rig

SCRATCH = 0x18


def mapped(rig: Rig, start: int = MEMORY_BASE, length: int = 0x40) -> Any:
    return rig.scripted.port.get_device_base(PCI_BUS, 0, start, length, start == IO_BASE)


@pytest.mark.parametrize(("size", "bits"), [("uchar", 8), ("ushort", 16), ("ulong", 32), ("ulong64", 64)])
def test_registers_of_every_size(rig: Rig, size: str, bits: int) -> None:
    port, at = rig.scripted.port, mapped(rig) + SCRATCH
    value = 0x1122_3344_5566_7788 & ((1 << bits) - 1)
    getattr(port, f"write_register_{size}")(at, value | 1 << bits)  # what is too much falls off
    assert getattr(port, f"read_register_{size}")(at) == value
    buffer = bytearray(16)
    count = 8 // (bits // 8)
    getattr(port, f"write_register_buffer_{size}")(at, bytes(range(8)), count)
    getattr(port, f"read_register_buffer_{size}")(at, buffer, count)
    assert buffer == bytes(range(8)) + bytes(8)
    assert rig.found == set()


@pytest.mark.parametrize(("size", "length"), [("uchar", 1), ("ushort", 2), ("ulong", 4)])
def test_ports_of_every_size(rig: Rig, size: str, length: int) -> None:
    port, at = rig.scripted.port, mapped(rig, IO_BASE) + SCRATCH
    getattr(port, f"write_port_{size}")(at, 0x5A)
    assert getattr(port, f"read_port_{size}")(at) == 0x5A
    # A buffer goes through the one port, value after value.
    getattr(port, f"write_port_buffer_{size}")(at, bytes(length) + b"\x01" * length, 2)
    buffer = bytearray(2 * length)
    getattr(port, f"read_port_buffer_{size}")(at, buffer, 2)
    assert buffer == b"\x01" * 2 * length
    assert rig.found == set()


def test_the_registers_are_the_chips(rig: Rig) -> None:
    port, base = rig.scripted.port, mapped(rig)
    assert port.read_register_ulong(base).to_bytes(4, "little") == b"HBA1"
    port.write_register_ulong(base + 4, 0)
    assert not rig.chip.interrupts_enabled
    rig.chip.raise_interrupt()
    assert port.read_register_ulong(base + 8) == 1
    port.write_register_ulong(base + 8, 1)
    assert not rig.chip.asserted


@pytest.mark.parametrize("offset", [-4, 0x3E, 0x40, 0x1000])
def test_LB_03_registers_outside_of_what_was_mapped(rig: Rig, offset: int) -> None:
    port, base = rig.scripted.port, mapped(rig)
    assert port.read_register_ulong(base + offset) == 0xFFFF_FFFF
    port.write_register_ulong(base + offset, 0)
    assert len(rig.messages("LB-03")) == 2


def test_LB_03_the_other_space_freed_and_invented_addresses(make_rig: MakeRig) -> None:
    bases: list[Any] = []

    def find(config: Any) -> None:
        port = rigs[0].scripted.port
        bases.append(port.get_device_base(PCI_BUS, 0, MEMORY_BASE, 16, False))
        port.free_device_base(bases[0])

    rigs = [make_rig()]
    rigs[0].scripted.find = find
    rigs[0].port.start()
    rig, port = rigs[0], rigs[0].scripted.port
    assert rig.found == set()
    assert port.read_register_uchar(bases[0]) == 0xFF  # freed
    assert port.read_port_uchar(mapped(rig)) == 0xFF  # registers are no ports
    assert port.read_register_uchar(0xF000_0000) == 0xFF  # a bus address is no logical address
    assert [message.split(": ")[-1] for message in rig.messages("LB-03")][1] == "use the register routines"
    assert len(rig.messages("LB-03")) == 3
    port.free_device_base(bases[0])
    assert len(rig.messages("MB-16")) == 1  # only in hw_find_adapter


def test_LB_02_bus_data_where_it_may_be_asked_for(make_rig: MakeRig) -> None:
    got: list[Any] = []

    def read(_: Any = None) -> None:
        port = rigs[0].scripted.port
        got.append(port.get_bus_data(PCI_CONFIGURATION, 0, 0, 4))

    rigs = [make_rig()]
    rig = rigs[0]
    rig.scripted.find = read
    rig.port.start()
    identity = SOME_ADAPTER.vendor.to_bytes(2, "little") + SOME_ADAPTER.device.to_bytes(2, "little")
    assert got == [(4, identity)]
    rig.in_interrupt(read)
    assert got[1] == (0, b"") and rig.found == {"LB-02"}

    def control(control_type: int, parameters: Any) -> int:
        if not control_type:
            parameters[SCSI_STOP_ADAPTER] = parameters[SCSI_SET_RUNNING_CONFIG] = True
        else:
            read()
        return 0

    rig.scripted.control = control
    rig.port.start()
    got.clear()
    rig.port.adapter_control(SCSI_STOP_ADAPTER)
    rig.port.adapter_control(SCSI_SET_RUNNING_CONFIG)
    assert got == [(0, b""), (4, identity)]


def test_bus_data_of_what_is_there_and_is_not(make_rig: MakeRig) -> None:
    seen: dict[str, Any] = {}

    def find(config: Any) -> None:
        port = rigs[0].scripted.port
        bus, slot = config.system_io_bus_number, config.slot_number
        seen["all"] = port.get_bus_data(PCI_CONFIGURATION, bus, slot)
        seen["other slot"] = port.get_bus_data(PCI_CONFIGURATION, bus, 5)
        seen["other bus"] = port.get_bus_data(PCI_CONFIGURATION, 7, slot)
        seen["CMOS"] = port.get_bus_data(CMOS, bus, slot)
        seen["written"] = port.set_bus_data_by_offset(PCI_CONFIGURATION, bus, slot, b"\x40\xff", 0x0C, 1)
        seen["line"] = port.get_bus_data(PCI_CONFIGURATION, bus, slot, 0x0E)[1][0x0C:]
        seen["beyond"] = port.set_bus_data_by_offset(PCI_CONFIGURATION, bus, slot, b"\0" * 8, 0x100, 8)

    rigs = [make_rig()]
    rigs[0].scripted.find = find
    rigs[0].port.start()
    length, config = seen["all"]
    assert length == len(config) == 256
    assert config[:4] == bytes.fromhex("34124248") and config[0x0A:0x0C] == bytes.fromhex("0001")
    assert int.from_bytes(config[0x10:0x14], "little") == MEMORY_BASE
    assert int.from_bytes(config[0x14:0x18], "little") == IO_BASE | 1
    assert seen["other slot"] == (2, b"\xff\xff")
    assert seen["other bus"] == seen["CMOS"] == (0, b"")
    assert seen["written"] == 1 and seen["line"] == b"\x40\x00"
    assert seen["beyond"] == 0


def test_the_board_is_the_adapters() -> None:
    chip = Chip(HeldBus(), None)  # type: ignore[arg-type]  # which reaches no memory here
    chip.identity = Identity(0x15AD, 0x07C0, 0x010700)
    board = board_of(chip)
    assert board is board_of(chip)
    assert board.config_space.read(0, 4) == 0x07C0_15AD
    board.registers.write(SCRATCH, 8, 5)
    board.reset()
    assert board.registers.read(SCRATCH, 8) == 0 and board.config_space.bar_address(0) == MEMORY_BASE
    assert board.at(MEMORY_BASE - 1) is None
