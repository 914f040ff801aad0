"""BARs: sizes, blocks in them, undefined space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.pci.bars import IO, MEMORY, Bar, MsixLayout, msix_pba, msix_table
from hba.pci.registers import RO, DeclarationError, Register, RegisterBlock
from tests.pci.watching import watching


def two_blocks() -> Bar:
    first = RegisterBlock("FIRST", [Register("A", 0), Register("B", 4)])
    second = RegisterBlock("SECOND", [Register("C", 0, 32, RO, 0x11223344)], 0x10)
    return Bar(0x100, {0x10: first, 0x18: second}, undefined=0xEE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"size": 0}, "power of two"),
        ({"size": 24}, "power of two"),
        ({"size": 8}, "at least 16"),
        ({"size": 2, "space": IO}, "at least 4"),
        ({"size": 512, "space": IO}, "power of two"),
        ({"size": 64, "space": "port"}, "not 'port'"),
        ({"size": 64, "space": IO, "wide": True}, "neither 64-bit nor prefetchable"),
        ({"size": 1 << 32}, "64-bit"),
    ],
)
def test_sizes_pci_does_not_allow(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        Bar(**arguments)


def test_blocks_must_fit_and_not_overlap() -> None:
    block = RegisterBlock("BLOCK", [Register("A", 0)], 0x20)
    bar = Bar(0x40, {0x10: block})
    with pytest.raises(DeclarationError, match="does not fit"):
        bar.place(0x30, block)
    with pytest.raises(DeclarationError, match="overlaps BLOCK"):
        bar.place(0, block)


def test_dispatch_to_blocks_at_their_offsets() -> None:
    bar = two_blocks()
    bar.write(0x14, 4, 7)
    assert bar.blocks[0][1]["B"] == 7
    assert bar.read(0x18, 4) == 0x11223344


def test_an_access_across_blocks_and_undefined_space() -> None:
    bar = two_blocks()
    bar.write(0x10, 8, 0x0000000B_0000000A)
    assert bar.read(0x0E, 0x1C) == int.from_bytes(
        b"\xee\xee" + (0xA).to_bytes(4, "little") + (0xB).to_bytes(4, "little")
        + (0x11223344).to_bytes(4, "little") + bytes(12) + b"\xee\xee",
        "little",
    )  # fmt: skip
    assert bar.undefined_accesses == 1
    bar.write(0x0C, 8, 0xFFFFFFFF_00000000)
    assert bar.read(0x10, 4) == 0xFFFFFFFF


def test_what_is_local() -> None:
    registers = [Register("A", 0, local=True), Register("B", 4), Register("C", 8, access=RO, local=True)]
    bar = Bar(0x100, {0x10: RegisterBlock("FIRST", registers)})
    assert [(at, size) for at in range(0x20) for size in (1, 2, 4, 8) if bar.is_local(at, size)] == [(0x10, 4)]


def test_undefined_space_is_reported() -> None:
    bar = two_blocks()
    seen: list[tuple[str, int, int, int]] = []
    bar.watch(watching(undefined=lambda *what: seen.append(what)))
    assert bar.read(0x80, 4) == 0xEEEEEEEE
    bar.write(0x80, 1, 5)
    assert seen == [("read", 0x80, 4, 0xEEEEEEEE), ("write", 0x80, 1, 5)]


def test_one_block_in_two_bars_is_one_set_of_registers() -> None:
    block = RegisterBlock("SHARED", [Register("A", 0)])
    ports, memory = Bar(0x10, {0: block}, space=IO), Bar(0x1000, {0x100: block}, space=MEMORY)
    ports.write(0, 4, 0x55)
    assert memory.read(0x100, 4) == 0x55


def test_reset_and_decode_reach_every_block() -> None:
    bar = two_blocks()
    bar.write(0x10, 4, 1)
    bar.reset()
    assert bar.read(0x10, 4) == 0
    assert [view["block"] for view in bar.decode()] == ["FIRST", "SECOND"]


def test_msix_layout_limits() -> None:
    for arguments in ((0, 0, 0, 0x800), (2049, 0, 0, 0x10000), (1, 0, 4, 0x800), (1, 0, 0, 0x804)):
        with pytest.raises(DeclarationError):
            MsixLayout(*arguments)


def test_msix_table_starts_masked() -> None:
    table = msix_table(24)
    assert table.size == 24 * 16
    assert table.read(16 * 23 + 12, 4) == 1
    table.write(0, 8, (1 << 64) - 1)
    assert table.read(0, 8) == (1 << 64) - 4


def test_pba_size() -> None:
    assert (msix_pba(64).size, msix_pba(65).size) == (8, 16)


@given(st.data())
def test_any_access_is_answered(data: st.DataObject) -> None:
    bar = two_blocks()
    offset = data.draw(st.integers(0, 0xFF))
    size = data.draw(st.integers(0, 0x100 - offset))
    value = data.draw(st.integers(0, (1 << size * 8) - 1))
    bar.write(offset, size, value)
    assert 0 <= bar.read(offset, size) < 1 << size * 8
