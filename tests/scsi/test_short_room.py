"""READ into a buffer that ends within a block: what fits is moved and the rest is told, whatever holds the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.dma import DmaBuffer
from hba.loop import EventLoop
from hba.scsi.task import DATA_IN, DATA_OUT, Task
from hba.storage.backend import Backend
from hba.storage.faulty import FaultyBackend
from hba.storage.file import FileBackend
from hba.storage.granules import Granular
from hba.storage.memory import MemoryBackend
from hba.storage.nbd import NbdBackend
from hba.storage.overlay import open_overlay
from hba.storage.workers import WorkerPool
from tests.scsi.test_stability import Rig, image
from tests.scsi.util import GOOD, be, read10, write10
from tests.storage.test_granules import Coarse
from tests.storage.test_nbd import BLOCKS, Server, needs, until

LBA = 16
DATA = (bytes(range(251)) * 17)[:4096]


class Stores:
    """One store of each kind, by name."""

    def __init__(self, folder: Path, loop: EventLoop, workers: WorkerPool) -> None:
        self.folder, self.loop, self.workers = folder, loop, workers
        self.servers: list[Server] = []

    def memory(self) -> Backend:
        return MemoryBackend(1 << 20)

    def file(self) -> Backend:
        return FileBackend(image(self.folder), self.loop, self.workers)

    def direct(self) -> Backend:
        return FileBackend(image(self.folder), self.loop, self.workers, direct=True)

    def faulty(self) -> Backend:
        return FaultyBackend(self.file(), self.loop.clock)

    def granular(self) -> Backend:
        return Coarse(1 << 20)  # the unit puts a `Granular` over it

    def nbd(self, *options: str, filters: tuple[str, ...] = ()) -> Backend:
        program, disk = needs("nbdkit", "nbdkit"), str(image(self.folder))
        server = Server(self.folder, lambda path: [program, "-fU", str(path), *filters, "file", disk, *options])
        self.servers.append(server)
        server.start()
        return NbdBackend(server.uri, self.loop)

    def nbd_blocks(self) -> Backend:
        """An export that takes whole sectors only."""
        policy = ("minimum=512", "preferred=512", "maximum=1M", "error-policy=error")
        return self.nbd(*(f"blocksize-{word}" for word in policy), filters=tuple(BLOCKS))

    def overlay_kept(self) -> Backend:
        return open_overlay(self.file(), self.loop, self.workers, path=self.folder / "kept")

    def overlay_memory(self) -> Backend:
        return open_overlay(self.file(), self.loop, self.workers, memory=True)

    def overlay_unnamed(self) -> Backend:
        return open_overlay(self.direct(), self.loop, self.workers, directory=self.folder)

    def overlay_nbd(self) -> Backend:
        return open_overlay(self.nbd_blocks(), self.loop, self.workers, memory=True)

    protected = file
    protected_overlay = overlay_kept


KINDS = [name for name, value in vars(Stores).items() if isinstance(value, Callable) and not name.startswith("_")]  # type: ignore[arg-type]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> Iterator[Rig]:
    stores = Stores(tmp_path, loop, workers)
    rig = Rig(loop, tmp_path)
    rig.plug(getattr(stores, request.param)(), protection=request.param.startswith("protected"))
    yield rig
    rig.bus.close()
    for server in stores.servers:
        server.kill()


@pytest.mark.parametrize("room", [100, 512, 700, 4095])
@pytest.mark.parametrize("written", ["all", "every other block", "nothing"])
def test_what_fits_is_moved(rig: Rig, room: int, written: str) -> None:
    """Over an overlay the blocks then come from the top, from both stores in turn, from the base."""
    expected = bytearray(4096)
    for block in range(0, 8, {"all": 1, "every other block": 2, "nothing": 8}[written]):
        if written != "nothing":
            part = DATA[block * 512 : block * 512 + 512]
            rig.good(write10(LBA + block, 1), out=part)
            expected[block * 512 : block * 512 + 512] = part
    result = rig.command(read10(LBA, 8), room)
    assert result.status == GOOD, result
    assert (result.transferred, result.task.overrun) == (room, 4096 - room)
    assert result.data == bytes(expected[:room])


def in_pieces(rig: Rig, cdb: str, direction: int, pieces: list[memoryview]) -> Task:
    ended: list[Task] = []
    task = Task(bytes.fromhex(cdb), direction, DmaBuffer([], pieces, sum(map(len, pieces))))
    task.done = ended.append
    if not rig.unit.execute([task]):
        until(rig.loop, lambda: bool(ended))
    return task


def test_the_room_in_pieces(rig: Rig) -> None:
    """A guest's buffer need not be one piece, and its pieces no blocks."""
    rig.good(write10(LBA, 8), out=DATA)
    pieces = [memoryview(bytearray(length)) for length in (13, 499, 188)]
    task = in_pieces(rig, read10(LBA, 8), DATA_IN, pieces)
    assert (task.status, task.transferred, task.overrun) == (GOOD, 700, 4096 - 700)
    assert b"".join(pieces) == DATA[:700]


@pytest.mark.parametrize(
    ("name", "cdb", "blocks"),
    [
        ("WRITE", write10(LBA, 8), 1),
        ("VERIFY, BYTCHK=01b", f"2f02{be(LBA, 4)}00{be(8, 2)}00", 1),
        ("WRITE AND VERIFY, BYTCHK=01b", f"2e02{be(LBA, 4)}00{be(8, 2)}00", 1),
        ("ORWRITE", f"8b00{be(LBA, 8)}{be(8, 4)}0000", 1),
        ("COMPARE AND WRITE", f"8900{be(LBA, 8)}{be(0, 3)}{be(8, 1)}0000", 2),
    ],
)
def test_what_is_sent_in_pieces(rig: Rig, name: str, cdb: str, blocks: int) -> None:
    rig.good(write10(LBA, 8), out=DATA)
    data = memoryview(bytearray(DATA * blocks))
    pieces = [data[:13], data[13:2000], data[2000:2001], data[2001:]]
    assert in_pieces(rig, cdb, DATA_OUT, pieces).status == GOOD, name
    assert rig.command(read10(LBA, 8), 4096).data == DATA


def test_all_kinds_are_what_they_say(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    stores = Stores(tmp_path, loop, workers)
    rig = Rig(loop, tmp_path)
    rig.plug(stores.granular())
    assert isinstance(rig.unit.store(), Granular)
    direct = stores.direct()
    assert direct.describe()["direct"]
    direct.close()
    nbd = stores.nbd_blocks()
    assert nbd.granule == 512
    nbd.close()
    rig.bus.close()
    stores.servers[0].kill()
