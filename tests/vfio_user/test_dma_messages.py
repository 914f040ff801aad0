"""DMA by message: data both ways, and no deadlock with a client that answers nothing before its own request is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from hba.clock import MS
from hba.errors import DmaFault
from hba.vfio_user import connection
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected, GuestRam
from hba.vfio_user.device import DMA_READ
from hba.vfio_user.libvfio_user import session
from hba.vfio_user.protocol import Capabilities
from tests.vfio_user.support import BAR0, INTX, Bench, bench, message, read_message, run_beside, write_message

BASE = 0x100000


@pytest.fixture
def it(engine: str) -> Iterator[Bench]:
    with bench(engine) as the_bench:
        yield the_bench


@pytest.fixture
def ram(it: Bench) -> Iterator[GuestRam]:
    with GuestRam(1 << 20, BASE) as memory:
        it.call(lambda: it.client.map_ram(memory, shared=False))
        yield memory


def dma_reply(request: bytes, data: bytes = b"", code: int = 0) -> bytes:
    """What a client answers to one of our DMA messages."""
    message_id, command, _, _, _ = p.HEADER.unpack_from(request)
    if code:
        return p.HEADER.pack(message_id, command, 16, p.TYPE_REPLY | p.ERROR, code)
    body = request[16:32] + data
    return p.HEADER.pack(message_id, command, 16 + len(body), p.TYPE_REPLY, 0) + body


class Peer:
    """The client's end of the socket, byte by byte: what QEMU does is spelled out in the test."""

    def __init__(self, it: Bench) -> None:
        self._sock = it.client._sock

    def send(self, *messages: bytes) -> None:
        self._sock.sendall(b"".join(messages))

    def take(self) -> tuple[p.Header, bytes]:
        """The next message: its header and all of it."""
        head = self._exactly(16)
        header: p.Header = p.HEADER.unpack(head)
        return header, head + self._exactly(header[2] - 16)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            assert part, "the server hung up"
            data += part
        return data


def read_on_write(it: Bench, length: int = 4) -> list[bytes | DmaFault]:
    """Make the device fetch `length` bytes whenever BAR 0 + 0 is written; the outcomes."""
    outcomes: list[bytes | DmaFault] = []

    def on_write(region: int, offset: int, data: bytes) -> None:
        if offset == 0:
            assert it.device.client is not None
            try:
                outcomes.append(it.device.client.dma_read(BASE, length))
            except DmaFault as fault:
                outcomes.append(fault)

    it.device.on_write = on_write
    return outcomes


