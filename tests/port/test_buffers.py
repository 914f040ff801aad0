"""`srb.data_buffer` (hba.port.buffers): its bytes, or what a touch of it gives, from any place in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.dma import DmaBuffer
from hba.port.buffers import POISON, BufferPolicy, ForbiddenAccess, MappedBuffer, OpaqueBuffer, physical_address
from hba.port.request import COMPLETED, ISSUED, NOTIFIED, Request, RequestOf
from hba.srb import Srb

CONTENT = bytes(range(1, 11))


class Touched:
    """A request with ten bytes in three pieces, and what was said of touching them."""

    def __init__(self, poison: bool = False, rule: str = "CF-02") -> None:
        srb = Srb()
        self.dma = DmaBuffer.of(bytearray(CONTENT[:4]), bytearray(CONTENT[4:5]), bytearray(CONTENT[5:]))
        srb.mdl = self.dma
        self.request: Request = RequestOf(srb)
        self.request.state = ISSUED
        self.said: list[tuple[str, str]] = []
        self.policy = BufferPolicy(rule, "that is not mapped", poison, self.report)
        self.opaque = OpaqueBuffer(self.request, self.policy)

    def report(self, rule: str, message: str, request: Request) -> None:
        assert request is self.request
        self.said.append((rule, message))


def test_a_mapped_buffer_from_its_beginning_and_from_further_on() -> None:
    touched = Touched()
    buffer = MappedBuffer(touched.dma, touched.request)
    assert buffer.views is touched.dma.views and len(buffer) == 10
    assert bytes(buffer) == buffer.read() == CONTENT
    assert buffer.read(3) == CONTENT[3:] and buffer.read(3, 4) == CONTENT[3:7] and buffer.read(9, 5) == CONTENT[9:]
    later = buffer + 1 + 2
    assert len(later) == 7 and bytes(later) == CONTENT[3:]
    assert later.read(2) == CONTENT[5:] and later.read(2, 2) == CONTENT[5:7]
    assert b"".join(later.views) == CONTENT[3:]
    assert len(buffer + 10) == 0 and len(buffer + 11) == 0 and bytes(buffer + 10) == b""
    assert later.write(b"ab", 1) == 2 and buffer.write(b"c") == 1 and (buffer + 9).write(b"de") == 1
    assert touched.dma.read() == b"c" + CONTENT[1:4] + b"ab" + CONTENT[6:9] + b"d"


@pytest.mark.parametrize(
    ("state", "rule", "said"),
    [
        (ISSUED, "", []),
        (ISSUED, "CF-08", [("CF-08", "{} of a data buffer that is not mapped")]),
        (NOTIFIED, "", [("OW-01", "{} of a data buffer after its request was completed")]),
        (COMPLETED, "CF-08", [("OW-01", "{} of a data buffer after its request was completed")]),
    ],
)
def test_OW_01_CF_08_a_mapped_buffer_that_is_watched(state: int, rule: str, said: list[tuple[str, str]]) -> None:
    """What is said; the bytes are there in any case."""
    for touch, how in ((bytes, "read"), (lambda it: it.write(b""), "write"), (lambda it: it.views, "use")):
        touched = Touched(rule=rule)
        touched.request.state = state
        touch(MappedBuffer(touched.dma, touched.request, touched.policy) + 1)
        assert touched.said == [(rule, message.format(how)) for rule, message in said]


TOUCHES: list[tuple[Callable[[Any], Any], str, Any]] = [
    (bytes, "read", bytes([POISON]) * 7),
    (lambda it: it.read(), "read", bytes([POISON]) * 7),
    (lambda it: it.read(2), "read", bytes([POISON]) * 5),
    (lambda it: it.read(2, 3), "read", bytes([POISON]) * 3),
    (lambda it: it.read(2, 6), "read", bytes([POISON]) * 5),
    (lambda it: it.read(8), "read", b""),
    (lambda it: it.write(b"abc"), "write", 3),
    (lambda it: it.write(b"abcdefgh"), "write", 7),
    (lambda it: it.write(b"abc", 5), "write", 2),
    (lambda it: it.write(b"abc", 8), "write", 0),
    (len, "len()", 7),
    (lambda it: it[0], "read", POISON),
    (lambda it: it[6], "read", POISON),
    (lambda it: it[-7], "read", POISON),
    (lambda it: it[1:4], "read", bytes([POISON]) * 3),
    (lambda it: it[5:100], "read", bytes([POISON]) * 2),
    (lambda it: list(iter(it)), "read", [POISON] * 7),
    (lambda it: it.__setitem__(0, 1), "write", None),
    (lambda it: [bytes(view) for view in it.views], "use", [bytes([POISON]) * 7]),
]


@pytest.mark.parametrize(("touch", "how", "given"), TOUCHES)
def test_CF_02_a_touch_of_what_is_not_mapped(touch: Callable[[Any], Any], how: str, given: Any) -> None:
    poisoned, refused = Touched(poison=True), Touched()
    result = touch(poisoned.opaque + 1 + 2)
    assert result == given
    said = ("CF-02", f"{how} of a data buffer that is not mapped")
    assert poisoned.said == [said]
    with pytest.raises(ForbiddenAccess, match=r"^CF-02: .* of a data buffer that is not mapped$"):
        touch(refused.opaque + 3)
    assert len(refused.said) == 1
    assert poisoned.dma.read() == refused.dma.read() == CONTENT


@pytest.mark.parametrize("index", [7, 8, -8])
def test_CF_02_beyond_the_end_there_is_nothing_to_touch(index: int) -> None:
    touched = Touched(poison=True)
    with pytest.raises(IndexError, match=str(index)):
        (touched.opaque + 3)[index]
    assert touched.said == []


def test_CF_02_an_address_is_not_null_and_has_nothing_behind_its_end() -> None:
    touched = Touched(poison=True)
    assert touched.opaque and touched.opaque + 10 and touched.said == []
    assert bytes(touched.opaque + 11) == b"" and len(touched.opaque + 10) == 0
    touched.request.srb.mdl = None
    assert bytes(touched.opaque) == b""


def test_CF_02_another_rule_may_be_named() -> None:
    touched = Touched()
    with pytest.raises(ForbiddenAccess, match="MB-10: write"):
        touched.policy.touched("write", touched.request, "MB-10")
    assert touched.said == [("MB-10", "write of a data buffer that is not mapped")]


def test_CF_04_the_list_place_by_place() -> None:
    touched = Touched()
    (first, _), (second, _), (third, _) = touched.dma.segments
    places = [(0, (first, 4)), (3, (first + 3, 1)), (4, (second, 1)), (5, (third, 5)), (9, (third + 4, 1))]
    for offset, found in places:
        assert physical_address(touched.request, touched.dma, offset) == found
    assert physical_address(touched.request, touched.dma, 10) is None
    assert physical_address(touched.request, touched.dma, -1) is None
    touched.request.state = NOTIFIED
    assert physical_address(touched.request, touched.dma, 5) == (third, 5)
    touched.request.state = COMPLETED
    assert physical_address(touched.request, touched.dma, 5) is None
    assert physical_address(touched.request, DmaBuffer([], [], 0), 0) is None
