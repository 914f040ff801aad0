"""Memory a port gives to its miniport (hba.port.memory): where it lies, whose it is, and that it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from hba.dma import HOST_MEMORY_BASE, LOW_MEMORY_BASE, LOW_MEMORY_END
from hba.miniport.chip import Chip
from hba.port.memory import CHUNK, SENSE_SIZE, PortMemory
from hba.port.request import Request, RequestOf
from hba.scsi.bus import ScsiBus
from hba.srb import Srb
from tests.port.fakes import NoGuest


@pytest.fixture
def memory() -> PortMemory:
    return PortMemory(Chip(ScsiBus(), NoGuest()))


def request() -> Request:
    made: Request = RequestOf(Srb())
    made.srb._port = made
    made.srb.sense_info_buffer_length = 18
    return made


def reached(memory: PortMemory, address: int, length: int) -> bytes:
    """What a bus master finds there."""
    return memory._chip.map(None, [(address, length)], True).read()


def test_areas_are_apart_and_zeroed(memory: PortMemory) -> None:
    (one, at_one), (two, at_two) = memory.allocate(4097), memory.allocate(16)
    assert at_one == HOST_MEMORY_BASE and at_two >= at_one + 4097
    assert bytes(one) == bytes(4097) and bytes(two) == bytes(16)
    one[4096], two[0] = 1, 2
    assert reached(memory, at_one + 4096, 1) == b"\x01" and reached(memory, at_two, 1) == b"\x02"


def test_what_lies_at_an_address(memory: PortMemory) -> None:
    one, at_one = memory.allocate(100)
    _, at_two = memory.allocate(50)
    for offset in (0, 1, 99):
        found = memory.at(at_one + offset)
        assert found is not None and len(found) == 100 - offset
    found = memory.at(at_one + 5)
    assert found is not None
    found[0] = 7
    assert one[5] == 7
    for address in (at_one - 1, at_one + 100, at_two + 50):
        assert memory.at(address) is None
    found = memory.at(at_two + 49)
    assert found is not None and len(found) == 1


def test_where_a_view_lies_however_it_was_sliced(memory: PortMemory) -> None:
    one, at_one = memory.allocate(100)
    two, at_two = memory.allocate(50)
    assert memory.physical_address(one) == (at_one, 100)
    assert memory.physical_address(one[10:20][3:4]) == (at_one + 13, 87)
    assert memory.physical_address(two[49:]) == (at_two + 49, 1)
    for stranger in (one[100:], one.toreadonly(), memoryview(bytearray(100)), memoryview(bytes(one))):
        assert memory.physical_address(stranger) is None


def test_memory_that_is_given_back_is_reached_no_more(memory: PortMemory) -> None:
    one, at_one = memory.allocate(100)
    two, at_two = memory.allocate(100)
    memory.release(one)
    assert memory.at(at_one) is None and memory.physical_address(one) is None
    assert memory.at(at_two) is not None and memory.physical_address(two) == (at_two, 100)
    with pytest.raises(Exception, match="no such memory"):
        reached(memory, at_one, 1)
    assert reached(memory, at_two, 1) == b"\0"


def test_memory_for_an_adapter_of_32_bits(memory: PortMemory) -> None:
    wide, narrow = memory.uncached(64, True), memory.uncached(64, False)
    assert wide is not None and narrow is not None
    assert wide[1] == HOST_MEMORY_BASE and narrow[1] == LOW_MEMORY_BASE
    narrow[0][0] = 5
    assert reached(memory, narrow[1], 1) == b"\x05"
    assert memory.physical_address(narrow[0][1:]) == (narrow[1] + 1, 63)
    assert memory.uncached(LOW_MEMORY_END - LOW_MEMORY_BASE, False) is None  # there is no room


def test_a_boundary_is_not_crossed(memory: PortMemory) -> None:
    memory.allocate(4096)
    _, bus = memory.allocate(8192, 8192)
    assert bus % 8192 == 0
    low = memory.allocate_low(8192, 8192, LOW_MEMORY_BASE + 4096, 0xFFFF_FFFF)
    assert low is not None and low[1] == LOW_MEMORY_BASE + 8192


@pytest.mark.parametrize(("size", "stride"), [(1, 16), (16, 16), (17, 32), (100, 112)])
def test_OW_08_extensions_lie_side_by_side_and_are_lent_in_turn(memory: PortMemory, size: int, stride: int) -> None:
    memory.make_extensions(size)
    pieces = memory.extensions
    assert pieces is not None and memory.lends and pieces.size == size
    requests = [request() for _ in range(CHUNK + 1)]
    lent = [pieces.lend(each) for each in requests]
    addresses = [piece._physical for piece in lent]
    assert addresses[:CHUNK] == [addresses[0] + index * stride for index in range(CHUNK)]
    assert {len(piece) for piece in lent} == {size}
    for each, piece in zip(requests, lent, strict=True):
        piece.memory[size - 1] = 9
        assert reached(memory, piece._physical + size - 1, 1) == b"\x09"
        assert memory.holder(piece._physical, size) is each
        assert memory.holder(piece._physical + size - 1, 1) is each
        assert memory.holder(piece._physical, size + 1) is None
    end = addresses[CHUNK - 1] + stride
    assert not memory.inside_pieces(addresses[0] - 1) and memory.inside_pieces(addresses[0])
    assert memory.inside_pieces(end - 1) and not memory.inside_pieces(end)
    assert memory.holder(addresses[0] - 1, 1) is None and memory.holder(end, 1) is None
    if stride > size:
        assert memory.holder(addresses[0] + size, 1) is None and memory.inside_pieces(addresses[0] + size)
    for piece in lent:
        pieces.give_back(piece)
    assert memory.holder(addresses[0], 1) is None
    # All that are free come before one that was just given back, so that one used too long is noticed.
    again = [pieces.lend(requests[0])._physical for _ in range(2 * CHUNK)]
    assert again[-CHUNK - 1 :] == addresses


def test_OW_08_what_was_lent_is_the_ports_again(memory: PortMemory) -> None:
    memory.make_extensions(32)
    assert memory.extensions is not None
    mine, other = request(), request()
    for each in (mine, other):
        each.extension = memory.extensions.lend(each)
    extension: Any = mine.extension
    extension.task = "a command"
    sense = memory.sense_buffer(mine)
    others_sense = memory.sense_buffer(other)
    none = request()
    memory.take_back([mine, none])
    assert mine.extension is None and not hasattr(extension, "task")
    assert memory.holder(extension._physical, 1) is None and memory.holder(sense._physical, 1) is None
    assert other.extension is not None
    assert memory.holder(other.extension._physical, 1) is other
    assert memory.holder(others_sense._physical, 1) is other


def test_MB_12_a_sense_buffer_becomes_memory_when_it_is_asked_for(memory: PortMemory) -> None:
    assert not memory.lends
    mine, other = request(), request()
    piece = memory.sense_buffer(mine)
    assert memory.lends and memory.sense_buffer(mine) is piece and len(piece) == SENSE_SIZE
    assert memory.sense_buffer(other)._physical == piece._physical + SENSE_SIZE
    assert memory.holder(piece._physical, SENSE_SIZE) is mine and memory.inside_pieces(piece._physical)
    piece.memory[0:3] = b"\x70\0\x05"
    assert bytes(mine.srb.sense_info_buffer)[:3] == b"\x70\0\x05"  # moved there by DMA
    memory.take_back([mine])
    assert memory.holder(piece._physical, 1) is None
    piece.memory[2] = 6
    assert bytes(mine.srb.sense_info_buffer)[:3] == b"\x70\0\x05"  # it has its own by now


def test_without_a_size_there_are_no_extensions(memory: PortMemory) -> None:
    memory.make_extensions(0)
    assert memory.extensions is None and not memory.lends
    assert memory.holder(HOST_MEMORY_BASE, 1) is None and not memory.inside_pieces(HOST_MEMORY_BASE)
    memory.take_back([request()])


def test_a_new_life_begins_without_memory(memory: PortMemory) -> None:
    assert memory.pool == 0
    view, bus = memory.allocate(64)
    low = memory.uncached(64, False)
    assert low is not None
    memory.make_extensions(32)
    mine = request()
    sense = memory.sense_buffer(mine)
    memory.pool = 5
    memory.marked.append((bus, 64))
    memory.clear()
    assert memory.at(bus) is None and memory.physical_address(view) is None
    assert memory.pool == 0 and memory.marked == [] and memory.extensions is None
    assert memory.holder(sense._physical, 1) is None
    assert memory.allocate(16)[1] == HOST_MEMORY_BASE
    assert memory.sense_buffer(mine) is not sense
    again = memory.uncached(64, False)
    assert again is not None and again[1] == LOW_MEMORY_BASE
