"""ST-04: what two BuildIos have both written, whichever attribute of the miniport or of its device extension it is."""

from __future__ import annotations

from typing import Any

import pytest

from hba.instruments.verifier.races import CLOSELY, SAMPLE, BuildIoWrites
from hba.miniport.base import Miniport


class Extension:
    def __init__(self) -> None:
        self.last: Any = None
        self.limit = 1000  # an object of its own, and the same for ever


class Bare(Miniport):
    """Without an extension whose attributes could be seen."""

    extension = 5

    def __init__(self) -> None:
        self.last: Any = None


class Full(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.extension = Extension()  # type: ignore[assignment]


def build(writes: BuildIoWrites, number: int, owner: Any, **attributes: object) -> list[tuple[str, int]]:
    writes.begin()
    for name, value in attributes.items():
        setattr(owner, name, value)
    return writes.end(number)


def test_who_wrote_it_first_is_named_once() -> None:
    miniport = Full()
    writes = BuildIoWrites(miniport)
    assert build(writes, 1, miniport) == []
    assert build(writes, 2, miniport, last=object()) == []
    assert build(writes, 2, miniport, last=object(), new=object()) == []  # a busy request is built again
    assert build(writes, 3, miniport.extension, last=object()) == []
    assert build(writes, 4, miniport) == []
    assert build(writes, 5, miniport, last=object(), new=object()) == [("self.last", 2), ("self.new", 2)]
    assert build(writes, 6, miniport, last=object(), new=object()) == []
    assert build(writes, 7, miniport.extension, last=object()) == [("self.extension.last", 3)]
    assert build(writes, 8, miniport.extension, last=object()) == []


def test_without_an_extension_the_miniport_itself_is_watched() -> None:
    miniport = Bare()
    writes = BuildIoWrites(miniport)
    assert build(writes, 1, miniport, last=object()) == []
    assert build(writes, 2, miniport, last=object()) == [("self.last", 1)]


@pytest.mark.parametrize(
    ("number", "due"),
    [
        (1, True),
        (CLOSELY, True),
        (CLOSELY + 1, True),  # two in a row of each sample, and this is the second one
        (CLOSELY + 2, False),
        (CLOSELY + SAMPLE - 1, False),
        (CLOSELY + SAMPLE, True),
        (CLOSELY + SAMPLE + 1, True),
        (CLOSELY + SAMPLE + 2, False),
    ],
)
def test_the_first_are_looked_at_and_then_two_in_a_row_now_and_then(number: int, due: bool) -> None:
    assert BuildIoWrites.due(number) == due
