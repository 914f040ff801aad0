"""Whatever a client sends, the server stays up, loses no descriptor, and takes the next client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hba.clock import MS
from hba.loop import EventLoop
from hba.vfio_user import protocol as p
from hba.vfio_user.client import CAPABILITIES, Disconnected, VfioUserClient
from tests.descriptors import open_fds
from tests.engines import require
from tests.vfio_user.support import BAR0, CONFIG, ENGINES, INTX, MSI, FakeDevice, message, read_message, write_message

VERSION = message(p.VERSION, p.encode_version(0, 0, CAPABILITIES))

# One good message of every kind.
GOOD = [
    VERSION,
    message(p.DMA_MAP, p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0x1000, 0x1000))),
    message(p.DMA_UNMAP, p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, 0, 0x1000, 0x1000))),
    message(p.DMA_UNMAP, p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, 2, 0, 0))),
    message(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))),
    message(p.DEVICE_GET_REGION_INFO, p.REGION_INFO_BODY.encode(p.RegionInfoBody(32, 0, BAR0, 0, 0, 0))),
    message(p.DEVICE_GET_REGION_IO_FDS, p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(16, 0, BAR0, 0))),
    message(p.DEVICE_GET_IRQ_INFO, p.IRQ_INFO_BODY.encode(p.IrqInfoBody(16, 0, INTX, 0))),
    message(p.DEVICE_SET_IRQS, p.SET_IRQS_BODY.encode(p.SetIrqs(20, 0x24, MSI, 0, 2))),
    message(p.DEVICE_SET_IRQS, p.SET_IRQS_BODY.encode(p.SetIrqs(21, 0x22, INTX, 0, 1)) + b"\1"),
    read_message(CONFIG, 0, 4096),
    write_message(BAR0, 0, b"\0\x10\0\0", posted=False),
    write_message(BAR0, 0, b"\0\x10\0\0"),
    write_message(BAR0, 64, bytes(100)),
    message(p.REGION_WRITE_MULTI, p.encode_multi([(0, BAR0, b"abcd"), (8, CONFIG, b"efgh")]), flags=p.NO_REPLY),
    message(p.DEVICE_RESET),
    message(p.DMA_READ, bytes(20), flags=p.TYPE_REPLY, message_id=1),
]


class Target:
    """A server whose device does a DMA by message on every write to BAR 0 + 0."""

    def __init__(self, path: Path, engine: str) -> None:
        self.loop = EventLoop()
        self.device = FakeDevice()
        self.device.on_write = self._dma
        self.path = path
        self.engine = ENGINES[engine](self.loop, path, self.device, dma_timeout=1 * MS)
        self.engine.start()

    def _dma(self, region: int, offset: int, data: bytes) -> None:
        if region == BAR0 and offset == 0 and self.device.client is not None:
            self.device.client.dma_read(0x1000, 4)  # its DmaFault is a defect of this device, on purpose

    def turn(self) -> None:
        for _ in range(4):
            self.loop.run_once(0)

    def settle(self) -> None:
        """The client has gone; libvfio-user's engine looks for the rest of a message every millisecond."""
        for _ in range(100):
            if self.engine.snapshot()["state"] == "listening":
                return
            self.loop.run_once(2 * MS)
        raise AssertionError(self.engine.snapshot()["state"])

    def attack(self, pieces: list[tuple[bytes, int]]) -> None:
        """Send pieces, each with some descriptors, then see that the server is as it was."""
        before = open_fds()
        with VfioUserClient.connect(self.path, timeout=1) as client:
            self.turn()
            for data, fds in pieces:
                try:
                    client.send_raw(data, [0] * fds)
                except Disconnected:
                    break
                self.turn()
        self.turn()
        self.settle()
        assert open_fds() == before
        assert self.device.maps == {}
        self.good_client()
        assert open_fds() == before

    def good_client(self) -> None:
        with VfioUserClient.connect(self.path, timeout=1) as client:
            client.send_raw(VERSION + read_message(CONFIG, 0, 4))
            self.turn()
            for command in (p.VERSION, p.REGION_READ):
                reply = client.receive(wait=False)
                assert reply is not None
                assert (reply[0][1], reply[0][3]) == (command, p.TYPE_REPLY)
        self.turn()


@pytest.fixture(scope="module", params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    require(request.param)
    it = Target(tmp_path_factory.mktemp("fuzz") / "s", request.param)
    yield it
    it.engine.close()
    it.loop.close()


fuzz: Callable[..., object] = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 3)), max_size=5))
def test_arbitrary_bytes(target: Target, pieces: list[tuple[bytes, int]]) -> None:
    target.attack(pieces)
    target.attack([(VERSION, 0), *pieces])


@fuzz
@given(
    st.lists(st.tuples(st.sampled_from(GOOD), st.integers(0, 3)), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.lists(st.integers(1, 400), max_size=10),
)
def test_good_messages_with_changed_bytes_in_any_pieces(
    target: Target,
    messages: list[tuple[bytes, int]],
    changes: list[tuple[int, int]],
    cuts: list[int],
) -> None:
    stream = bytearray(VERSION)
    fds_at: dict[int, int] = {}
    for data, fds in messages:
        fds_at[len(stream)] = fds
        stream += data
    for position, value in changes:
        if len(VERSION) + position < len(stream):
            stream[len(VERSION) + position] = value
    borders = sorted({0, len(stream), *fds_at, *(sum(cuts[:i]) for i in range(len(cuts)))} - {0})
    pieces, start = [], 0
    for border in borders:
        if start < border <= len(stream):
            pieces.append((bytes(stream[start:border]), fds_at.get(start, 0)))
            start = border
    target.attack(pieces)


@fuzz
@given(st.sampled_from(sorted(p.COMMAND_NAMES)), st.binary(max_size=64), st.integers(0, 20), st.integers(0, 0x3F))
def test_any_body_for_any_command(target: Target, command: int, body: bytes, fds: int, flags: int) -> None:
    target.attack([(VERSION, 0), (message(command, body, flags=flags), fds)])


def test_every_message_cut_at_every_byte(target: Target) -> None:
    for data in GOOD:
        for cut in range(1, min(len(data), 60)):
            before = open_fds()
            with VfioUserClient.connect(target.path, timeout=1) as client:
                client.send_raw(VERSION + data[:cut], [0])
                target.turn()
            target.settle()
            assert open_fds() == before
    target.good_client()


def test_descriptors_run_out(target: Target) -> None:
    """With no descriptor left, a passed one cannot arrive: the request is refused, the server goes on."""
    hoard: list[int] = []
    with VfioUserClient.connect(target.path, timeout=1) as client:
        client.send_raw(VERSION)
        target.turn()
        try:
            while True:
                hoard.append(os.dup(0))
        except OSError:
            pass
        try:
            client.send_raw(message(p.DMA_MAP, p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0x1000, 0x1000))), [0])
            target.turn()
        finally:
            for fd in hoard:
                os.close(fd)
        assert client.receive(wait=False) is not None
        if target.engine.name == "native":
            reply = client.receive(wait=False)
            assert reply is not None
            assert reply[0][1:4] == (p.DMA_MAP, 16, p.TYPE_REPLY | p.ERROR)
        else:
            with pytest.raises(Disconnected):
                client.receive(wait=False)
    target.turn()
    target.good_client()
