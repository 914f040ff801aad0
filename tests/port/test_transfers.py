"""Splitting transfers (hba.port.transfers): whatever the list looks like, the parts are the whole."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.dma import DmaBuffer, Segment
from hba.miniport.config import SP_UNINITIALIZED, PortConfigurationInformation
from hba.port.request import RequestOf
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.port.transfers import NO_LIMIT, TransferLimits, pieces
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import READ, WRITE, Rig

BLOCK = 8
PAGE = 4096
Make = Callable[..., Rig]


def placed(*segments: Segment) -> DmaBuffer:
    """A buffer with these bus addresses; its bytes count up, so that a part in the wrong place is seen."""
    length = sum(size for _, size in segments)
    content = bytearray(index % 251 for index in range(length))
    views, start = [], 0
    for _, size in segments:
        views.append(memoryview(content)[start : start + size])
        start += size
    return DmaBuffer(list(segments), views, length)


# -- what an adapter can do in one piece ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "pages"),
    [
        ([(PAGE, 1)], 1),
        ([(PAGE, PAGE)], 1),
        ([(PAGE, PAGE + 1)], 2),
        ([(2 * PAGE - 1, 1)], 1),
        ([(2 * PAGE - 1, 2)], 2),
        ([(PAGE + 1, PAGE)], 2),
        ([(PAGE + 1, 2 * PAGE - 1)], 2),
        ([(PAGE + 1, 2 * PAGE)], 3),
        ([(PAGE, 10), (PAGE + 100, 10)], 2),  # the same page twice counts twice: each element is one more to describe
        ([(PAGE - 2, 4), (8 * PAGE, 3 * PAGE)], 5),
    ],
)
def test_pages_an_element_has_bytes_in(segments: list[Segment], pages: int) -> None:
    data = placed(*segments)
    assert TransferLimits(max_pages=pages).fits(data)
    assert not TransferLimits(max_pages=pages - 1).fits(data)


def test_a_limit_itself_is_allowed() -> None:
    data = placed((PAGE, 100), (3 * PAGE, 28))
    assert TransferLimits().fits(data)
    assert TransferLimits(max_length=128, max_segments=2, max_pages=2).fits(data)
    assert not TransferLimits(max_length=127).fits(data)
    assert not TransferLimits(max_segments=1).fits(data)


def test_room_for_another_element() -> None:
    limits = TransferLimits(max_segments=2, max_pages=3)
    one, two = [(0, 1)], [(0, 1), (PAGE, 1)]
    assert limits.room([], 0, PAGE) == 3 * PAGE
    assert limits.room([], 0, 2 * PAGE - 1) == 2 * PAGE + 1
    assert limits.room(one, 2, PAGE) == PAGE
    assert limits.room(one, 2, PAGE + 5) == PAGE - 5
    assert limits.room(one, 3, PAGE) == 0
    assert limits.room(two, 2, PAGE) == 0


@pytest.mark.parametrize(
    ("max_length", "max_segments", "max_pages", "mask", "sure"),
    [
        (NO_LIMIT, NO_LIMIT, NO_LIMIT, 0, (NO_LIMIT, NO_LIMIT // 4)),
        (65536, 17, NO_LIMIT, 0, (65536, 17)),
        (65536, 17, NO_LIMIT, 3, (-1, 17)),
        (NO_LIMIT, NO_LIMIT, 256, 0, (128 * PAGE, 64)),
        (NO_LIMIT, NO_LIMIT, 7, 0, (3 * PAGE, 1)),
        (NO_LIMIT, NO_LIMIT, 1, 0, (0, 0)),
    ],
)
def test_what_need_not_be_looked_at(
    max_length: int, max_segments: int, max_pages: int, mask: int, sure: tuple[int, int]
) -> None:
    """The way of nearly all requests: two comparisons, which must never let one through that does not fit."""
    limits = TransferLimits(max_length, max_segments, mask, True, max_pages)
    assert (limits.sure_length, limits.sure_segments) == sure


@given(st.integers(1, 40), st.data())
def test_what_need_not_be_looked_at_fits(max_pages: int, data: st.DataObject) -> None:
    limits = TransferLimits(max_pages=max_pages)
    count = data.draw(st.integers(0, limits.sure_segments))
    segments: list[Segment] = []
    left = limits.sure_length
    for index in range(count):
        size = data.draw(st.integers(1, left - (count - index - 1)))
        segments.append(((2 * index + 1) * 64 * PAGE + data.draw(st.integers(0, PAGE - 1)), size))
        left -= size
    assert limits.fits(placed(*segments))


@pytest.mark.parametrize(
    ("options", "breaks", "segments", "pages"),
    [
        (ScsiPortConfig(), SP_UNINITIALIZED, NO_LIMIT, NO_LIMIT),
        (ScsiPortConfig(), 0, 1, NO_LIMIT),
        (ScsiPortConfig(), 16, 17, NO_LIMIT),  # CF-06
        (StorPortConfig(physical_breaks="pages"), 16, NO_LIMIT, 16),  # MB-14
        (StorPortConfig(physical_breaks="pages"), 0, NO_LIMIT, 1),
        (StorPortConfig(physical_breaks="pages"), SP_UNINITIALIZED, NO_LIMIT, NO_LIMIT),
        (StorPortConfig(physical_breaks="elements"), 16, 16, NO_LIMIT),
        (StorPortConfig(physical_breaks="elements"), 1, 1, NO_LIMIT),
        (StorPortConfig(physical_breaks="elements"), 0, 1, NO_LIMIT),
        (StorPortConfig(physical_breaks="breaks"), 16, 17, NO_LIMIT),
    ],
)
def test_CF_06_MB_14_what_number_of_physical_breaks_means(options: Any, breaks: int, segments: int, pages: int) -> None:
    info = PortConfigurationInformation()
    info.number_of_physical_breaks = breaks
    info.maximum_transfer_length = 12345
    info.alignment_mask = 7
    limits = TransferLimits.of(info, options)
    assert (limits.max_segments, limits.max_pages) == (segments, pages)
    assert (limits.max_length, limits.alignment_mask, limits.bounce) == (12345, 7, True)


def test_CF_07_misaligned_is_refused_where_that_was_chosen() -> None:
    info = PortConfigurationInformation()
    assert not TransferLimits.of(info, ScsiPortConfig(misaligned="reject")).bounce


def test_CF_07_every_element_must_be_aligned() -> None:
    limits = TransferLimits(alignment_mask=3)
    assert limits.aligned(placed((PAGE, 8), (2 * PAGE + 4, 8)))
    assert not limits.aligned(placed((PAGE, 8), (2 * PAGE + 2, 8)))
    assert TransferLimits().aligned(placed((PAGE + 1, 1)))


# -- the cuts ---------------------------------------------------------------------------------------------------------


@st.composite
def lists(draw: st.DrawFn) -> DmaBuffer:
    """Whole blocks, in elements that begin and end anywhere in a page; no two are neighbours."""
    lengths = draw(st.lists(st.one_of(st.integers(1, 40), st.integers(1, 3 * PAGE)), min_size=1, max_size=12))
    lengths.append(-sum(lengths) % BLOCK or BLOCK)
    return placed(
        *(((index * 8 + 1) * PAGE + draw(st.integers(0, PAGE - 1)), size) for index, size in enumerate(lengths))
    )


def begin_of(data: DmaBuffer, size: int) -> list[Segment]:
    """Its first `size` bytes."""
    segments: list[Segment] = []
    for address, length in data.segments:
        if not size:
            break
        segments.append((address, min(length, size)))
        size -= segments[-1][1]
    return segments


@given(
    lists(),
    st.one_of(st.integers(BLOCK, 64), st.integers(BLOCK, 4 * PAGE)),
    st.one_of(st.integers(1, 6), st.just(NO_LIMIT)),
    st.one_of(st.integers(1, 6), st.just(NO_LIMIT)),
)
def test_parts_keep_the_limits_and_make_up_the_whole(
    data: DmaBuffer, max_length: int, max_segments: int, max_pages: int
) -> None:
    limits = TransferLimits(max_length, max_segments, max_pages=max_pages)
    parts = pieces(data, BLOCK, limits)
    if parts is None:
        assert min(max_segments, max_pages) < BLOCK  # elements so short that not one block fits
        return
    found = list(parts)
    for part in found:
        assert 0 < part.length <= max_length
        assert part.length % BLOCK == 0
        assert limits.fits(part)
        assert sum(length for _, length in part.segments) == part.length == sum(map(len, part.views))
    assert b"".join(part.read() for part in found) == data.read()
    covered = [segment for part in found for segment in part.segments]
    assert joined(covered) == list(data.segments)
    for part, after in itertools.pairwise(found):  # none of them could have had a block more
        larger = [*part.segments, *begin_of(after, BLOCK)]
        assert not limits.fits(DmaBuffer(larger, [], part.length + BLOCK))


def joined(segments: list[Segment]) -> list[Segment]:
    """The same with what was cut in two in one again."""
    result: list[Segment] = []
    for address, length in segments:
        if result and sum(result[-1]) == address:
            result[-1] = result[-1][0], result[-1][1] + length
        else:
            result.append((address, length))
    return result


def test_a_list_that_cannot_be_cut() -> None:
    data = DmaBuffer.of(*[bytearray(1) for _ in range(16)])
    assert pieces(data, 8, TransferLimits(64, 4)) is None
    assert pieces(data, 8, TransferLimits(64, 7)) is None
    assert pieces(data, 8, TransferLimits(64, 8)) is not None
    assert pieces(data, 5, TransferLimits(5)) is None  # the last of it is no whole block
    assert pieces(data, 8, TransferLimits(7)) is None


def test_as_many_pages_in_each_part() -> None:
    parts = pieces(placed((PAGE, 7 * PAGE)), 512, TransferLimits(max_pages=2))
    assert parts is not None and [part.length for part in parts] == [2 * PAGE, 2 * PAGE, 2 * PAGE, PAGE]


# -- a request in parts -----------------------------------------------------------------------------------------------


def command(opcode: int, lba: int, count: int) -> bytes:
    """A read or write with every other bit of the CDB set that it can have."""
    if opcode in (0x08, 0x0A):
        return bytes((opcode, 0xE0 | lba >> 16)) + (lba & 0xFFFF).to_bytes(2, "big") + bytes((count & 0xFF, 0xC0))
    if opcode in (0x28, 0x2A):
        return bytes((opcode, 0x18)) + lba.to_bytes(4, "big") + b"\x1f" + count.to_bytes(2, "big") + b"\xc0"
    if opcode in (0xA8, 0xAA):
        return bytes((opcode, 0x18)) + lba.to_bytes(4, "big") + count.to_bytes(4, "big") + b"\x9f\xc0"
    return bytes((opcode, 0x18)) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + b"\x9f\xc0"


OPCODES = [0x08, 0x0A, 0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A]


@pytest.mark.parametrize(
    ("lba", "count", "parts"),
    [
        (0x1234, 10, [(0x1234, 4), (0x1238, 4), (0x123C, 2)]),
        (0xFFFC, 8, [(0xFFFC, 4), (0x10000, 4)]),  # a carry
        (0x1F_FFF9, 7, [(0x1F_FFF9, 4), (0x1F_FFFD, 3)]),  # up to the last block READ(6) can name
        (0x12_3456, 256, [(0x12_3456 + first, 4) for first in range(0, 256, 4)]),  # 0 in READ(6)
    ],
)
@pytest.mark.parametrize("opcode", OPCODES)
def test_CF_05_the_commands_of_the_parts(
    rig: Make, opcode: int, lba: int, count: int, parts: list[tuple[int, int]]
) -> None:
    r = rig(maximum_transfer_length=2048, instantly=SRB_STATUS_SUCCESS)
    srb = r.command(cdb=command(opcode, lba, count), size=count * 512)
    assert [r.real(part).cdb for part in r.miniport.started] == [command(opcode, *part) for part in parts]
    assert r.sort_keys() == [first - lba for first, _ in parts]
    assert r.done == [srb]
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, count * 512)
    assert r.port.snapshot()["counters"]["transfers split"] == 1


@pytest.mark.parametrize(
    ("opcode", "last"), [(0x08, (1 << 21) - 1), (0x28, (1 << 32) - 1), (0xA8, (1 << 32) - 1), (0x88, (1 << 64) - 1)]
)
def test_CF_05_no_part_begins_at_block_0_again(rig: Make, opcode: int, last: int) -> None:
    """Behind the last block a command can name there is none it can name: on a disk that is larger the command as a
    whole is right, but its parts cannot be said in the same form."""
    r = rig(maximum_transfer_length=2048, instantly=SRB_STATUS_SUCCESS)
    srb = r.command(cdb=command(opcode, last - 6, 7), size=7 * 512)
    assert srb.srb_status == SRB_STATUS_SUCCESS and len(r.miniport.started) == 2
    srb = r.command(cdb=command(opcode, last - 6, 8), size=8 * 512)
    assert srb.srb_status == SRB_STATUS_INVALID_REQUEST and len(r.miniport.started) == 2


def test_CF_05_a_cdb_need_not_have_its_control_byte(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048, instantly=SRB_STATUS_SUCCESS)
    srb = r.command(cdb=command(0x28, 7, 8)[:9], size=4096)
    assert [r.real(part).cdb for part in r.miniport.started] == [command(0x28, lba, 4)[:9] for lba in (7, 11)]
    assert srb.srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize(
    ("cdb", "size"),
    [
        (bytes((0x12, 0, 0, 0, 255, 0)), 4096),  # no read
        (command(0x28, 0, 0), 4096),  # of no blocks at all
        (command(0x28, 0, 9), 4096),  # of blocks that do not fit the data
        (command(0x28, 0, 0x800)[:8], 4096),  # cut off, so that 8 blocks could be read
        (b"", 4096),
    ],
)
def test_CF_05_what_cannot_be_split_is_refused(rig: Make, cdb: bytes, size: int) -> None:
    r = rig(maximum_transfer_length=2048)
    flags = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_IN
    mdl = DmaBuffer.of(bytearray(size))
    srb = r.submit(cdb=cdb, cdb_length=len(cdb), srb_flags=flags, mdl=mdl, data_transfer_length=size)
    assert r.done == [srb] and r.miniport.started == []
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_INVALID_REQUEST, size)
    assert r.port.snapshot()["counters"] == {"transfers above the limit refused": 1}


def test_CF_06_a_list_too_much_in_pieces_is_refused(rig: Make) -> None:
    """The command could be split, its list cannot: no block lies in so few elements."""
    r = rig(number_of_physical_breaks=3)
    srb = r.command(size=512, mdl=placed(*((at * PAGE, 64) for at in range(8))))
    assert r.done == [srb] and r.miniport.started == []
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_INVALID_REQUEST, 0)


def test_a_part_is_as_the_whole(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048, next="next")
    srb = r.command(
        lun=3,
        key=1000,
        cdb=command(0x28, 5, 8),
        size=4096,
        queue_action=0x22,
        time_out_value=77,
        sense_info_buffer_length=55,
    )
    for key in (1000, 1004):
        part = r.real(r.miniport.held[0])
        assert part is not srb
        assert (part.function, part.path_id, part.target_id, part.lun) == (0, 0, 0, 3)
        assert (part.srb_flags, part.queue_action) == (srb.srb_flags, 0x22)
        assert (part.time_out_value, part.sense_info_buffer_length, part.cdb_length) == (77, 55, 10)
        assert (part.queue_sort_key, part.data_transfer_length) == (key, 2048)
        r.finish()
    assert r.done == [srb]


def test_CF_05_the_part_that_fails_says_how_it_ended(rig: Make) -> None:
    """What was moved before it counts; what comes behind it is not asked for."""
    r = rig(maximum_transfer_length=2048)
    srb = r.command(cdb=read(12), size=6144)
    r.finish()
    r.finish(
        status=SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID,
        scsi_status=SCSISTAT_CHECK_CONDITION,
        data_transfer_length=512,
        sense_info_buffer=b"\x70\0\x03",
    )
    assert r.done == [srb] and len(r.miniport.started) == 2
    assert (srb.scsi_status, srb.data_transfer_length) == (SCSISTAT_CHECK_CONDITION, 2048 + 512)
    assert srb.srb_status == SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN
    assert srb.sense_info_buffer == b"\x70\0\x03"


def test_CF_05_a_part_that_has_sense_data_to_tell_has_not_failed(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048)
    srb = r.command(cdb=read(8), size=4096)
    r.finish(status=SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID)
    r.finish()
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, 4096)


def test_ER_08_the_part_that_is_under_way_is_what_is_aborted(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048, next="lu")
    srb = r.command(cdb=read(8), size=4096)
    r.finish()
    second = r.held()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=srb)
    assert r.held(abort).next_srb is second
    r.finish(second, SRB_STATUS_ABORTED)
    r.finish(abort)
    assert r.done == [srb, abort] and srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_ABORTED


def test_nothing_of_a_request_in_parts_is_left_to_the_collector(rig: Make) -> None:
    """As of any other (`Ledger.complete`): a busy adapter would have it run all the time."""
    r = rig(maximum_transfer_length=2048, verifier="off", traced=False)
    gc.collect()
    gc.disable()
    try:
        before = records()  # of other tests
        srb = r.command(cdb=read(8), size=4096)
        assert len(records()) > len(before)
        for _ in range(2):
            r.finish(r.held())
        assert r.done == [srb]
        r.miniport.started.clear()
        assert len(records()) == len(before)
    finally:
        gc.enable()


def test_CF_05_a_short_part_is_the_end_of_what_was_moved(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048)
    srb = r.command(cdb=read(8), size=4096)
    r.finish()
    r.finish(status=SRB_STATUS_DATA_OVERRUN, data_transfer_length=1)
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_DATA_OVERRUN, 2049)


def records() -> list[object]:
    """Requests there are, those the collector has yet to find as well. (When compiled they have no weak references.)"""
    return [thing for thing in gc.get_objects() if isinstance(thing, RequestOf)]


def read(count: int) -> bytes:
    return command(0x28, 0, count)


# -- copies -----------------------------------------------------------------------------------------------------------


class ByMessage(DmaBuffer):
    """Memory that the client keeps for itself."""

    __slots__ = ("committed",)

    committed: list[int]

    @classmethod
    def at(cls, address: int, size: int) -> ByMessage:
        made = cls([(address, size)], [memoryview(bytearray(size))], size)
        made.committed = []
        return made

    def commit(self, transferred: int) -> None:
        self.committed.append(transferred)


@pytest.mark.parametrize("moved", [512, 100, 0])
def test_CF_07_as_much_comes_back_as_was_moved(rig: Make, moved: int) -> None:
    r = rig(alignment_mask=3)
    guest = ByMessage.at(0x1002, 512)
    srb = r.command(mdl=guest)
    r.real(r.miniport.held[0]).mdl.write(b"\x77" * 512)  # type: ignore[union-attr]
    r.finish(status=SRB_STATUS_DATA_OVERRUN, data_transfer_length=moved)
    assert guest.read() == b"\x77" * moved + bytes(512 - moved)
    assert guest.committed == [moved]
    assert srb.data_transfer_length == moved
    assert r.port.snapshot()["counters"]["misaligned transfers copied"] == 1


def test_CF_07_nothing_comes_back_of_a_write(rig: Make) -> None:
    r = rig(alignment_mask=3)
    guest = ByMessage.at(0x1002, 512)
    guest.write(b"guest's")
    srb = r.command(cdb=WRITE, mdl=guest)
    copy = r.real(r.miniport.held[0]).mdl
    assert copy is not None and copy.read(0, 7) == b"guest's"
    copy.write(b"changed")
    r.finish()
    assert guest.read(0, 7) == b"guest's" and guest.committed == []
    assert srb.data_transfer_length == 512


def test_CF_07_a_read_begins_with_an_empty_copy(rig: Make) -> None:
    """What the guest has there is not shown to the miniport, and costs no copying."""
    r = rig(alignment_mask=3)
    guest = ByMessage.at(0x1002, 512)
    guest.write(b"secret")
    r.command(cdb=READ, mdl=guest)
    assert r.real(r.miniport.held[0]).mdl.read() == bytes(512)  # type: ignore[union-attr]


def test_CF_07_a_copy_is_split_too(rig: Make) -> None:
    r = rig(alignment_mask=3, maximum_transfer_length=2048)
    guest = ByMessage.at(0x1002, 4096)
    r.miniport.on_start = lambda srb: fill(r.real(srb))

    def fill(srb: Srb) -> None:
        assert srb.mdl is not None
        srb.mdl.write(bytes((1 + srb.cdb[5],)) * srb.mdl.length)

    srb = r.command(cdb=read(8), mdl=guest, size=4096)
    r.finish()
    r.finish()
    assert r.done == [srb]
    assert guest.read() == b"\x01" * 2048 + b"\x05" * 2048 and guest.committed == [4096]


@pytest.mark.parametrize(
    ("size", "cdb", "options", "outcome"),
    [
        (2048, bytes((0x12, 0, 0, 8, 0, 0)), {}, "copied"),  # one that cannot be split, and need not be
        (2049, bytes((0x12, 0, 0, 8, 1, 0)), {}, "refused"),
        (2560, command(0x28, 0, 5), {}, "copied"),
        (512, command(0x28, 0, 1), {"misaligned": "reject"}, "refused"),
    ],
)
def test_CF_07_copied_or_refused(rig: Make, size: int, cdb: bytes, options: dict[str, str], outcome: str) -> None:
    r = rig(alignment_mask=3, maximum_transfer_length=2048, instantly=SRB_STATUS_SUCCESS, options=options)
    guest = ByMessage.at(0x1002, size)
    srb = r.command(cdb=cdb, mdl=guest, size=size)
    counters = r.port.snapshot()["counters"]
    assert {name: count for name, count in counters.items() if "misaligned" in name} == {
        f"misaligned transfers {outcome}": 1
    }
    refused = outcome == "refused"
    assert srb.srb_status == (SRB_STATUS_INVALID_REQUEST if refused else SRB_STATUS_SUCCESS)
    assert guest.committed == ([] if refused else [size])
    assert srb.data_transfer_length == size