@pytest.mark.parametrize("length", [0, 1, 4096, 65536, 65537, 300_000])
def test_data_both_ways(it: Bench, ram: GuestRam, length: int) -> None:
    data = os.urandom(length)
    ram.view[4096 : 4096 + length] = data
    got: list[bytes] = []

    def on_write(region: int, offset: int, value: bytes) -> None:
        assert it.device.client is not None
        got.append(it.device.client.dma_read(BASE + 4096, length))
        it.device.client.dma_write(BASE + 400_000, memoryview(data))
        got.append(b"written")

    it.device.on_write = on_write
    it.kick(lambda: len(got) == 2)
    assert got == [data, b"written"]
    assert ram.view[400_000 : 400_000 + length] == data
    chunks = -(-length // 65536)
    assert it.engine.snapshot()["dma_reads"] == it.engine.snapshot()["dma_writes"] == chunks
    assert it.client.dma_reads == it.client.dma_writes == chunks


def test_the_limit_of_the_client_is_kept(engine: str) -> None:
    with bench(engine, negotiate=False) as it, GuestRam(0x10000, BASE) as ram:
        it.call(lambda: it.client.version(Capabilities(max_data_xfer_size=1000)))
        it.call(lambda: it.client.map_ram(ram, shared=False))
        outcomes = read_on_write(it, 2500)
        it.kick(lambda: bool(outcomes))
        assert outcomes == [bytes(2500)]
        assert it.client.dma_reads == 3


def test_outside_of_any_request(it: Bench) -> None:
    """A completion, say: the wait begins in a callback of the loop, and what arrives meanwhile is not forgotten."""
    client = it.device.client
    assert client is not None
    peer = Peer(it)
    got: list[bytes] = []
    it.loop.call_soon(lambda: got.append(client.dma_read(BASE, 4)))

    def like_qemu() -> list[int]:
        _, dma = peer.take()
        peer.send(write_message(BAR0, 8, b"one"), write_message(BAR0, 8, b"two", posted=False))
        order = [peer.take()[0][1]]
        # What follows the reply in the same receive is not parsed inside the wait.
        peer.send(dma_reply(dma, b"data"), write_message(BAR0, 8, b"three"), read_message(BAR0, 8, 5))
        return [*order, peer.take()[0][1]]

    assert it.call(like_qemu) == [p.REGION_WRITE, p.REGION_READ]
    assert got == [b"data"]
    assert [call[3] for call in it.device.calls] == [b"one", b"two", b"three", 5]


def test_what_came_meanwhile_is_carried_out_though_nothing_else_comes(it: Bench) -> None:
    client = it.device.client
    assert client is not None
    peer = Peer(it)
    it.loop.call_soon(lambda: client.dma_read(BASE, 4))
    floods = [write_message(BAR0, 8, bytes([i])) for i in range(200)]

    def like_qemu() -> None:
        _, dma = peer.take()
        peer.send(*floods, dma_reply(dma, b"data"))

    it.call(like_qemu)
    it.turn()
    assert [call[3] for call in it.device.calls] == [bytes([i]) for i in range(200)]


def test_a_write_is_acknowledged_before_the_dma_it_causes(it: Bench) -> None:
    outcomes = read_on_write(it)
    peer = Peer(it)

    def like_qemu() -> list[int]:
        peer.send(write_message(BAR0, 0, b"go", posted=False))
        order = []
        header, whole = peer.take()
        order.append(header[1])
        header, whole = peer.take()
        order.append(header[1])
        peer.send(dma_reply(whole, b"data"))
        return order

    assert it.call(like_qemu) == [p.REGION_WRITE, p.DMA_READ]
    it.turn()
    assert outcomes == [b"data"]
    assert it.replies() == []  # one acknowledgement, not two


def test_an_acknowledged_write_is_not_refused_afterwards(it: Bench) -> None:
    def on_write(region: int, offset: int, data: bytes) -> None:
        assert it.device.client is not None
        it.device.client.dma_write(BASE, b"x")
        raise ZeroDivisionError

    it.device.on_write = on_write
    peer = Peer(it)

    def like_qemu() -> p.Header:
        peer.send(write_message(BAR0, 0, b"go", posted=False))
        reply, _ = peer.take()
        _, whole = peer.take()
        peer.send(read_message(BAR0, 0, 2))  # what is answered meanwhile does not change what was answered
        peer.take()
        peer.send(dma_reply(whole))
        return reply

    assert it.call(like_qemu)[3] == p.TYPE_REPLY
    it.turn()
    assert it.replies() == []
    assert "ZeroDivisionError" in str(it.engine.snapshot()["last_error"])


def test_requests_that_arrive_during_the_wait(it: Bench, engine: str) -> None:
    """After a posted write starts a DMA, the client asks, and answers nothing before it has its own answers."""
    outcomes = read_on_write(it)
    peer = Peer(it)

    def ask(*messages: bytes) -> p.Header:
        peer.send(*messages)
        return peer.take()[0]

    def like_qemu() -> None:
        peer.send(write_message(BAR0, 0, b"go"))
        _, dma = peer.take()
        assert ask(read_message(BAR0, 0, 2, message_id=1))[:2] == (1, p.REGION_READ)
        # A posted write, then one that waits for its acknowledgement.
        assert ask(write_message(BAR0, 8, b"one"), write_message(BAR0, 8, b"two", posted=False))[1] == p.REGION_WRITE
        assert ask(read_message(BAR0, 8, 3, message_id=2))[:2] == (2, p.REGION_READ)
        if engine == "native":
            multi = p.encode_multi([(8, BAR0, b"three")])
            assert ask(message(p.REGION_WRITE_MULTI, multi))[1] == p.REGION_WRITE_MULTI
        else:  # which has no such command
            assert ask(write_message(BAR0, 8, b"three", posted=False))[1] == p.REGION_WRITE
        info = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))
        assert ask(message(p.DEVICE_GET_INFO, info))[1] == p.DEVICE_GET_INFO
        body = p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0, 0x1000))
        assert ask(message(p.DMA_MAP, body))[3] == p.TYPE_REPLY
        body = p.SET_IRQS_BODY.encode(p.SetIrqs(20, 0x24, INTX, 0, 1))
        eventfd = os.eventfd(0)
        it.client.send_raw(message(p.DEVICE_SET_IRQS, body), [eventfd])
        os.close(eventfd)
        assert peer.take()[0][3] == p.TYPE_REPLY
        unknown = errno.ENOSYS if engine == "native" else errno.EINVAL
        assert ask(message(99))[3:] == (p.TYPE_REPLY | p.ERROR, unknown)
        bad = write_message(BAR0, 1 << 20, b"outside", posted=False)
        assert ask(bad)[3:] == (p.TYPE_REPLY | p.ERROR, errno.EINVAL)
        assert outcomes == []
        peer.send(dma_reply(dma, b"data"))

    it.call(like_qemu)
    it.turn()
    assert outcomes == [b"data"]
    assert [call[:2] + call[3:] for call in it.device.calls if call[0] == "write"] == [
        ("write", BAR0, b"go"),
        ("write", BAR0, b"one"),
        ("write", BAR0, b"two"),
        ("write", BAR0, b"three"),
    ]
    # What is answered on the spot comes before the writes that wait for the device to return.
    irqs = "irqs" if engine == "native" else "wires"
    assert [call[0] for call in it.device.calls] == ["write", "read", "read", irqs, "write", "write", "write"]
    assert it.engine.snapshot()["deferred"] == 3
    assert it.replies() == []


