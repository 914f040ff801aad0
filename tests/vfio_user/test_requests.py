"""Every request: what it does, and every way to get it wrong."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from hba.vfio_user import connection, limits
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected, GuestRam, ReplyError
from hba.vfio_user.device import RegionInfo, RequestError
from hba.vfio_user.libvfio_user import session
from hba.vfio_user.protocol import Capabilities
from tests.descriptors import open_fds
from tests.engines import only_native
from tests.vfio_user.support import (
    BAR0,
    BAR1,
    CONFIG,
    ERR,
    INTX,
    MSI,
    MSIX,
    ROM,
    Bench,
    bench,
    message,
    read_message,
    write_message,
)

NONE, BOOL, EVENTFD = dev.IRQ_SET_DATA_NONE, dev.IRQ_SET_DATA_BOOL, dev.IRQ_SET_DATA_EVENTFD
MASK, UNMASK, TRIGGER = dev.IRQ_SET_ACTION_MASK, dev.IRQ_SET_ACTION_UNMASK, dev.IRQ_SET_ACTION_TRIGGER


@pytest.fixture
def it(engine: str) -> Iterator[Bench]:
    with bench(engine) as the_bench:
        yield the_bench


def refused(it: Bench, command: int, body: bytes = b"", fds: tuple[int, ...] = ()) -> int:
    """The errno of an error reply; the connection stays up, and no descriptor stays open."""
    before = open_fds()
    with pytest.raises(ReplyError) as caught:
        it.call(lambda: it.client.request(command, body, fds=fds))
    assert it.engine.connected
    assert open_fds() == before
    assert it.engine.snapshot()["last_error"]
    return caught.value.errno


# -- negotiation ------------------------------------------------------------------------------------------------------


@only_native
def test_version_answers_what_was_named(engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        assert it.call(it.client.version) == p.OURS
        assert it.device.calls == [("connected",)]
        snapshot = it.engine.snapshot()
        assert snapshot["state"] == "connected"
        assert snapshot["client_capabilities"] == {
            "max_msg_fds": 16,
            "max_data_xfer_size": 1048576,
            "max_dma_maps": 65535,
            "pgsizes": 4096,
            "write_multiple": True,
        }


@only_native
def test_version_without_data(engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        assert it.call(lambda: it.client.version(None)) == Capabilities()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\1\0\0\0{}\0",  # major 1
        b"\0\0\0\0{}",  # no NUL
        b"\0\0\0\0{\0",
        b'\0\0\0\0{"capabilities":{"max_msg_fds":true}}\0',
    ],
)
def test_bad_version_ends_the_connection(body: bytes, engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        it.raw(message(p.VERSION, body))
        ((header, _),) = [(m[0], m[1]) for m in [it.client.receive()] if m is not None]
        assert header[3] == p.TYPE_REPLY | p.ERROR
        assert header[2:5:2] == (16, errno.EINVAL)
        with pytest.raises(Disconnected):
            it.client.receive()
        assert it.device.calls == []
        assert it.engine.snapshot()["last_error"]


@only_native
def test_version_with_a_higher_minor_is_answered_with_ours(engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        reply = it.call(lambda: it.client.request(p.VERSION, p.encode_version(0, 7, None)))
        assert p.decode_version(reply)[:2] == (0, 0)


def test_version_with_descriptors_or_twice(engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        before = open_fds()
        it.raw(message(p.VERSION, bytes(4)), (0, 1))
        with pytest.raises(Disconnected):
            while True:
                it.client.receive()
        assert open_fds() < before  # ours for the connection is closed, and so are those that came
    with bench(engine) as it:
        assert refused(it, p.VERSION, bytes(4)) == errno.EINVAL


@only_native
def test_a_command_before_version(engine: str) -> None:
    with bench(engine, negotiate=False) as it:
        assert refused(it, p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, 0, 4), (0,)) == errno.EINVAL
        it.raw(write_message(BAR0, 0, b"abcd"))
        assert it.device.calls == []
        it.call(it.client.version)
        assert it.device.calls == [("connected",)]


# -- messages in general ----------------------------------------------------------------------------------------------


@only_native
@pytest.mark.parametrize("command", [0, p.DMA_READ, p.DMA_WRITE, 14, 19, 999])
def test_unknown_commands(it: Bench, command: int) -> None:
    assert refused(it, command, b"x" * 40, (0, 1)) == errno.ENOSYS


def test_unknown_flag_bits_of_a_header_are_ignored(it: Bench) -> None:
    it.raw(message(p.DEVICE_RESET, flags=0xFFFFFF00))
    ((header, _),) = it.replies()
    assert header == (77, p.DEVICE_RESET, 16, p.TYPE_REPLY, 0)


@pytest.mark.parametrize("size", [0, 15, p.MAX_MESSAGE + 1])
def test_a_bad_size_ends_the_connection(it: Bench, size: int) -> None:
    it.raw(message(p.DEVICE_RESET, size=size))
    with pytest.raises(Disconnected):
        it.client.receive()
    assert str(size) in str(it.engine.snapshot()["last_error"])
    assert it.device.calls == [("disconnected",)]


@pytest.mark.parametrize("flags", [p.TYPE_REPLY, p.TYPE_REPLY | p.ERROR, 2, 15])
def test_a_reply_nobody_waits_for_ends_the_connection(it: Bench, flags: int) -> None:
    before = open_fds()
    it.raw(message(p.DMA_READ, b"x" * 16, flags=flags), (0,))
    with pytest.raises(Disconnected):
        it.client.receive()
    assert open_fds() < before


@only_native
@pytest.mark.parametrize("command", [p.REGION_READ, p.REGION_WRITE, p.DEVICE_GET_INFO, p.DMA_UNMAP, p.DEVICE_RESET])
def test_descriptors_where_none_belong(it: Bench, command: int) -> None:
    assert refused(it, command, bytes(32), (0, 1)) == errno.EINVAL
    assert it.device.calls == []


@only_native
def test_more_descriptors_than_were_negotiated(it: Bench) -> None:
    body = p.SET_IRQS_BODY.encode(p.SetIrqs(20, EVENTFD | TRIGGER, MSI, 0, 17))
    assert refused(it, p.DEVICE_SET_IRQS, body, (0,) * 17) == errno.EINVAL


@pytest.mark.parametrize(
    "command",
    [
        p.DMA_MAP,
        p.DMA_UNMAP,
        p.DEVICE_GET_INFO,
        p.DEVICE_GET_REGION_INFO,
        p.DEVICE_GET_REGION_IO_FDS,
        p.DEVICE_GET_IRQ_INFO,
        p.DEVICE_SET_IRQS,
        p.REGION_READ,
        p.REGION_WRITE,
        p.REGION_WRITE_MULTI,
    ],
)
def test_a_body_that_is_too_short_or_an_argsz_that_is(it: Bench, command: int) -> None:
    fds = (0,) if command in (p.DMA_MAP, p.DEVICE_SET_IRQS) else ()
    assert refused(it, command, b"\1\0\0\0\0\0\0", fds) == errno.EINVAL
    if command not in (p.REGION_READ, p.REGION_WRITE, p.REGION_WRITE_MULTI):
        assert refused(it, command, b"\x0f\0\0\0" + bytes(28), fds) == errno.EINVAL


def test_many_messages_in_one_send(it: Bench) -> None:
    it.raw(b"".join(write_message(BAR0, 4 * i, bytes([i]) * 4) for i in range(50)) + read_message(BAR0, 0, 200))
    ((header, body),) = it.replies()
    assert header[0] == 79
    assert body[16:] == b"".join(bytes([i]) * 4 for i in range(50))
    assert it.engine.snapshot()["posted"] == 50


def test_a_defect_of_the_device_is_an_error_of_one_request(it: Bench) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    it.device.on_read = broken
    it.device.on_write = broken
    assert refused(it, p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 4)) == errno.EIO
    assert "ZeroDivisionError" in str(it.engine.snapshot()["last_error"])
    assert refused(it, p.REGION_WRITE, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 4) + b"abcd") == errno.EIO
    it.raw(write_message(BAR0, 0, b"abcd"))
    assert it.replies() == []
    assert it.engine.snapshot()["errors"] == 3


# -- DMA maps ---------------------------------------------------------------------------------------------------------


@only_native
def test_dma_map_with_and_without_a_descriptor(it: Bench) -> None:
    with GuestRam(0x4000, 0x10000) as ram:
        it.call(lambda: it.client.map_ram(ram))
        it.call(lambda: it.client.dma_map(0x100000, 0x1000, prot=dev.DMA_READ))
        it.call(lambda: it.client.dma_map(0x200000, 0x1000, fd=ram.fd, offset=0x2000))
        prot, fd, offset = it.device.maps[0x10000, 0x4000]
        assert (prot, offset) == (3, 0)
        assert fd is not None
        assert os.fstat(fd).st_ino == os.fstat(ram.fd).st_ino
        assert not os.get_inheritable(fd)
        assert it.device.maps[0x100000, 0x1000] == (1, None, 0)
        assert it.device.maps[0x200000, 0x1000][2] == 0x2000
        it.call(lambda: it.client.unmap_ram(ram))
        assert len(it.device.maps) == 2
        it.call(it.client.dma_unmap_all)
        assert it.device.maps == {}


@only_native
@pytest.mark.parametrize(
    "request_body",
    [
        p.DmaMap(31, 3, 0, 0, 0x1000),
        p.DmaMap(32, 4, 0, 0, 0x1000),
        p.DmaMap(32, 0x80000003, 0, 0, 0x1000),
        p.DmaMap(32, 3, 0, 0, 0),
        p.DmaMap(32, 3, 0, 0xFFFFFFFFFFFFF000, 0x2000),
        p.DmaMap(32, 3, 0x7FFFFFFFFFFFF000, 0, 0x2000),
    ],
)
def test_dma_map_bad(it: Bench, request_body: p.DmaMap) -> None:
    assert refused(it, p.DMA_MAP, p.DMA_MAP_BODY.encode(request_body), (0,)) == errno.EINVAL
    assert it.device.maps == {}


@only_native
def test_dma_map_two_descriptors(it: Bench) -> None:
    body = p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0, 0x1000))
    assert refused(it, p.DMA_MAP, body, (0, 1)) == errno.EINVAL


@only_native
def test_dma_map_refused_by_the_device(it: Bench) -> None:
    it.call(lambda: it.client.dma_map(0, 0x2000))
    with pytest.raises(ReplyError) as caught:
        it.call(lambda: it.client.dma_map(0x1000, 0x1000))
    assert caught.value.errno == errno.EEXIST


@only_native
def test_dma_map_too_many(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(limits, "dma_maps", lambda: 3)
    with bench(engine) as it:
        assert it.client.capabilities is not None and it.client.capabilities.max_dma_maps == 3
        for i in range(3):
            it.call(lambda at=i << 12: it.client.dma_map(at, 0x1000))  # type: ignore[misc]
        body = p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0x10000, 0x1000))
        assert refused(it, p.DMA_MAP, body, (0,)) == errno.ENOSPC
        it.call(lambda: it.client.dma_unmap(0, 0x1000))
        it.call(lambda: it.client.dma_map(0x10000, 0x1000))
        it.call(it.client.dma_unmap_all)
        it.call(lambda: it.client.dma_map(0x10000, 0x1000))


@only_native
def test_an_unmap_of_several_counts_as_several(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(limits, "dma_maps", lambda: 3)
    with bench(engine) as it:
        for _ in range(10):
            for at in (0, 0x1000, 0x2000):
                it.call(lambda at=at: it.client.dma_map(at, 0x1000))  # type: ignore[misc]
            it.call(lambda: it.client.dma_unmap(0, 0x3000))


@pytest.mark.parametrize(("soft", "hard", "maps"), [(1024, 1 << 20, 4096), (1024, 1024, 512), (100, 100, 64)])
def test_what_is_announced_is_what_can_be_had(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, maps: int) -> None:
    now = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: now.__setitem__(slice(None), both))
    limits.raise_descriptor_limit()
    assert limits.dma_maps() == maps


def test_who_takes_the_only_seat_has_to_say_what_he_is(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(connection, "VERSION_TIMEOUT", 1)
    monkeypatch.setattr(session, "VERSION_TIMEOUT", 1)
    with bench(engine, negotiate=False) as it:
        assert it.engine.connected
        it.turn()
        assert not it.engine.connected
        assert "no VERSION" in str(it.engine.counters.last_error)


@only_native
@pytest.mark.parametrize(
    ("request_body", "code"),
    [
        (p.DmaUnmap(24, 0, 0x1000, 0x1000), errno.ENOENT),
        (p.DmaUnmap(24, p.DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, 0, 0x2000), errno.EINVAL),
        (p.DmaUnmap(24, 4, 0, 0x2000), errno.EINVAL),
        (p.DmaUnmap(24, p.DMA_UNMAP_FLAG_ALL, 0, 0x2000), errno.EINVAL),
        (p.DmaUnmap(23, 0, 0, 0x2000), errno.EINVAL),
    ],
)
def test_dma_unmap_bad(it: Bench, request_body: p.DmaUnmap, code: int) -> None:
    it.call(lambda: it.client.dma_map(0, 0x2000))
    assert refused(it, p.DMA_UNMAP, p.DMA_UNMAP_BODY.encode(request_body)) == code
    assert len(it.device.maps) == 1


# -- questions --------------------------------------------------------------------------------------------------------


def test_device_info(it: Bench) -> None:
    info = it.call(it.client.device_info)
    assert info.num_regions in (9, 10)  # libvfio-user had one for migration until September 2023
    assert info == p.DeviceInfo(16, p.DEVICE_FLAG_PCI | p.DEVICE_FLAG_RESET, info.num_regions, 5)


def test_region_info(it: Bench) -> None:
    assert it.call(lambda: it.client.region_info(CONFIG)) == RegionInfo(4096, 3)
    assert it.call(lambda: it.client.region_info(ROM)) == RegionInfo(4096, 1)
    assert it.call(lambda: it.client.region_info(8)) == RegionInfo()
    body = p.REGION_INFO_BODY.encode(p.RegionInfoBody(32, 0, 10, 0, 0, 0))
    assert refused(it, p.DEVICE_GET_REGION_INFO, body) == errno.EINVAL


def test_region_info_of_a_region_that_can_be_mapped(engine: str) -> None:
    fd = os.memfd_create("bar")
    with bench(engine, infos={BAR1: RegionInfo(0x10000, 7, fd, 0x1000)}) as it:
        info = it.call(lambda: it.client.region_info(BAR1))
        whole = () if engine == "native" else ((0, 0x10000),)  # which comes to the same
        assert (info.size, info.flags & 7, info.offset, info.sparse) == (0x10000, 7, 0x1000, whole)
        assert info.fd is not None
        assert os.fstat(info.fd).st_ino == os.fstat(fd).st_ino
        os.close(info.fd)
    os.close(fd)


@only_native
def test_a_mappable_region_without_a_file_is_a_defect_of_the_device(it: Bench) -> None:
    it.device.infos[BAR1] = RegionInfo(0x10000, 7)
    body = p.REGION_INFO_BODY.encode(p.RegionInfoBody(32, 0, BAR1, 0, 0, 0))
    assert refused(it, p.DEVICE_GET_REGION_INFO, body) == errno.EIO


def test_region_info_with_sparse_areas(engine: str) -> None:
    fd = os.memfd_create("bar")
    areas = ((0x1000, 0x1000), (0x4000, 0x2000))
    with bench(engine, infos={BAR1: RegionInfo(0x10000, 7, fd, 0, areas)}) as it:
        info = it.call(lambda: it.client.region_info(BAR1))
        assert (info.flags, info.sparse) == (15, areas)
        assert info.fd is not None
        os.close(info.fd)
    os.close(fd)


@only_native
def test_region_info_with_too_little_room_for_sparse_areas(engine: str) -> None:
    fd = os.memfd_create("bar")
    with bench(engine, infos={BAR1: RegionInfo(0x10000, 7, fd, 0, ((0x1000, 0x1000), (0x4000, 0x2000)))}) as it:

        def short() -> tuple[bytes, list[int]]:
            body = p.REGION_INFO_BODY.encode(p.RegionInfoBody(32 + 16 + 31, 0, BAR1, 0, 0, 0))
            message_id = it.client.send(p.DEVICE_GET_REGION_INFO, body)
            return it.client.wait_reply(message_id, p.DEVICE_GET_REGION_INFO, max_fds=1)

        body, fds = it.call(short)
        # One byte of room is missing: no capability, but the size that is needed.
        assert p.REGION_INFO_BODY.decode(body) == p.RegionInfoBody(32 + 16 + 32, 15, BAR1, 0, 0x10000, 0)
        assert len(body) == 32
        os.close(fds[0])
    os.close(fd)


def test_region_io_fds_are_not_there(it: Bench) -> None:
    body = p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(4096, 0, BAR0, 0))
    reply = it.call(lambda: it.client.request(p.DEVICE_GET_REGION_IO_FDS, body))
    assert p.REGION_IO_FDS_BODY.decode(reply) == p.RegionIoFds(16, 0, BAR0, 0)
    for bad in (p.RegionIoFds(16, 1, 0, 0), p.RegionIoFds(16, 0, 0, 1), p.RegionIoFds(16, 0, 9, 0)):
        assert refused(it, p.DEVICE_GET_REGION_IO_FDS, p.REGION_IO_FDS_BODY.encode(bad)) == errno.EINVAL


@only_native
def test_irq_info(it: Bench) -> None:
    assert it.call(lambda: it.client.irq_info(INTX)) == it.device.irqs[INTX]
    assert it.call(lambda: it.client.irq_info(MSIX)) == dev.IrqInfo()
    body = p.IRQ_INFO_BODY.encode(p.IrqInfoBody(16, 0, 5, 0))
    assert refused(it, p.DEVICE_GET_IRQ_INFO, body) == errno.EINVAL


# -- interrupts -------------------------------------------------------------------------------------------------------


@only_native
def test_set_irqs_eventfds_in_order(it: Bench) -> None:
    eventfds = [os.eventfd(0) for _ in range(20)]
    it.call(lambda: it.client.set_eventfds(MSI, eventfds))
    assert it.device.calls == [
        ("irqs", MSI, EVENTFD | TRIGGER, 0, 16, 16, b""),
        ("irqs", MSI, EVENTFD | TRIGGER, 16, 4, 4, b""),
    ]
    for number, fd in enumerate(it.device.fds):
        os.eventfd_write(fd, number + 1)
    assert [os.eventfd_read(fd) for fd in eventfds] == list(range(1, 21))
    for fd in eventfds:
        os.close(fd)


@only_native
@pytest.mark.parametrize(
    ("index", "flags", "start", "count", "data"),
    [
        (INTX, EVENTFD | TRIGGER, 0, 1, b""),  # takes the eventfd away
        (INTX, NONE | TRIGGER, 0, 0, b""),  # disables
        (INTX, NONE | TRIGGER, 0, 1, b""),
        (INTX, NONE | MASK, 0, 1, b""),
        (INTX, NONE | UNMASK, 0, 1, b""),
        (INTX, BOOL | UNMASK, 0, 1, b"\1"),
        (MSI, BOOL | TRIGGER, 30, 2, b"\1\0"),
        (MSIX, NONE | TRIGGER, 0, 0, b""),
    ],
)
def test_set_irqs_without_eventfds(it: Bench, index: int, flags: int, start: int, count: int, data: bytes) -> None:
    it.call(lambda: it.client.set_irqs(index, flags, start, count, data=data))
    assert it.device.calls == [("irqs", index, flags, start, count, 0, data)]


def test_set_irqs_resample_eventfd(it: Bench) -> None:
    it.call(lambda: it.client.set_irqs(INTX, EVENTFD | UNMASK, 0, 1, eventfds=[0]))
    assert it.device.calls == [("irqs", INTX, EVENTFD | UNMASK, 0, 1, 1, b"")]


@only_native
@pytest.mark.parametrize(
    ("index", "flags", "start", "count", "data", "fds"),
    [
        (5, NONE | TRIGGER, 0, 0, b"", 0),  # no such index
        (INTX, 0, 0, 1, b"", 0),
        (INTX, NONE, 0, 1, b"", 0),
        (INTX, TRIGGER, 0, 1, b"", 0),
        (INTX, NONE | BOOL | TRIGGER, 0, 1, b"", 0),
        (INTX, NONE | TRIGGER | MASK, 0, 1, b"", 0),
        (INTX, NONE | TRIGGER | 64, 0, 1, b"", 0),
        (INTX, NONE | TRIGGER, 0, 2, b"", 0),
        (INTX, NONE | TRIGGER, 1, 1, b"", 0),
        (MSI, NONE | TRIGGER, 0xFFFFFFFF, 0xFFFFFFFF, b"", 0),
        (MSI, NONE | TRIGGER, 1, 0, b"", 0),
        (INTX, NONE | MASK, 0, 0, b"", 0),
        (INTX, BOOL | TRIGGER, 0, 0, b"", 0),
        (INTX, EVENTFD | TRIGGER, 0, 0, b"", 0),
        (INTX, BOOL | TRIGGER, 0, 1, b"", 0),
        (INTX, NONE | TRIGGER, 0, 1, b"", 1),
        (INTX, BOOL | TRIGGER, 0, 1, b"\1", 1),
        (INTX, EVENTFD | TRIGGER, 0, 1, b"", 2),
        (MSI, EVENTFD | TRIGGER, 0, 3, b"", 2),
        (MSI, NONE | MASK, 0, 1, b"", 0),
        (ERR, NONE | UNMASK, 0, 1, b"", 0),
    ],
)
def test_set_irqs_bad(it: Bench, index: int, flags: int, start: int, count: int, data: bytes, fds: int) -> None:
    body = p.SET_IRQS_BODY.encode(p.SetIrqs(20 + len(data), flags, index, start, count)) + data
    assert refused(it, p.DEVICE_SET_IRQS, body, (0,) * fds) == errno.EINVAL
    assert it.device.calls == []


@only_native
def test_set_irqs_refused_by_the_device(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RequestError(errno.EBUSY, "not now")

    monkeypatch.setattr(it.device, "set_irqs", refuse)
    with pytest.raises(ReplyError) as caught:
        it.call(lambda: it.client.set_irqs(INTX, NONE | TRIGGER, 0, 1))
    assert caught.value.errno == errno.EBUSY


# -- regions ----------------------------------------------------------------------------------------------------------


def test_the_whole_config_space_in_one_read(it: Bench) -> None:
    assert it.call(lambda: it.client.region_read(CONFIG, 0, 4096)) == bytes(it.device.bytes[CONFIG])


@only_native
def test_a_megabyte_both_ways(it: Bench) -> None:
    data = os.urandom(1 << 20)
    it.call(lambda: it.client.region_write(BAR0, 0, data))
    assert it.call(lambda: it.client.region_read(BAR0, 0, 1 << 20)) == data


def test_writes_posted_and_not(it: Bench) -> None:
    it.call(lambda: it.client.region_write(BAR0, 8, b"sync"))
    it.call(lambda: it.client.region_write(BAR0, 16, b"post", posted=True))
    assert it.call(lambda: it.client.region_read(BAR0, 8, 12)) == b"sync\0\0\0\0post"


def test_the_reply_to_a_write_repeats_the_access(it: Bench) -> None:
    it.raw(write_message(BAR0, 8, b"abcd", posted=False))
    assert it.replies() == [((78, p.REGION_WRITE, 32, p.TYPE_REPLY, 0), p.REGION_ACCESS_BODY.struct.pack(8, BAR0, 4))]


@pytest.mark.parametrize(
    ("region", "offset", "count", "code"),
    [
        (9, 0, 4, errno.EINVAL),
        (0xFFFFFFFF, 0, 4, errno.EINVAL),
        (CONFIG, 4096, 1, errno.EINVAL),
        (CONFIG, 4094, 4, errno.EINVAL),
        (CONFIG, 0xFFFFFFFFFFFFFFFF, 4, errno.EINVAL),
        (BAR1, 0, 4, errno.EINVAL),  # size 0
        (BAR0, 0, (1 << 20) + 1, errno.EINVAL),
        (BAR0, 0, 0xFFFFFFFF, errno.EINVAL),
    ],
)
def test_accesses_outside(it: Bench, region: int, offset: int, count: int, code: int) -> None:
    head = p.REGION_ACCESS_BODY.struct.pack(offset, region, count)
    assert refused(it, p.REGION_READ, head) == code
    if count <= 4:
        assert refused(it, p.REGION_WRITE, head + b"abcd"[:count]) == code
        it.raw(write_message(region, offset, b"abcd"[:count]))
        assert it.replies() == []  # a reply to a posted write would end the connection at the other side
    assert it.device.calls == []


def test_a_read_only_region(it: Bench) -> None:
    assert it.call(lambda: it.client.region_read(ROM, 0, 4)) == b"ROM!"
    assert refused(it, p.REGION_WRITE, p.REGION_ACCESS_BODY.struct.pack(0, ROM, 4) + b"abcd") == errno.EPERM


@pytest.mark.parametrize("data", [b"", b"abc", b"abcde"])
def test_a_write_whose_count_is_not_its_data(it: Bench, data: bytes) -> None:
    body = p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 4) + data
    assert refused(it, p.REGION_WRITE, body) == errno.EINVAL
    it.raw(message(p.REGION_WRITE, body, flags=p.NO_REPLY))
    assert it.replies() == []
    assert it.device.calls == []


@only_native
def test_nothing_to_transfer(it: Bench) -> None:
    assert it.call(lambda: it.client.region_read(BAR0, 0, 0)) == b""
    it.call(lambda: it.client.region_write(BAR0, 0, b""))
    it.raw(write_message(BAR0, 0, b""))
    assert it.device.calls == []


def test_a_read_that_wants_no_reply_gets_none(it: Bench) -> None:
    it.raw(message(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 4), flags=p.NO_REPLY))
    assert it.replies() == []
    assert it.engine.connected


def test_a_device_that_gives_too_little(it: Bench) -> None:
    it.device.bytes[BAR0] = bytearray(2)
    assert refused(it, p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 4)) == errno.EIO


@only_native
def test_write_multi(it: Bench) -> None:
    writes = [(0, BAR0, b"abcd"), (0x10, CONFIG, b"12345678"), (4, BAR0, b"efgh"), (9, BAR0, b"")]
    it.call(lambda: it.client.write_multi(writes))
    it.call(lambda: it.client.write_multi(writes[:1], posted=False))
    assert it.device.calls == [
        ("write", BAR0, 0, b"abcd"),
        ("write", CONFIG, 0x10, b"12345678"),
        ("write", BAR0, 4, b"efgh"),
        ("write", BAR0, 0, b"abcd"),
    ]
    reply = it.call(lambda: it.client.request(p.REGION_WRITE_MULTI, p.encode_multi(writes)))
    assert p.MULTI_COUNT.unpack(reply) == (4,)


def test_write_multi_with_one_bad_write_does_nothing(it: Bench) -> None:
    body = p.encode_multi([(0, BAR0, b"abcd"), (4096, CONFIG, b"a")])
    assert refused(it, p.REGION_WRITE_MULTI, body) == errno.EINVAL
    assert it.device.calls == []


def test_reset(it: Bench) -> None:
    it.call(it.client.reset)
    assert it.device.calls == [("reset",)]
    it.raw(message(p.DEVICE_RESET, flags=p.NO_REPLY))
    assert it.device.calls == [("reset",)] * 2
    assert it.replies() == []


def test_the_snapshot_counts(it: Bench, engine: str) -> None:
    it.call(lambda: it.client.region_read(BAR0, 0, 4))
    it.raw(write_message(BAR0, 0, b"abcd"))
    it.raw(message(99))
    snapshot = it.engine.snapshot()
    assert snapshot["requests"] == {"VERSION": 1, "REGION_READ": 1, "REGION_WRITE": 1}
    assert snapshot["unknown_requests"] == 1
    assert snapshot["posted"] == 1
    assert snapshot["errors"] == 1
    said = "command 99 is not served" if engine == "native" else "no payload for cmd99"
    assert said in str(snapshot["last_error"])
