"""Declared registers: dispatch, access rules, side effects, and declarations that contradict themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.pci.registers import RC, RO, RW, RW1C, RW1S, WO, Access, DeclarationError, Field, Register, RegisterBlock
from tests.pci.watching import watching


def block() -> RegisterBlock:
    return RegisterBlock(
        "TEST",
        [
            Register("COMMAND", 0x00, access=WO, values={3: "SETUP_RINGS"}, doc="Command"),
            Register("STATUS", 0x04, access=RO, reset=0x12345678),
            Register("CAUSE", 0x08, access=RW1C, fields={"DONE": 0, "MESSAGE": (3, 2)}),
            Register("MASK", 0x0C, 32, RW, fields={"LOW": (3, 0), "HIGH": (31, 24)}, reset=0x00550000),
            Register("SET", 0x10, 16, RW1S),
            Register("EVENT", 0x12, 16, RC),
            Register("BYTE", 0x14, 8),
            Register("WIDE", 0x18, 64),
        ],
        0x28,
    )


class TestDeclarations:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"name": "lower"}, "upper case"),
            ({"width": 24}, "width 24"),
            ({"offset": -4}, "negative"),
            ({"width": 8, "reset": 0x100}, "does not fit 8 bits"),
            ({"fields": {"A": 32}}, "bit 32 is outside"),
            ({"fields": {"A": (3, 0), "B": 3}}, "A and B overlap"),
            ({"fields": {"A": (0, 3)}}, r"not \(high, low\)"),
            ({"fields": {"a": 3}}, "upper case"),
            ({"fields": {"A": Field((1, 0), values={4: "four"})}}, "named value 4"),
            ({"width": 8, "values": {256: "big"}}, "does not fit 8 bits"),
            ({"fields": {"A": 0}, "values": {1: "one"}}, "name values at a field"),
        ],
    )
    def test_a_register_that_contradicts_itself(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(DeclarationError, match=says):
            Register(**{"name": "R", "offset": 0, **arguments})

    def test_overlap_names_both(self) -> None:
        with pytest.raises(DeclarationError, match=r"ONE \(0x0..0x3\) and TWO \(0x2..0x3\) overlap"):
            RegisterBlock("B", [Register("ONE", 0), Register("TWO", 2, 16)])

    def test_duplicate_name(self) -> None:
        with pytest.raises(DeclarationError, match="two registers are called ONE"):
            RegisterBlock("B", [Register("ONE", 0), Register("ONE", 4)])

    def test_beyond_the_block(self) -> None:
        with pytest.raises(DeclarationError, match="ends beyond"):
            RegisterBlock("B", [Register("ONE", 4)], 6)

    def test_read_only_and_write_only_may_share_an_offset(self) -> None:
        shared = RegisterBlock("B", [Register("CONTROL", 0, 8, WO), Register("STATE", 0, 8, RO, 0x30)])
        shared.write(0, 1, 0x80)
        assert (shared["CONTROL"], shared["STATE"], shared.read(0, 1)) == (0x80, 0x30, 0x30)
        assert shared.wrong_direction_accesses == shared.undefined_accesses == 0

    def test_unknown_name_suggests(self) -> None:
        with pytest.raises(DeclarationError, match="did you mean STATUS"):
            block()["STATSU"]
        with pytest.raises(DeclarationError, match="did you mean MESSAGE"):
            block().field("CAUSE", "MESAGE")

    def test_handlers_that_could_never_run(self) -> None:
        one = block()
        with pytest.raises(DeclarationError, match="read-only"):
            one.on_write("STATUS", lambda value: None)
        with pytest.raises(DeclarationError, match="write-only"):
            one.on_read("COMMAND", lambda: 0)
        one.on_write("COMMAND", lambda value: None)
        with pytest.raises(DeclarationError, match="already"):
            one.on_write("COMMAND", lambda value: None)
        one.on_read("STATUS", lambda: 0)
        with pytest.raises(DeclarationError, match="already"):
            one.on_read("STATUS", lambda: 0)


class TestAccessKinds:
    def test_write_only_reads_as_zero_and_shows_the_last_value(self) -> None:
        one = block()
        one.write(0, 4, 3)
        assert one.read(0, 4) == 0
        assert one["COMMAND"] == 3
        assert one.wrong_direction_accesses == 1

    def test_read_only_ignores_writes(self) -> None:
        one = block()
        one.write(4, 4, 0)
        assert one.read(4, 4) == 0x12345678
        assert one.wrong_direction_accesses == 1

    def test_write_one_to_clear(self) -> None:
        one = block()
        one["CAUSE"] = 0b1101
        one.write(8, 4, 0b0101)
        assert one["CAUSE"] == 0b1000
        assert one.field("CAUSE", "MESSAGE") == 0b10

    def test_reserved_bits_keep_their_reset_value(self) -> None:
        one = block()
        one.write(0x0C, 4, 0xFFFFFFFF)
        assert one.read(0x0C, 4) == 0xFF55000F
        one.write(0x0C, 4, 0)
        assert one.read(0x0C, 4) == 0x00550000

    def test_write_one_to_set(self) -> None:
        one = block()
        one.write(0x10, 2, 0x0F)
        one.write(0x10, 2, 0xF0)
        assert one.read(0x10, 2) == 0xFF

    def test_reading_clears(self) -> None:
        one = block()
        one["EVENT"] = 0xABCD
        assert one.read(0x12, 2) == 0xABCD
        assert one.read(0x12, 2) == 0

    def test_reading_a_part_clears_that_part(self) -> None:
        one = block()
        one["EVENT"] = 0xABCD
        assert one.read(0x13, 1) == 0xAB
        assert one["EVENT"] == 0xCD

    def test_reset(self) -> None:
        one = block()
        one.write(0x18, 8, 1 << 63)
        one["STATUS"] = 1
        one.reset()
        assert (one["WIDE"], one["STATUS"]) == (0, 0x12345678)

    def test_setting_by_name_is_cut_to_the_width(self) -> None:
        one = block()
        one["BYTE"] = 0x1FF
        assert one["BYTE"] == 0xFF


class TestOddAccesses:
    def test_narrow_write_keeps_the_other_bytes_of_read_write_bits(self) -> None:
        one = block()
        one.write(0x18, 8, 0x1122334455667788)
        one.write(0x1A, 2, 0xAAAA)
        assert one.read(0x18, 8) == 0x11223344AAAA7788
        assert one.wrong_width_accesses == 1

    def test_narrow_write_acknowledges_nothing_else(self) -> None:
        one = RegisterBlock("B", [Register("CAUSE", 0, access=RW1C)])
        one["CAUSE"] = 0xFFFFFFFF
        one.write(1, 1, 0xFF)
        assert one["CAUSE"] == 0xFFFF00FF

    def test_narrow_write_of_a_command_is_zero_extended(self) -> None:
        one = block()
        seen: list[int] = []
        one.on_write("COMMAND", seen.append)
        one.write(0, 4, 0x11111111)
        one.write(1, 1, 0x22)
        assert seen == [0x11111111, 0x2200]

    def test_wide_access_touches_each_register_once_in_order(self) -> None:
        one = RegisterBlock("B", [Register("COMMAND", 0, access=WO), Register("DATA", 4, access=WO)])
        seen: list[tuple[str, int]] = []
        one.on_write("COMMAND", lambda value: seen.append(("COMMAND", value)))
        one.on_write("DATA", lambda value: seen.append(("DATA", value)))
        one.write(0, 8, 0x00000002_00000001)
        assert seen == [("COMMAND", 1), ("DATA", 2)]

    def test_a_read_handler_runs_once_for_a_narrow_read(self) -> None:
        one = block()
        calls: list[int] = []

        @one.on_read("STATUS")
        def status() -> int:
            calls.append(1)
            return 0xAABBCCDD

        assert one.read(5, 2) == 0xBBCC
        assert calls == [1]

    def test_undefined_space(self) -> None:
        one = RegisterBlock("B", [Register("R", 4, 32, RO, 0x01020304)], 0x10, undefined=0xFF)
        seen: list[tuple[str, int, int, int]] = []
        one.watch(watching(undefined=lambda *what: seen.append(what)))
        assert one.read(8, 4) == 0xFFFFFFFF
        assert one.read(2, 4) == 0x0304FFFF
        one.write(0, 2, 0x1234)
        assert seen == [("read", 8, 4, 0xFFFFFFFF), ("read", 2, 4, 0x0304FFFF), ("write", 0, 2, 0x1234)]
        assert one.undefined_accesses == 3

    def test_who_watches_is_told_which_register(self) -> None:
        one = block()
        seen: list[tuple[str, str, int, int, int]] = []

        def wrong(kind: str, register: Register, *rest: int) -> None:
            seen.append((kind, register.name, *rest))

        one.watch(watching(wrong_width=wrong, wrong_direction=wrong))
        one.read(4, 1)
        one.write(4, 4, 9)
        one.read(0, 4)
        one.write(0x18, 4, 7)
        assert seen == [
            ("read", "STATUS", 4, 1, 0x78),
            ("write", "STATUS", 4, 4, 9),
            ("read", "COMMAND", 0, 4, 0),
            ("write", "WIDE", 0x18, 4, 7),
        ]

    def test_watch_sees_every_access_before_it_takes_effect(self) -> None:
        one = block()
        seen: list[tuple[str, str, int]] = []
        one.on_write("COMMAND", lambda value: seen.append(("effect", "COMMAND", value)))
        one.watch(watching(accessed=lambda kind, register, value: seen.append((kind, register.name, value))))
        one.write(0, 4, 1)
        one.read(4, 4)
        assert seen == [("write", "COMMAND", 1), ("effect", "COMMAND", 1), ("read", "STATUS", 0x12345678)]


class TestViews:
    def test_decode_has_no_side_effects_and_is_json(self) -> None:
        one = block()
        one["EVENT"] = 5
        one["COMMAND"] = 3
        one.on_read("STATUS", lambda: pytest.fail("a view must not read"), peek=lambda: 77)
        view = one.decode(base=0x100)
        json.dumps(view)
        registers = view["registers"]
        assert isinstance(registers, list)
        by_name = {item["name"]: item for item in registers}
        assert by_name["EVENT"]["value"] == 5
        assert one["EVENT"] == 5
        assert by_name["STATUS"]["value"] == 77
        assert by_name["COMMAND"]["fields"][0]["meaning"] == "SETUP_RINGS"
        assert by_name["CAUSE"]["offset"] == 0x108
        assert [item["name"] for item in by_name["CAUSE"]["fields"]] == ["MESSAGE", "DONE"]
        assert by_name["CAUSE"]["fields"][0]["bits"] == "3:2"

    def test_counters_by_register(self) -> None:
        one = block()
        one.read(4, 4)
        one.read(5, 1)
        one.write(0, 4, 1)
        assert (one.cell("STATUS").reads, one.cell("COMMAND").writes) == (2, 1)

    def test_document_has_every_register_and_field(self) -> None:
        one = block()
        text = one.document()
        assert text.startswith("## TEST\n")
        for register in one.registers:
            assert f"**{register.name}**" in text
            for name in register.fields:
                assert f"| {name} |" in text
        assert "0x3 SETUP_RINGS" in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert {row.count("|") for row in rows} == {7}

    def test_which_register_is_where(self) -> None:
        one = block()
        assert [
            register and register.name for register in (one.at(6), one.at(0), one.at(0, "write"), one.at(0x24))
        ] == [
            "STATUS",
            None,
            "COMMAND",
            None,
        ]


class ByteModel:
    """Registers as plain bytes with per-bit masks: what any mix of accesses to RW, RO, RW1C and WO bits must give."""

    def __init__(self, one: RegisterBlock) -> None:
        self.size = one.size
        self.value = 0
        self.masks = dict.fromkeys(Access, 0)
        for register in one.registers:
            self.value |= register.reset << register.offset * 8
            for kind, mask in register.masks.items():
                self.masks[kind] |= mask << register.offset * 8

    def write(self, offset: int, size: int, value: int) -> None:
        lanes = ((1 << size * 8) - 1) << offset * 8
        placed = value << offset * 8
        stored = self.masks[RW]
        self.value = (self.value & ~(stored & lanes)) | (placed & stored)
        self.value &= ~(placed & self.masks[RW1C])
        self.value |= placed & self.masks[RW1S]

    def read(self, offset: int, size: int) -> int:
        lanes = ((1 << size * 8) - 1) << offset * 8
        seen = (self.value & lanes & ~self.masks[WO]) >> offset * 8
        self.value &= ~(self.masks[RC] & lanes)
        return seen


ACCESS = st.integers(0, 0x27).flatmap(
    lambda offset: st.integers(1, 0x28 - offset).flatmap(
        lambda size: st.tuples(st.booleans(), st.just(offset), st.just(size), st.integers(0, (1 << size * 8) - 1))
    )
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACCESS, max_size=20))
def test_any_accesses_are_those_of_bytes_with_masks(accesses: list[tuple[bool, int, int, int]]) -> None:
    one = block()
    one["CAUSE"] = 0b1101
    one["EVENT"] = 0xBEEF
    model = ByteModel(one)
    model.value |= 0b1101 << 0x08 * 8 | 0xBEEF << 0x12 * 8
    for is_write, offset, size, value in accesses:
        if is_write:
            one.write(offset, size, value)
            model.write(offset, size, value)
        else:
            assert one.read(offset, size) == model.read(offset, size)