@pytest.mark.parametrize("posted", [True, False])
def test_a_write_that_reaches_no_memory_is_carried_out_meanwhile(it: Bench, posted: bool) -> None:
    """What is read next is not from before it; but it does not overtake others."""
    it.device.local = {(BAR0, 8, 4)}
    outcomes = read_on_write(it)
    peer = Peer(it)

    def write(offset: int, data: bytes) -> list[int]:
        peer.send(write_message(BAR0, offset, data, posted=posted))
        return [] if posted else [peer.take()[0][1]]

    def read() -> bytes:
        peer.send(read_message(BAR0, 8, 4))
        return peer.take()[1][-4:]

    def like_qemu() -> tuple[list[bytes], list[int]]:
        peer.send(write_message(BAR0, 0, b"go"))
        _, dma = peer.take()
        said = write(8, b"ONE.")
        values = [read()]
        said += write(8, b"TWO.") + write(8, b"2b") + write(8, b"3...")
        values.append(read())
        assert outcomes == []
        peer.send(dma_reply(dma, b"data"))
        return values, said

    assert it.call(like_qemu) == ([b"ONE.", b"TWO."], [] if posted else [p.REGION_WRITE] * 4)
    it.turn()
    assert outcomes == [b"data"]
    assert [call[3] for call in it.device.calls if call[0] == "write"] == [b"go", b"ONE.", b"TWO.", b"2b", b"3..."]
    assert it.engine.snapshot()["deferred"] == 2
    assert it.replies() == []


def test_one_that_fails_meanwhile_is_refused(it: Bench) -> None:
    it.device.local = {(BAR0, 8, 4)}
    outcomes = read_on_write(it)
    reads = it.device.on_write

    def on_write(region: int, offset: int, data: bytes) -> None:
        if offset:
            assert it.device.client is not None
            it.device.client.dma_write(BASE, b"x")  # which it has said it does not do
        reads(region, offset, data)

    it.device.on_write = on_write
    peer = Peer(it)

    def like_qemu() -> p.Header:
        peer.send(write_message(BAR0, 0, b"go"))
        _, dma = peer.take()
        peer.send(write_message(BAR0, 8, b"four", posted=False))
        reply, _ = peer.take()
        peer.send(dma_reply(dma, b"data"))
        return reply

    assert it.call(like_qemu)[3:] == (p.TYPE_REPLY | p.ERROR, errno.EIO)
    it.turn()
    assert outcomes == [b"data"]
    assert it.replies() == []


def test_a_read_may_not_do_dma(it: Bench, ram: GuestRam) -> None:
    faults: list[str] = []

    def on_read() -> None:
        assert it.device.client is not None
        with pytest.raises(DmaFault) as caught:
            it.device.client.dma_read(BASE, 4)
        faults.append(caught.value.why)

    it.device.on_read = on_read
    it.call(lambda: it.client.region_read(BAR0, 0, 4))
    assert faults == ["the client waits for the answer to a register read"]
    it.device.on_read = lambda: None
    outcomes = read_on_write(it)
    it.kick(lambda: bool(outcomes))
    assert outcomes == [bytes(4)]


