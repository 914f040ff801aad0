"""Where the engines answer differently: what each says, row for row of the table in docs/engines.md.

A row that does not hold any more is no defect by itself; the table then tells users something wrong.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected
from hba.vfio_user.device import IoEventFd, RegionInfo
from hba.vfio_user.framing import close_fds
from tests.vfio_user.support import BAR0, BAR1, INTX, MSI, ROM, Bench, bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"
EVENTFD, NONE = dev.IRQ_SET_DATA_EVENTFD, dev.IRQ_SET_DATA_NONE
UNMASK, TRIGGER = dev.IRQ_SET_ACTION_UNMASK, dev.IRQ_SET_ACTION_TRIGGER


class Answer(NamedTuple):
    """An answer: its errno, how long its body is, and how many descriptors came with it."""

    errno: int = 0
    body: int = 0
    fds: int = 0


HANGS_UP = "hangs up"


def ask(it: Bench, command: int, body: bytes = b"", fds: int = 0) -> Answer | str:
    """What the server says to a request with so many eventfds."""
    sent = [os.eventfd(0) for _ in range(fds)]

    def exchange() -> Answer | str:
        try:
            it.client.send(command, body, fds=sent)
            received = it.client.receive()
        except Disconnected:
            return HANGS_UP
        assert received is not None
        header, answer, received_fds = received
        close_fds(received_fds)
        return Answer(header[4], len(answer), len(received_fds))

    try:
        return it.call(exchange)
    finally:
        close_fds(sent)


def dma_map(size: int = 0x1000, flags: int = 3, iova: int = 0) -> bytes:
    return p.DMA_MAP_BODY.encode(p.DmaMap(32, flags, 0, iova, size))


def set_irqs(flags: int, index: int = MSI, start: int = 0, count: int = 1) -> bytes:
    return p.SET_IRQS_BODY.encode(p.SetIrqs(20, flags, index, start, count))


def access(region: int, offset: int, count: int, data: bytes = b"") -> bytes:
    return p.REGION_ACCESS_BODY.struct.pack(offset, region, count) + data


def mapped_before(it: Bench) -> None:
    assert ask(it, p.DMA_MAP, dma_map(0x2000)) == Answer()


def mapped_twice_before(it: Bench) -> None:
    for iova in (0, 0x1000):
        assert ask(it, p.DMA_MAP, dma_map(0x1000, iova=iova)) == Answer()


def region_info(index: int, argsz: int = 4096) -> bytes:
    return p.REGION_INFO_BODY.encode(p.RegionInfoBody(argsz, 0, index, 0, 0, 0))


def io_fds(index: int) -> bytes:
    return p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(4096, 0, index, 0))


def nothing(it: Bench) -> None:
    pass


class Row(NamedTuple):
    """`name` as in the document, the request, and what each engine says to it."""

    name: str
    command: int
    body: bytes
    native: Answer | str
    library: Answer | str
    fds: int = 0
    before: Callable[[Bench], None] = nothing


NO = Answer(errno.EINVAL)
ROWS = [
    Row("unknown command", 999, bytes(4), Answer(errno.ENOSYS), NO),
    Row("REGION_WRITE_MULTI", p.REGION_WRITE_MULTI, p.encode_multi([(0, BAR0, b"abcd")]), Answer(0, 8), NO),
    Row("descriptors where none belong", p.DEVICE_RESET, b"", NO, Answer(), fds=2),
    Row("DMA_MAP, two descriptors", p.DMA_MAP, dma_map(), NO, Answer(errno.ENODEV), fds=2),
    Row("DMA_MAP, overlap", p.DMA_MAP, dma_map(), Answer(errno.EEXIST), NO, before=mapped_before),
    Row("DMA_MAP, the same again", p.DMA_MAP, dma_map(0x2000), Answer(errno.EEXIST), Answer(), before=mapped_before),
    Row("DMA_MAP, beyond the end", p.DMA_MAP, dma_map(0x2000, iova=(1 << 64) - 0x1000), NO, Answer()),
    Row(
        "DMA_UNMAP, several",
        p.DMA_UNMAP,
        p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, 0, 0, 0x2000)),
        Answer(0, 24),
        Answer(errno.ENOENT),
        before=mapped_twice_before,
    ),
    Row("region without bytes", p.DEVICE_GET_REGION_INFO, region_info(2), Answer(0, 32, 1), Answer(0, 32, 0)),
    Row(
        "region info, little room", p.DEVICE_GET_REGION_INFO, region_info(BAR1, 40), Answer(0, 32, 1), Answer(0, 40, 0)
    ),
    Row("region, all of it mappable", p.DEVICE_GET_REGION_INFO, region_info(3), Answer(0, 32, 1), Answer(0, 64, 1)),
    Row("SET_IRQS, unknown flags", p.DEVICE_SET_IRQS, set_irqs(NONE | TRIGGER | 64, INTX), NO, Answer()),
    Row("SET_IRQS, index without vectors", p.DEVICE_SET_IRQS, set_irqs(NONE | TRIGGER, 2, 0, 0), Answer(), NO),
    Row("GET_REGION_IO_FDS, an entry", p.DEVICE_GET_REGION_IO_FDS, io_fds(3), Answer(0, 56, 1), Answer(0, 64, 1)),
    Row("access to no bytes", p.REGION_READ, access(BAR0, 0, 0), Answer(0, 16), Answer()),
    Row("refused access", p.REGION_WRITE, access(ROM, 0, 4, b"abcd"), Answer(errno.EPERM), Answer(errno.EPERM, 16)),
    Row(
        "messages of more than 128 KiB",
        p.REGION_WRITE,
        access(BAR0, 0, 1 << 18, bytes(1 << 18)),
        Answer(0, 16),
        HANGS_UP,
    ),
]


@pytest.fixture
def it(engine: str) -> Iterator[Bench]:
    fd = os.memfd_create("bar")
    infos = {
        BAR1: RegionInfo(0x10000, 7, fd, 0, ((0, 0x1000), (0x4000, 0x2000))),
        2: RegionInfo(0, dev.REGION_MMAP, fd),
        3: RegionInfo(0x1000, 7, fd),
    }
    with bench(engine, infos=infos, io_fds={3: (IoEventFd(0, 4, fd),)}) as the_bench:
        yield the_bench
    os.close(fd)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_says_what_the_table_says(it: Bench, engine: str, row: Row) -> None:
    row.before(it)
    assert ask(it, row.command, row.body, row.fds) == (row.native if engine == "native" else row.library)
    assert f"| {row.name} |" in DOCUMENT.read_text("utf-8")
