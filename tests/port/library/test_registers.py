"""GetDeviceBase, the Read and Write routines, config space."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.base import SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG, SCSI_STOP_ADAPTER
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


def test_bus_data_at_its_edges(make_rig: MakeRig) -> None:
    """256 bytes are the most, fewer are what was asked for, and what would go beyond the end is cut off."""
    seen: dict[str, Any] = {}

    def find(config: Any) -> None:
        port = rigs[0].scripted.port
        where = (PCI_CONFIGURATION, config.system_io_bus_number, config.slot_number)
        everything = port.get_bus_data(*where)
        for length in (-1, 0, 1, 255, 256, 257):
            seen[f"read {length}"] = port.get_bus_data(*where, length)
            assert everything[1].startswith(seen[f"read {length}"][1])
        for offset, length in ((0, 2), (0xFC, 8), (0xFF, 8), (0x100, 1), (-1, 2), (0x0C, 0), (0x0C, -1)):
            seen[f"write {offset:#x} {length}"] = port.set_bus_data_by_offset(*where, b"\x55" * 8, offset, length)
        # Fewer bytes than were promised.
        seen["write of nothing"] = port.set_bus_data_by_offset(*where, b"\x66", 0x0C, 4)
        seen["CMOS"] = port.set_bus_data_by_offset(CMOS, *where[1:], b"\x77", 0x0C, 1)
        seen["other bus"] = port.set_bus_data_by_offset(PCI_CONFIGURATION, 1, 0, b"\x77", 0x0C, 1)
        seen["other slot"] = port.set_bus_data_by_offset(PCI_CONFIGURATION, 0, 1, b"\x77", 0x0C, 1)
        seen["kept"] = port.get_bus_data(*where)[1][0x0C]
        seen["vendor"] = port.get_bus_data(*where, 2)[1]

    rigs = [make_rig()]
    rigs[0].scripted.find = find
    rigs[0].port.start()
    assert {name: found[0] for name, found in seen.items() if name.startswith("read")} == {
        "read -1": 256,
        "read 0": 256,
        "read 1": 1,
        "read 255": 255,
        "read 256": 256,
        "read 257": 256,
    }
    assert all(len(found[1]) == found[0] for name, found in seen.items() if name.startswith("read"))
    assert {name: found for name, found in seen.items() if name.startswith("write")} == {
        "write 0x0 2": 2,
        "write 0xfc 8": 4,
        "write 0xff 8": 1,
        "write 0x100 1": 0,
        "write -0x1 2": 0,
        "write 0xc 0": 0,
        "write 0xc -1": 0,
        "write of nothing": 1,
    }
    assert (seen["CMOS"], seen["other bus"], seen["other slot"], seen["kept"]) == (0, 0, 0, 0x66)
    assert seen["vendor"] == SOME_ADAPTER.vendor.to_bytes(2, "little")  # read-only: what was written went nowhere
    assert rigs[0].found == set()


def test_LB_02_bus_data_is_not_written_elsewhere(rig: Rig) -> None:
    """Nor from hw_adapter_control for anything but the two types its page names."""
    port, got = rig.scripted.port, []

    def write(_: Any = None) -> None:
        got.append(port.set_bus_data_by_offset(PCI_CONFIGURATION, 0, 0, b"\x40", 0x0C, 1))

    write()
    rig.in_interrupt(write)

    def control(control_type: int, parameters: Any) -> int:
        if not control_type:
            for known in (SCSI_STOP_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG):
                parameters[known] = True
        else:
            write()
        return 0

    rig.scripted.control = control
    rig.port.start()
    for control_type in (SCSI_STOP_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG):
        rig.port.adapter_control(control_type)
    assert got == [0, 0, 0, 1, 1]
    assert rig.messages("LB-02") == [
        "SetBusDataByOffset from no callback",
        "SetBusDataByOffset from hw_interrupt",
        "SetBusDataByOffset from hw_adapter_control",
    ]


@pytest.mark.parametrize(
    ("start", "length", "io", "good"),
    [
        (MEMORY_BASE, 0x1000, False, True),
        (MEMORY_BASE, 0x1001, False, False),
        (MEMORY_BASE + 0xFFF, 1, False, True),
        (MEMORY_BASE + 0xFFF, 2, False, False),
        (MEMORY_BASE - 1, 1, False, False),
        (MEMORY_BASE, 0, False, False),
        (MEMORY_BASE, 1, False, True),
        (MEMORY_BASE, -1, False, False),
        (MEMORY_BASE, 4, True, False),
        (IO_BASE, 0x100, True, True),
        (IO_BASE, 0x101, True, False),
        (IO_BASE, 4, False, False),
    ],
)
def test_MB_16_what_can_be_mapped(rig: Rig, start: int, length: int, io: bool, good: bool) -> None:
    """All of an assigned range or a part of it, in its own space."""
    base = rig.scripted.port.get_device_base(PCI_BUS, 0, start, length, io)
    assert (base is not None) == good
    space = "I/O" if io else "memory"
    wanted = [] if good else [f"GetDeviceBase of {start:#x}+{length:#x} in {space} space, which was not assigned"]
    assert rig.messages("MB-16") == wanted
    assert rig.scripted.port.validate_range(PCI_BUS, 0, start, length, io)  # obsolete: always TRUE


def test_a_part_of_a_bar_begins_where_it_was_mapped(rig: Rig) -> None:
    """At its first and last bytes; an address is moved in both directions."""
    port = rig.scripted.port
    whole, part = mapped(rig), mapped(rig, MEMORY_BASE + SCRATCH, 8)
    port.write_register_ulong64(part, 0x1122_3344_5566_7788)
    assert port.read_register_ulong64(whole + SCRATCH) == 0x1122_3344_5566_7788
    assert port.read_register_uchar(part + 7) == 0x11
    assert port.read_register_uchar(part + 9 - 2) == 0x11
    assert port.read_register_uchar(part + 7 - 7) == 0x88
    assert rig.found == set()
    assert port.read_register_uchar(part + 8) == port.read_register_uchar(part - 1) == 0xFF
    assert port.read_register_ushort(part + 7) == 0xFFFF
    assert rig.messages("LB-03") == [
        f"read of {size} bytes outside of the mapped range: <registers 0xf0000018+0x8 at offset {offset}>"
        for size, offset in ((1, "0x8"), (1, "-0x1"), (2, "0x7"))
    ]


def test_LB_03_each_reason_is_told(make_rig: MakeRig) -> None:
    bases: list[Any] = []

    def find(config: Any) -> None:
        port = rigs[0].scripted.port
        bases.append(port.get_device_base(PCI_BUS, 0, MEMORY_BASE, 16, False))
        port.free_device_base(bases[0] + 4)
        port.free_device_base(bases[0])
        port.free_device_base(bases[0])
        port.free_device_base(None)

    rigs = [make_rig()]
    rig = rigs[0]
    rig.scripted.find = find
    rig.port.start()
    port = rig.scripted.port
    registers, ports = mapped(rig), mapped(rig, IO_BASE)
    port.write_register_uchar(bases[0], 1)
    port.write_port_uchar(registers, 1)
    port.write_register_uchar(ports, 1)
    port.write_register_uchar(7, 1)
    port.free_device_base(registers)
    assert rig.messages("LB-03") == [
        "write of <registers 0xf0000000+0x10 at offset 0x0>, which was freed",
        "write of <registers 0xf0000000+0x40 at offset 0x0>: use the register routines",
        "write of <ports 0xc000+0x40 at offset 0x0>: use the port routines",
        "write of 7, which is no address GetDeviceBase gave out",
    ]
    assert rig.messages("MB-16") == [
        "FreeDeviceBase of <registers 0xf0000000+0x10 at offset 0x4>, which GetDeviceBase did not return",
        "FreeDeviceBase of <registers 0xf0000000+0x10 at offset 0x0>, which GetDeviceBase did not return",
        "FreeDeviceBase of None, which GetDeviceBase did not return",
        "FreeDeviceBase from no callback",
    ]
    port.write_register_uchar(registers + SCRATCH, 9)  # which was not freed, from no callback
    assert port.read_register_uchar(registers + SCRATCH) == 9
