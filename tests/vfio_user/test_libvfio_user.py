"""What is the library's engine's own: memory it maps, interrupts through it, what it never gets to see."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.clock import S, VirtualClock
from hba.loop import EventLoop
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected, GuestRam, ReplyError, VfioUserClient
from hba.vfio_user.connection import VERSION_TIMEOUT
from hba.vfio_user.device import IoEventFd
from hba.vfio_user.libvfio_user import incoming
from hba.vfio_user.mappings import mapped_at
from hba.vfio_user.sharing import Sharing
from tests.descriptors import open_fds
from tests.engines import require
from tests.vfio_user.support import (
    BAR0,
    ENGINES,
    INTX,
    MSI,
    Bench,
    FakeDevice,
    bench,
    message,
    write_message,
)

NONE, BOOL, EVENTFD = dev.IRQ_SET_DATA_NONE, dev.IRQ_SET_DATA_BOOL, dev.IRQ_SET_DATA_EVENTFD
MASK, UNMASK, TRIGGER = dev.IRQ_SET_ACTION_MASK, dev.IRQ_SET_ACTION_UNMASK, dev.IRQ_SET_ACTION_TRIGGER
BASE = 0x10000


@pytest.fixture(autouse=True)
def library() -> None:
    require("libvfio-user")


@pytest.fixture
def it() -> Iterator[Bench]:
    with bench("libvfio-user") as the_bench:
        yield the_bench


# -- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_the_clients_own(it: Bench) -> None:
    with GuestRam(0x4000, BASE) as ram:
        it.call(lambda: it.client.map_ram(ram))
        it.call(lambda: it.client.dma_map(0x100000, 0x1000, fd=ram.fd, offset=0x2000, prot=dev.DMA_READ))
        it.call(lambda: it.client.dma_map(0x200000, 0x1000))
        assert it.device.maps == {
            (BASE, 0x4000): (3, None, 0),
            (0x100000, 0x1000): (1, None, 0),
            (0x200000, 0x1000): (3, None, 0),
        }
        whole, part = it.device.mapped[BASE, 0x4000], it.device.mapped[0x100000, 0x1000]
        assert (BASE + 0x100000, 0x1000) not in it.device.mapped
        ram.view[0x2000:0x2004] = b"here"
        assert whole[0x2000:0x2004] == part[:4] == b"here"
        whole[:5] = b"there"
        assert ram.view[:5] == b"there"
        it.call(lambda: it.client.unmap_ram(ram))
        assert list(it.device.mapped) == [(0x100000, 0x1000)]
        # A request in flight: the library has unmapped it, and its views are as good as before.
        assert whole[0x2000:0x2004] == b"here"
        whole[:5] = b"still"
        assert ram.view[:5] == b"still"
        it.call(it.client.dma_unmap_all)
        assert it.device.maps == {}


def test_a_file_smaller_than_its_map_is_reached_by_message(it: Bench) -> None:
    with GuestRam(0x1000, BASE) as ram:
        it.call(lambda: it.client.dma_map(BASE, 0x3000, fd=ram.fd))
        assert it.device.mapped == {}
        assert list(it.device.maps) == [(BASE, 0x3000)]
        assert "smaller than the map" in str(it.engine.snapshot()["last_error"])


def test_a_client_that_maps_privately_is_reached_by_message(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client is this process, as is the library, whose mapping is shared.
    def told(asked: Sharing, address: int) -> bool:
        file = mapped_at(address)
        return file is not None and file.path.startswith("/memfd:guest-ram")

    monkeypatch.setattr(Sharing, "is_private_at", told)
    with GuestRam(0x1000, BASE) as ram:
        it.call(lambda: it.client.map_ram(ram))
        assert it.device.mapped == {}
        assert list(it.device.maps) == [(BASE, 0x1000)]


# -- interrupts -------------------------------------------------------------------------------------------------------


def test_interrupts_go_through_the_library(it: Bench) -> None:
    eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(20)]
    it.call(lambda: it.client.set_eventfds(MSI, eventfds))
    for vector in range(20):
        wire = it.device.wires[MSI, vector]
        assert wire is not None
        for _ in range(vector + 1):
            wire.trigger()
    assert [os.eventfd_read(fd) for fd in eventfds] == list(range(1, 21))
    it.call(lambda: it.client.set_irqs(MSI, EVENTFD | TRIGGER, 0, 2))  # takes two away
    assert [it.device.wires[MSI, vector] is None for vector in range(3)] == [True, True, False]
    it.device.calls.clear()
    it.call(lambda: it.client.disable_irqs(MSI))
    assert it.device.calls == [("irqs", MSI, NONE | TRIGGER, 0, 0, 0, b"")]
    with pytest.raises(OSError) as caught:
        wire.trigger()
    assert caught.value.errno == errno.ENOENT
    assert it.engine.snapshot()["errors"] == 0
    for fd in eventfds:
        os.close(fd)


@pytest.mark.parametrize("flags", [NONE | MASK, NONE | UNMASK, BOOL | MASK])
def test_masking_is_told_to_the_device(it: Bench, flags: int) -> None:
    data = b"\1" if flags & BOOL else b""
    it.call(lambda: it.client.set_irqs(INTX, flags, 0, 1, data=data))
    assert it.device.calls == [("irqs", INTX, flags, 0, 1, 0, data)]


def test_a_resample_eventfd_reaches_the_device_though_the_library_drops_it(it: Bench) -> None:
    eventfd = os.eventfd(0)
    it.call(lambda: it.client.set_irqs(INTX, EVENTFD | UNMASK, 0, 1, eventfds=[eventfd]))
    assert it.device.calls == [("irqs", INTX, EVENTFD | UNMASK, 0, 1, 1, b"")]
    os.eventfd_write(eventfd, 7)
    assert os.eventfd_read(it.device.fds[0]) == 7
    os.close(eventfd)


def test_what_the_library_refuses_does_not_reach_the_device(it: Bench) -> None:
    eventfd = os.eventfd(0)
    before = open_fds()
    with pytest.raises(ReplyError):
        it.call(lambda: it.client.set_irqs(INTX, EVENTFD | TRIGGER, 0, 1, eventfds=[eventfd] * 2))
    assert it.device.calls == []
    assert open_fds() == before
    os.close(eventfd)


def test_neither_a_full_eventfd_nor_one_that_is_none_holds_anybody_up(it: Bench) -> None:
    full = os.eventfd(0)
    os.eventfd_write(full, (1 << 64) - 2)
    near, far = os.pipe()
    it.call(lambda: it.client.set_irqs(MSI, EVENTFD | TRIGGER, 0, 2, eventfds=[full, far]))
    wire = it.device.wires[MSI, 0]
    assert wire is not None
    with pytest.raises(BlockingIOError):
        wire.trigger()
    assert it.device.wires[MSI, 1] is None
    for fd in (full, near, far):
        os.close(fd)


def test_writes_that_may_come_as_events() -> None:
    eventfds = [os.eventfd(0), os.eventfd(0)]
    offered = (IoEventFd(0x10, 4, eventfds[0]), IoEventFd(0x40, 8, eventfds[1]))
    with bench("libvfio-user", io_fds={BAR0: offered}) as it:
        body = p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(4096, 0, BAR0, 0))
        message_id = it.client.send(p.DEVICE_GET_REGION_IO_FDS, body)
        answer, fds = it.call(lambda: it.client.wait_reply(message_id, p.DEVICE_GET_REGION_IO_FDS, max_fds=2))
        told = p.REGION_IO_FDS_BODY.decode(answer)
        each = (told.argsz - p.REGION_IO_FDS_BODY.size) // told.count
        parts = [p.SUB_REGION_BODY.decode(answer[p.REGION_IO_FDS_BODY.size + each * at :]) for at in range(told.count)]
        assert {(part.offset, part.size) for part in parts} == {(0x10, 4), (0x40, 8)}
        for part in parts:
            os.eventfd_write(fds[part.fd_index], 3)
            os.close(fds[part.fd_index])
        assert [os.eventfd_read(fd) for fd in eventfds] == [3, 3]
        assert it.engine.counters.bytes_sent == it.client._stream.received
    for fd in eventfds:
        os.close(fd)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_what_is_counted_is_what_went_over_the_wire(it: Bench) -> None:
    with GuestRam(0x2000, BASE) as ram:
        client = it.client
        it.call(lambda: client.map_ram(ram, shared=False))
        done: list[bytes] = []

        def on_write(region: int, offset: int, data: bytes) -> None:
            assert it.device.client is not None
            done.append(it.device.client.dma_read(BASE, 3))

        it.call(client.device_info)
        it.call(lambda: [client.region_info(index) for index in range(9)])
        it.call(lambda: client.irq_info(MSI))
        it.call(lambda: client.disable_irqs(INTX))
        it.call(lambda: client.region_read(BAR0, 0, 100))
        it.device.on_write = on_write
        it.kick(lambda: len(done) == 1)

        def answered_before_it_is_done() -> None:
            client.region_write(BAR0, 0, b"abcd")
            while len(done) < 2:
                client.poll()

        it.call(answered_before_it_is_done)
        it.call(client.reset)
        for bad in (message(99, bytes(4)), write_message(BAR0, 1 << 20, b"abcd", posted=False)):
            it.raw(bad)
        it.raw(write_message(6, 0, b"abcd", posted=False))
        it.replies()
        it.call(lambda: client.unmap_ram(ram))
    assert it.engine.counters.bytes_sent == client._stream.received


def test_a_second_socket_is_not_taken_up() -> None:
    """The library would: and DMA by message would then wait for ever for who does not answer."""
    with bench("libvfio-user", negotiate=False) as it:
        data = b'{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true}}}\0'
        reply = it.call(lambda: it.client.request(p.VERSION, bytes(4) + data))
        assert b"twin_socket" not in reply
        assert it.device.calls == [("connected",)]


def test_a_message_in_pieces_is_carried_out_when_it_is_whole(it: Bench) -> None:
    whole = write_message(BAR0, 0, bytes(range(200)), posted=False)
    for start, end in ((0, 10), (10, 40), (40, 41)):
        it.raw(whole[start:end])
        assert it.device.calls == []
    it.client.send_raw(whole[41:])
    it.call(it.client.receive)
    assert it.device.calls == [("write", BAR0, 0, bytes(range(200)))]


def test_the_rest_of_a_message_is_not_waited_for_for_ever() -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    device = FakeDevice()
    ours, theirs = socket.socketpair()
    server = ENGINES["libvfio-user"].from_fd(loop, ours.detach(), device)
    server.start()
    with VfioUserClient(theirs) as client:
        client.send_raw(message(p.VERSION, p.encode_version(0, 0, None)) + message(p.DEVICE_RESET)[:12])
        for _ in range(4):
            loop.run_once(0)
        assert [call[0] for call in device.calls] == ["connected"]
        clock.advance(VERSION_TIMEOUT + S)
        for _ in range(4):
            loop.run_once(0)
        assert [call[0] for call in device.calls] == ["connected", "disconnected"]
        assert "rest of a message" in str(server.counters.last_error)
    server.close()
    loop.close()


def test_a_message_the_library_cannot_be_given(it: Bench) -> None:
    it.raw(message(p.REGION_WRITE, bytes(64), size=incoming.LONGEST + 1))
    with pytest.raises(Disconnected):
        it.client.receive()
    assert str(incoming.LONGEST) in str(it.engine.snapshot()["last_error"])


def test_who_reads_nothing_is_asked_nothing(it: Bench) -> None:
    """Its requests stay where they are, and the server has its turns for others."""
    request = message(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 16384))
    sent = 40
    for _ in range(sent):
        it.client.send_raw(request)
    it.turn()
    done = len(it.device.calls)
    assert 0 < done < sent
    it.turn()
    assert len(it.device.calls) == done
    it.call(lambda: [it.client.receive() for _ in range(sent)])
    assert len(it.device.calls) == sent
    assert it.engine.snapshot()["errors"] == 0


def test_what_cannot_be_written_is_not(it: Bench) -> None:
    before = len(it.device.calls)
    with pytest.raises(ReplyError):
        it.call(lambda: it.client.region_write(6, 0, b"abcd"))
    assert len(it.device.calls) == before
    assert "cannot be written" in str(it.engine.snapshot()["last_error"])


def test_nothing_of_the_librarys_own_socket_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with bench("libvfio-user"):
        assert list(tmp_path.iterdir()) == []
