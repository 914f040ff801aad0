"""How values are printed."""

from __future__ import annotations

import pytest

from hba.cli import output
from hba.cli.views import regs


def test_sizes_and_times() -> None:
    assert [output.size(value) for value in (0, 512, 1536, 64 << 20, 3 << 40, None)] == [
        "0 B",
        "512 B",
        "1.5 KiB",
        "64.0 MiB",
        "3.0 TiB",
        "-",
    ]
    assert [output.duration(value) for value in (5, 1500, 2_000_000, 3_000_000_000)] == [
        "5 ns",
        "1.5 µs",
        "2.0 ms",
        "3.0 s",
    ]


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "count"), [("a", 5), ("long name", 1000)], indent=0)
    assert capsys.readouterr().out == "NAME       COUNT\na              5\nlong name   1000\n"


def test_an_empty_table_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name",), [])
    assert capsys.readouterr().out == ""


def test_anything_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    output.generic({"a": 1, "b": {"c": [1, 2], "d": None}, "e": [{"x": 1, "y": True}, {"x": 2}], "f": []})
    assert capsys.readouterr().out.splitlines() == [
        "  a  1",
        "  b:",
        "    c  1, 2",
        "  e:",
        "    X  Y",
        "    1  yes",
        "    2  -",
    ]


def test_fields_that_say_something() -> None:
    register = {
        "name": "R",
        "fields": [
            {"name": "A", "value": 0, "meaning": None},
            {"name": "B", "value": 1, "meaning": None},
            {"name": "C", "value": 2, "meaning": "fast"},
            {"name": "D", "value": 300, "meaning": None},
        ],
    }
    assert regs.fields(register) == "B=1 C=2 (fast) D=0x12c"
