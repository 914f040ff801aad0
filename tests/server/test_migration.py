"""A device that is saved in one process and goes on in another, its driver's I/O checked to the byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hba.adapters.bench import MSI, transfer_cdb
from hba.adapters.pvscsi.bench import MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import FLAG_DIR_TODEVICE, FLAG_DIR_TOHOST, REQ_PROD_IDX
from hba.bench import own_server
from hba.bench.own_server import OwnServer
from hba.control.client import ControlClient
from hba.vfio_user import migrating
from hba.vfio_user.client import VfioUserClient

SIZE = 8 << 20  # bytes of the disk
PIECE = 8192
KEY = bytes(range(1, 9))
PR_REGISTER = bytes((0x5F, 0x06, 0, 0, 0, 0, 0, 0, 24, 0))
PR_READ_KEYS = bytes((0x5E, 0, 0, 0, 0, 0, 0, 0, 16, 0))


@contextmanager
def server(folder: Path, port: str = "storport", disk: str = "disk.img", more: str = "") -> Iterator[OwnServer]:
    config = folder / "hba.toml"
    config.write_text(
        f'[[adapter]]\ntype = "pvscsi"\nname = "moved"\nport = "{port}"\nsocket = "{folder}/vm.sock"\n'
        f'verifier = {{ level = "report" }}\n{more}'
        f'[[adapter.lun]]\nserial = "MOVED"\nstorage = {{ kind = "file", path = "{folder / disk}" }}\n'
    )
    with own_server.start(config) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").write_bytes(bytes(SIZE))
    return tmp_path


class Driver(PvscsiBenchDriver):
    """A driver whose device may change under it."""

    closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            super().close()

    def place(self, transfer: tuple[bool, int, int], at: int) -> None:
        """Put a request on the ring, to or from our memory at `at` in the data area; nobody is told of it."""
        slot = self._produced & MASK
        flags = FLAG_DIR_TODEVICE if transfer[0] else FLAG_DIR_TOHOST
        self._place(slot, transfer_cdb(transfer, 512), transfer[2], flags, self._data_at + at, slot)
        self._produced += 1
        self._state[REQ_PROD_IDX // 4] = self._produced & 0xFFFFFFFF

    def kick(self) -> None:
        self._produced -= 1
        self._submit(1)

    def wait(self) -> None:
        """Until all are completed, each with success."""
        self._wait(self._produced)

    def out(self, cdb: bytes, data: bytes) -> int:
        self.data(0, len(data))[:] = data
        slot = self._produced & MASK
        self._place(slot, cdb, len(data), FLAG_DIR_TODEVICE, self._data_at, slot)
        self._submit(1)
        self.wait()
        return int(self._completions[slot * 4 + 2])

    def data(self, at: int, length: int) -> memoryview:
        return self.ram.view[self._data_at + at : self._data_at + at + length]

    def save(self) -> bytes:
        state = migrating.save(self._client)
        self._client.close()
        return state

    def move(self, socket: str, state: bytes) -> None:
        """Go on with the device behind another socket, which becomes the one that was saved."""
        self._client = VfioUserClient.connect(socket)
        self._client.version()
        self._client.map_ram(self.ram)
        self._client.set_eventfds(MSI, [self._interrupt])
        migrating.restore(self._client, state)


@pytest.mark.parametrize("port", ["storport", "scsiport"])
def test_io_goes_on_in_another_process(folder: Path, port: str) -> None:
    """What was acknowledged is there, what was on the ring is done there, and nothing needs to be set up again."""
    randoms = random.Random(7)
    disk = bytearray(SIZE)
    with server(folder, port) as first, Driver(first.socket, 1 << 20) as driver:
        for _ in range(64):
            block = randoms.randbytes(PIECE)
            at = randoms.randrange(SIZE // PIECE) * PIECE
            disk[at : at + PIECE] = block
            driver.data(0, PIECE)[:] = block
            driver.place((True, at, PIECE), 0)
            driver.kick()
            driver.wait()
        assert driver.out(PR_REGISTER, bytes(8) + KEY + bytes(8)) == 0
        # On the ring, and not taken: nobody has kicked, and a look without a kick comes too late or just in time.
        for number in range(20):
            block = randoms.randbytes(PIECE)
            driver.data(number * PIECE, PIECE)[:] = block
            disk[number * PIECE : (number + 1) * PIECE] = block
            driver.place((True, number * PIECE, PIECE), number * PIECE)
        state = driver.save()
        first.close()
        assert len(state) < 20_000
        with server(folder, port) as second:
            driver.move(second.socket, state)
            driver.wait()
            driver.place((False, 0, 20 * PIECE), 256 << 10)
            driver.kick()
            driver.wait()
            assert driver.data(256 << 10, 20 * PIECE) == disk[: 20 * PIECE]
            assert driver.command(PR_READ_KEYS, 16) == 0  # nor is there a unit attention
            assert bytes(driver.data(8, 8)) == KEY
            driver.prepare([(False, 0, 4096), (True, SIZE - 4096, 4096)], 512)
            driver.run(3600.0, 32, most=2000)
            disk[-4096:] = (folder / "disk.img").read_bytes()[-4096:]
            with ControlClient(second.control) as control:
                assert control.call("show.verifier")["findings"] == []
            driver.close()
    assert (folder / "disk.img").read_bytes() == disk