def test_a_reset_ends_the_wait(it: Bench) -> None:
    outcomes = read_on_write(it)
    again: list[object] = []
    peer = Peer(it)

    def like_qemu() -> p.Header:
        peer.send(write_message(BAR0, 0, b"go"))
        _, dma = peer.take()
        peer.send(message(p.DEVICE_RESET))
        header, _ = peer.take()
        peer.send(dma_reply(dma, b"late"))  # by then nobody wants it, and that is no offence
        peer.send(read_message(BAR0, 0, 2))
        peer.take()
        return header

    assert it.call(like_qemu)[:2] == (77, p.DEVICE_RESET)
    assert [str(outcome) for outcome in outcomes] == ["DMA to 0x100000+0x4: the client is resetting the device"]
    assert [call[0] for call in it.device.calls] == ["write", "reset", "read"]
    assert again == []
    assert it.engine.connected


def test_no_reply_within_the_time_out(engine: str) -> None:
    with bench(engine, dma_timeout=30 * MS) as it:
        outcomes = read_on_write(it)
        it.raw(write_message(BAR0, 0, b"go"))
        (outcome,) = outcomes
        assert isinstance(outcome, DmaFault)
        assert "within 30 ms" in outcome.why
        peer = Peer(it)
        _, dma = peer.take()
        it.raw(dma_reply(dma, b"late"))
        it.call(lambda: it.client.region_read(BAR0, 0, 4))
        it.raw(dma_reply(dma, b"late"))  # the second time it is nonsense
        assert not it.engine.connected


def test_a_client_that_does_not_answer_is_waited_for_once(engine: str) -> None:
    """Each command waited for two seconds, and control socket and signals with it."""
    with bench(engine, dma_timeout=1 * MS) as it:
        outcomes = read_on_write(it)
        for _ in range(100):
            it.raw(write_message(BAR0, 0, b"go"))
        assert it.engine.counters.dma_reads == 1 and it.engine.connected
        first, *others = outcomes
        assert isinstance(first, DmaFault) and "no reply from the client within" in first.why
        assert len(others) == 99
        assert all(isinstance(fault, DmaFault) and "has not answered" in fault.why for fault in others)


def test_a_client_that_answers_after_all_is_asked_again(engine: str) -> None:
    with bench(engine, dma_timeout=20 * MS) as it:
        outcomes = read_on_write(it)
        peer = Peer(it)
        it.raw(write_message(BAR0, 0, b"go"))
        it.client._sock.setblocking(True)  # what is read now has been sent already
        asked, request = peer.take()
        assert asked[1] == p.DMA_READ
        it.raw(write_message(BAR0, 0, b"go"))
        assert it.engine.counters.dma_reads == 1
        it.raw(dma_reply(request, b"late"))
        it.raw(write_message(BAR0, 0, b"go"))
        assert it.engine.counters.dma_reads == 2 and len(outcomes) == 3
        assert it.engine.connected


@pytest.mark.parametrize("code", [0x13, 22, 0])
def test_the_client_refuses(it: Bench, code: int) -> None:
    outcomes = read_on_write(it)
    peer = Peer(it)

    def like_qemu() -> None:
        peer.send(write_message(BAR0, 0, b"go"))
        header, _ = peer.take()
        peer.send(p.HEADER.pack(header[0], header[1], 16, p.TYPE_REPLY | p.ERROR, code))

    it.call(like_qemu)
    it.turn()
    (outcome,) = outcomes
    assert isinstance(outcome, DmaFault)
    assert (outcome.iova, outcome.length) == (BASE, 4)
    assert f"errno {code}" in outcome.why
    assert it.engine.connected


@pytest.mark.parametrize("data", [b"", b"abc", b"abcde"])
def test_a_reply_of_the_wrong_size(it: Bench, data: bytes) -> None:
    outcomes = read_on_write(it)
    peer = Peer(it)

    def like_qemu() -> None:
        peer.send(write_message(BAR0, 0, b"go"))
        peer.send(dma_reply(peer.take()[1], data))

    it.call(like_qemu)
    it.turn()
    assert isinstance(outcomes[0], DmaFault)
    assert it.engine.connected


@pytest.mark.parametrize("offset", [0, 2])
def test_a_reply_to_something_else_ends_the_connection(it: Bench, offset: int) -> None:
    outcomes = read_on_write(it)
    peer = Peer(it)

    def like_qemu() -> None:
        peer.send(write_message(BAR0, 0, b"go"))
        reply = bytearray(dma_reply(peer.take()[1], b"data"))
        reply[offset] ^= 1  # the id, the command
        peer.send(bytes(reply))

    it.call(like_qemu)
    it.turn()
    assert isinstance(outcomes[0], DmaFault)
    assert not it.engine.connected
    assert "unsolicited" in str(it.engine.snapshot()["last_error"])


