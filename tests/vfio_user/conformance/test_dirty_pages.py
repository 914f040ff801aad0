"""VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _STOP and _REPORT, and DMA_UNMAP with a bitmap."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from hba.vfio_user import migrating
from hba.vfio_user import protocol as p
from hba.vfio_user.client import GuestRam, ReplyError
from tests.vfio_user.conformance.rig import Rig

PAGE = 4096
BASE = 0x10 * PAGE


class NoKeeper:
    """Nothing is behind the function that would have to come to rest."""

    def uses(self, iova: int, size: int) -> bool:
        return False

    def rest(self, done: Callable[[str], None], *, force: bool = False, flush: bool = False) -> None:
        done("")

    def release(self) -> None:
        pass

    def save(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        pass


@pytest.fixture
def logged(rig: Rig) -> Iterator[Rig]:
    rig.function.keeper = NoKeeper()
    with GuestRam(0x20 * PAGE, BASE) as ram:
        rig.call(lambda: rig.client.map_ram(ram))
        yield rig


def feature(rig: Rig, number: int, operation: int, data: bytes, argsz: int = 4096) -> bytes:
    body = p.FEATURE_BODY.encode(p.DeviceFeature(argsz, number | operation)) + data
    return rig.call(lambda: rig.client.request(p.DEVICE_FEATURE, body))


def code(function: Callable[[], object]) -> int:
    with pytest.raises(ReplyError) as caught:
        function()
    return caught.value.errno


def start(rig: Rig, page_size: int = PAGE, ranges: tuple[tuple[int, int], ...] = ()) -> int:
    return rig.call(lambda: migrating.start_logging(rig.client, page_size, ranges))


def dirty(rig: Rig, iova: int = BASE, length: int = 0x10 * PAGE, page_size: int = PAGE) -> int:
    pages = rig.call(lambda: migrating.dirty_pages(rig.client, iova, length, page_size))
    return sum(1 << (page - iova) // page_size for page in pages)


def test_what_was_written_is_told_once(logged: Rig) -> None:
    assert start(logged) == PAGE
    assert dirty(logged) == 0
    logged.memory.write(BASE, b"x")
    logged.memory.buffer([(BASE + 6 * PAGE, 4 * PAGE)], True).write(b"y")
    logged.memory.read(BASE + PAGE, 10)
    assert dirty(logged) == 0b1111000001
    assert dirty(logged) == 0


@pytest.mark.parametrize(
    ("first", "count", "bits"),
    [(0, 1, 1), (7, 1, 1 << 7), (0, 8, 0xFF), (0, 9, 0x1FF), (7, 2, 0b11 << 7), (15, 1, 1 << 15), (0, 16, 0xFFFF)],
)
def test_every_bit_is_in_its_place(logged: Rig, first: int, count: int, bits: int) -> None:
    start(logged)
    logged.memory.buffer([(BASE + first * PAGE, count * PAGE)], True)
    assert dirty(logged) == bits


@pytest.mark.parametrize(
    ("page_size", "bits"), [(PAGE // 2, 0b11111111000000000011), (2 * PAGE, 0b11001), (16 * PAGE, 1)]
)
def test_other_page_sizes(logged: Rig, page_size: int, bits: int) -> None:
    start(logged)
    logged.memory.write(BASE, b"x")
    logged.memory.buffer([(BASE + 6 * PAGE, 4 * PAGE)], True)
    assert dirty(logged, page_size=page_size) == bits


def test_a_part_of_a_map_and_a_length_that_is_no_whole_page(logged: Rig) -> None:
    start(logged)
    logged.memory.write(BASE + 3 * PAGE, b"x")
    assert dirty(logged, BASE + 2 * PAGE, PAGE + 1) == 0b10
    logged.memory.write(BASE + 3 * PAGE, b"x")
    assert dirty(logged, BASE + 2 * PAGE, PAGE) == 0


def test_starting_again_keeps_what_was_logged(logged: Rig) -> None:
    start(logged)
    logged.memory.write(BASE, b"x")
    start(logged, ranges=((BASE, PAGE), (0, 1 << 40)))
    assert dirty(logged) == 1


@pytest.mark.parametrize("page_size", [1 << 9, 1 << 16, 1 << 40])
def test_the_page_size_is_ours_to_choose(logged: Rig, page_size: int) -> None:
    assert start(logged, page_size) == PAGE


@pytest.mark.parametrize("page_size", [0, 3, PAGE + 1, (1 << 64) - 1])
def test_page_sizes_that_are_none(logged: Rig, page_size: int) -> None:
    assert code(lambda: start(logged, page_size)) == errno.EINVAL
    start(logged)
    assert code(lambda: dirty(logged, page_size=page_size)) == errno.EINVAL


@pytest.mark.parametrize("ranges", [((0, 0),), (((1 << 64) - 1, 2),)])
def test_ranges_that_are_none(logged: Rig, ranges: tuple[tuple[int, int], ...]) -> None:
    assert code(lambda: start(logged, ranges=ranges)) == errno.EINVAL


def test_fewer_ranges_than_are_said_to_be(logged: Rig) -> None:
    data = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(PAGE, 2, 0)) + p.LOGGING_RANGE.pack(0, PAGE)
    assert code(lambda: feature(logged, p.FEATURE_DMA_LOGGING_START, p.FEATURE_SET, data)) == errno.EINVAL
    data = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(PAGE, 0xFFFFFFFF, 0))
    assert code(lambda: feature(logged, p.FEATURE_DMA_LOGGING_START, p.FEATURE_SET, data)) == errno.EINVAL


def test_nothing_is_logged_before_and_after(logged: Rig) -> None:
    assert code(lambda: dirty(logged)) == errno.EINVAL
    start(logged)
    for _ in range(2):
        logged.call(lambda: migrating.stop_logging(logged.client))
    assert code(lambda: dirty(logged)) == errno.EINVAL
    start(logged)
    assert dirty(logged) == 0


@pytest.mark.parametrize(
    ("iova", "length", "wanted"),
    [
        (0xDEADB000, PAGE, errno.ENOENT),
        (BASE, 0x21 * PAGE, errno.ENOENT),
        (BASE, 0, errno.EINVAL),
        ((1 << 64) - PAGE, 2 * PAGE, errno.EINVAL),
        (BASE + 1, PAGE, errno.EINVAL),
        (0, 1 << 60, errno.EINVAL),  # a bitmap no message holds
    ],
)
def test_ranges_without_a_bitmap(logged: Rig, iova: int, length: int, wanted: int) -> None:
    start(logged)
    report = p.LOGGING_REPORT_BODY.encode(p.LoggingReport(iova, length, PAGE))
    assert code(lambda: feature(logged, p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET, report)) == wanted


def test_no_room_for_the_bitmap_takes_nothing_out_of_it(logged: Rig) -> None:
    start(logged)
    logged.memory.write(BASE, b"x")
    report = p.LOGGING_REPORT_BODY.encode(p.LoggingReport(BASE, 0x10 * PAGE, PAGE))
    flags = p.FEATURE_DMA_LOGGING_REPORT | p.FEATURE_GET
    answer = feature(logged, p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET, report, argsz=39)
    assert answer == p.FEATURE_BODY.encode(p.DeviceFeature(40, flags))
    assert dirty(logged) == 1


def unmap(rig: Rig, iova: int, size: int, page_size: int, bitmap: int, argsz: int | None = None) -> bytes:
    room = 24 + 16 + bitmap if argsz is None else argsz
    body = p.DMA_UNMAP_BODY.encode(p.DmaUnmap(room, p.DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, iova, size))
    body += p.BITMAP_BODY.encode(p.Bitmap(page_size, bitmap))
    return rig.call(lambda: rig.client.request(p.DMA_UNMAP, body))


def test_unmap_tells_what_was_written(logged: Rig) -> None:
    start(logged)
    logged.memory.write(BASE + 2 * PAGE, b"x")
    answer = unmap(logged, BASE, 0x20 * PAGE, PAGE, 8)
    assert len(answer) == 24 + 16 + 8 and answer[40:] == (0b100).to_bytes(8, "little")
    assert logged.memory.maps == []


@pytest.mark.parametrize(
    ("page_size", "bitmap", "argsz"),
    [(0, 8, None), (PAGE, 16, None), (PAGE, 0, None), (PAGE, (1 << 64) - 24, 48), (PAGE, 8, 47)],
)
def test_unmap_with_a_bitmap_that_does_not_fit(logged: Rig, page_size: int, bitmap: int, argsz: int | None) -> None:
    start(logged)
    assert code(lambda: unmap(logged, BASE, 0x20 * PAGE, page_size, bitmap, argsz)) == errno.EINVAL
    assert len(logged.memory.maps) == 1


def test_unmap_with_a_bitmap_that_was_not_logged(logged: Rig) -> None:
    assert code(lambda: unmap(logged, BASE, 0x20 * PAGE, PAGE, 8)) == errno.EINVAL
    assert len(logged.memory.maps) == 1


def test_memory_that_was_unmapped_meanwhile(logged: Rig) -> None:
    start(logged)
    with GuestRam(PAGE) as more:
        logged.call(lambda: logged.client.map_ram(more))
        logged.memory.write(0, b"x")
        logged.call(lambda: logged.client.unmap_ram(more))
    report = p.LOGGING_REPORT_BODY.encode(p.LoggingReport(0, PAGE, PAGE))
    assert code(lambda: feature(logged, p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET, report)) == errno.ENOENT


def test_the_log_ends_with_its_client(logged: Rig) -> None:
    start(logged)
    logged.client.close()
    logged.turn()
    assert logged.memory.log is None
