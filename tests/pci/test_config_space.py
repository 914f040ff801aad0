"""Config space and its capabilities: identity, masks, sizing, the linked list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.pci.bars import IO, Bar, MsixLayout
from hba.pci.capabilities import Capability, Msi, Msix, PowerManagement
from hba.pci.config_space import SIZE, ConfigSpace
from hba.pci.identity import Identity
from hba.pci.registers import RO, Access, DeclarationError, Register

IDENTITY = Identity(0x15AD, 0x07C0, 0x010000, 0x15AD, 0x07C0, 2)


def space(rom_size: int = 0) -> ConfigSpace:
    bars = {0: Bar(0x8000), 1: Bar(0x100, space=IO), 2: Bar(1 << 34, wide=True, prefetchable=True)}
    capabilities: list[Capability] = [PowerManagement(), Msi(4), Msix(MsixLayout(24, 0, 0x6000, 0x7000))]
    return ConfigSpace(IDENTITY, bars, capabilities, rom_size=rom_size)


def test_identity_at_the_offsets_of_a_type_0_header() -> None:
    config = space()
    assert config.read(0x00, 4) == 0x07C015AD
    assert config.read(0x08, 4) == 0x01000002
    assert config.read(0x2C, 4) == 0x07C015AD
    assert config.read(0x0E, 1) == 0
    assert config.read(0x3D, 1) == 1
    assert config.read(0x30, 4) == 0


def test_command_keeps_what_pci_allows() -> None:
    config = space()
    config.write(4, 2, 0xFFFF)
    assert config.read(4, 2) == 0x0557


def test_status_bits_are_cleared_by_writing_one() -> None:
    config = space()
    config["STATUS"] |= 0xF900
    config.write(6, 2, 0x2000)
    assert config["STATUS"] == 0xD910
    config.write(4, 4, 0xFFFF0000)
    assert config["STATUS"] == 0x0010


@pytest.mark.parametrize(
    ("offset", "sized"),
    [(0x10, 0xFFFF8000), (0x14, 0xFFFFFF01), (0x18, 0x0000000C), (0x1C, 0xFFFFFFFC), (0x20, 0), (0x24, 0), (0x30, 0)],
)
def test_bar_sizing(offset: int, sized: int) -> None:
    config = space()
    config.write(offset, 4, 0xFFFFFFFF)
    assert config.read(offset, 4) == sized


def test_bar_addresses() -> None:
    config = space()
    config.write(0x10, 4, 0xFEB08000)
    config.write(0x14, 4, 0xC100)
    config.write(0x18, 8, 0x0000_0008_0000_0000)
    assert [config.bar_address(index) for index in (0, 1, 2)] == [0xFEB08000, 0xC100, 0x8_0000_0000]


def test_rom_sizing() -> None:
    config = space(rom_size=0x4000)
    config.write(0x30, 4, 0xFFFFFFFF)
    assert config.read(0x30, 4) == 0xFFFFC001
    with pytest.raises(DeclarationError, match="expansion ROM"):
        space(rom_size=0x3000)


def test_the_list_of_capabilities() -> None:
    config = space()
    assert config.read(6, 2) & 0x10
    found = []
    pointer = config.read(0x34, 1)
    while pointer:
        assert pointer % 4 == 0
        found.append(config.read(pointer, 1))
        pointer = config.read(pointer + 1, 1)
    assert found == [0x01, 0x05, 0x11]


def test_without_capabilities_there_is_no_list() -> None:
    config = ConfigSpace(IDENTITY, {})
    assert config.read(0x34, 1) == 0
    assert not config.read(6, 2) & 0x10


def test_capability_contents() -> None:
    config = space()
    assert config["MSI_CONTROL"] == 0x0084
    assert config["MSIX_CONTROL"] == 23
    assert config["MSIX_TABLE"] == 0x6000
    assert config["MSIX_PBA"] == 0x7000
    assert config["PM_CAPABILITIES"] & 7 == 3
    config.write(config.cell("MSI_CONTROL").register.offset, 2, 0xFFFF)
    assert config["MSI_CONTROL"] == 0x00F5
    config.write(config.cell("MSIX_CONTROL").register.offset, 2, 0xFFFF)
    assert config["MSIX_CONTROL"] == 0xC017


def test_the_extended_space_is_empty() -> None:
    config = space()
    config.write(0x100, 4, 0xFFFFFFFF)
    assert config.read(0x100, SIZE - 0x100) == 0


def test_layouts_that_collide() -> None:
    with pytest.raises(DeclarationError, match="BAR 1 takes index 1, which belongs to BAR 0"):
        ConfigSpace(IDENTITY, {0: Bar(0x1000, wide=True), 1: Bar(0x1000)})
    with pytest.raises(DeclarationError, match="BAR 5 does not exist"):
        ConfigSpace(IDENTITY, {5: Bar(0x1000, wide=True)})
    with pytest.raises(DeclarationError, match="BAR 6 does not exist"):
        ConfigSpace(IDENTITY, {6: Bar(0x1000)})
    with pytest.raises(DeclarationError, match="not 3"):
        Msi(3)

    class Large(Capability):
        name = "LARGE"
        id = 0x09
        length = 0xC1

        def registers(self, base: int) -> list[Register]:
            return []

    with pytest.raises(DeclarationError, match="no room for capability LARGE"):
        ConfigSpace(IDENTITY, {}, [Large()])


def test_power_management_offers_what_it_was_told() -> None:
    d1 = PowerManagement(d1=True)
    assert d1.states == {0, 1, 3}
    assert d1.registers(0x40)[0].reset & (1 << 9 | 1 << 10) == 1 << 9


def test_reset_forgets_what_was_written() -> None:
    config = space()
    before = config.read(0, SIZE)
    config.write(0, SIZE, (1 << SIZE * 8) - 1)
    assert config.read(0, SIZE) != before
    config.reset()
    assert config.read(0, SIZE) == before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x11F), st.binary(min_size=1, max_size=32)), max_size=10))
def test_any_writes_change_only_writable_bits(writes: list[tuple[int, bytes]]) -> None:
    config = space()
    fixed = (1 << SIZE * 8) - 1
    for register in config.registers:
        for kind in Access:
            if kind != RO:
                fixed &= ~(register.masks[kind] << register.offset * 8)
    before = config.read(0, SIZE)
    for offset, data in writes:
        config.write(offset, len(data), int.from_bytes(data, "little"))
    assert config.read(0, SIZE) & fixed == before & fixed