def test_the_reply_of_qemu_to_a_write_is_the_header_alone(it: Bench) -> None:
    done: list[bool] = []

    def on_write(region: int, offset: int, data: bytes) -> None:
        assert it.device.client is not None
        it.device.client.dma_write(BASE, b"12345")
        done.append(True)

    it.device.on_write = on_write
    peer = Peer(it)

    def like_qemu() -> bytes:
        peer.send(write_message(BAR0, 0, b"go"))
        header, whole = peer.take()
        peer.send(p.HEADER.pack(header[0], header[1], 16, p.TYPE_REPLY, 0))
        return whole

    assert it.call(like_qemu)[16:] == p.DMA_ACCESS_BODY.encode(p.DmaAccess(BASE, 5)) + b"12345"
    it.turn()
    assert done == [True]


def test_the_client_leaves_during_the_wait(it: Bench) -> None:
    outcomes = read_on_write(it)
    client = it.device.client
    peer = Peer(it)

    def like_qemu() -> None:
        peer.send(write_message(BAR0, 0, b"go"))
        peer.take()
        it.client.close()

    it.call(like_qemu)
    it.turn()
    assert isinstance(outcomes[0], DmaFault)
    assert [call[0] for call in it.device.calls] == ["write", "disconnected"]
    assert client is not None
    with pytest.raises(DmaFault, match="gone"):
        client.dma_read(BASE, 4)


def test_a_flood_during_the_wait_fails_the_dma_and_is_worked_off(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_DEFERRED", 150)
    monkeypatch.setattr(session, "MAX_DEFERRED", 150)
    outcomes = read_on_write(it)
    peer = Peer(it)
    floods = [write_message(BAR0, 8, bytes([i])) for i in range(200)]
    peer.send(write_message(BAR0, 0, b"go"), *floods)
    it.turn()
    assert isinstance(outcomes[0], DmaFault)
    assert "too many" in outcomes[0].why
    assert [call[3] for call in it.device.calls] == [b"go"] + [bytes([i]) for i in range(200)]
    assert it.engine.connected


def test_data_of_the_request_in_progress_survives_the_wait(it: Bench, ram: GuestRam) -> None:
    """The fake device compares what it was given before and after; the DMA passes megabytes through the buffer."""

    def on_write(region: int, offset: int, data: bytes) -> None:
        assert it.device.client is not None
        for _ in range(3):
            lengths.append(len(it.device.client.dma_read(BASE, 1 << 20)))

    lengths: list[int] = []
    it.device.on_write = on_write
    it.kick(lambda: len(lengths) == 3, os.urandom(5000))
    assert lengths == [1 << 20] * 3
    it.call(lambda: it.client.region_read(BAR0, 0, 4))
    assert it.engine.snapshot()["errors"] == 0


def test_a_client_with_read_only_memory(it: Bench) -> None:
    with GuestRam(0x1000, BASE, prot=DMA_READ) as rom:
        it.call(lambda: it.client.map_ram(rom, shared=False))
        faults: list[str] = []

        def on_write(region: int, offset: int, data: bytes) -> None:
            assert it.device.client is not None
            for address in (BASE, BASE + 0x1000):
                try:
                    it.device.client.dma_write(address, b"x")
                except DmaFault as fault:
                    faults.append(fault.why)

        it.device.on_write = on_write
        it.kick(lambda: len(faults) == 2)
        assert faults == [f"the client refused it with errno {errno.ENODEV}"] * 2


def test_impossible_ranges(it: Bench) -> None:
    client = it.device.client
    assert client is not None
    for address, length in ((-1, 4), (1 << 64, 1), ((1 << 64) - 1, 2), (0, -1)):
        with pytest.raises(DmaFault, match="no such range"):
            client.dma_read(address, length)


def test_poll_serves_the_server(it: Bench, ram: GuestRam) -> None:
    ram.view[:4] = b"poll"
    client = it.device.client
    assert client is not None
    got: list[bytes] = []
    it.loop.call_soon(lambda: got.append(client.dma_read(BASE, 4)))

    def serve() -> None:
        while it.client.dma_reads == 0:
            it.client.poll()

    run_beside(it.loop, serve)
    it.turn()
    assert got == [b"poll"]
    it.engine.close()
    with pytest.raises(Disconnected):
        it.client.poll()
