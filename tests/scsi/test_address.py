from __future__ import annotations

import pytest

from hba.scsi.address import parse_unit, unit_name


@pytest.mark.parametrize("written", ["0:3:2", "3:2", "00:03:002"])
def test_an_address_as_it_is_shown_and_without_its_bus(written: str) -> None:
    assert parse_unit(written) == (3, 2)
    assert parse_unit(unit_name(3, 2)) == (3, 2)


def test_a_target_alone_is_its_first_unit() -> None:
    assert parse_unit("7") == (7, 0)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("1:3:2", "an adapter has one bus, 0"),
        ("256", "from 0 to 255"),
        ("0:0:256", "from 0 to 255"),
        ("", "expected BUS:TARGET:LUN, TARGET:LUN or TARGET"),
        ("1:", "is no unit"),
        (":1", "is no unit"),
        ("-1", "is no unit"),
        ("0:0:0:0", "is no unit"),
        ("٣", "is no unit"),
        ("9" * 5000, "is no unit"),
    ],
)
def test_what_is_no_address(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_unit(written)
