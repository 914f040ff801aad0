"""What a store takes at once, against the unit's blocks: settled when it is attached, and reported as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.clock import VirtualClock
from hba.errors import ConfigError
from hba.loop import EventLoop
from hba.scsi import sense
from hba.scsi.build import build_unit
from hba.scsi.bus import ScsiBus
from hba.scsi.config import LunConfig
from hba.scsi.disk.disk import Disk
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.server import Identity
from hba.storage.backend import Backend
from hba.storage.config import MemoryStorage
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool
from tests.scsi.util import GOOD, be, disk, read10, run, settle, write10
from tests.storage.test_granules import Coarse

SOME = MemoryStorage(size="1M")  # what a configuration names; the tests give the store itself
CAPACITY16 = "9e10" + "00" * 8 + "00000020" + "0000"


def coarse(block_size: int = 512, **options: int) -> tuple[Coarse, Disk]:
    store = Coarse(1 << 20)
    unit = disk(backend=store, block_size=block_size, **options)
    return store, unit


def exponent(unit: Disk) -> int:
    return run(unit, CAPACITY16, 32).data[13]


def test_small_blocks_on_a_store_with_large_ones() -> None:
    store, unit = coarse()
    assert run(unit, write10(3, 2), out=b"a" * 1024).status == GOOD
    assert run(unit, read10(2, 4), 2048).data == bytes(512) + b"a" * 1024 + bytes(512)
    assert run(unit, "41080000000300000100", out=bytes(512)).status == GOOD  # WRITE SAME(10) of zeros, UNMAP
    unmap = bytes.fromhex(be(22, 2) + be(16, 2) + be(0, 4) + be(4, 8) + be(1, 4) + be(0, 4))  # one block, the fifth
    assert run(unit, "42000000000000001800", out=unmap).status == GOOD
    assert store.content == bytes(1 << 20)


def test_the_physical_block_is_the_stores() -> None:
    assert exponent(coarse()[1]) == 3
    assert exponent(coarse(4096)[1]) == 0
    assert exponent(coarse(physical_block_size=16384)[1]) == 5, "the configuration may say more"
    assert exponent(coarse(physical_block_size=512)[1]) == 3, "but not less"
    assert exponent(disk()) == 0
    limits = run(coarse()[1], "1201b0004000", 64).data
    assert int.from_bytes(limits[6:8], "big") == 8  # OPTIMAL TRANSFER LENGTH GRANULARITY
    assert int.from_bytes(limits[28:32], "big") == 8  # OPTIMAL UNMAP GRANULARITY


@pytest.mark.parametrize("kind", ["disk", "cdrom"])
def test_a_store_below_one_block_is_refused_with_both_numbers(kind: str) -> None:
    size = 4096 if kind == "disk" else 2048
    config = LunConfig(type=kind, target=3, block_size=4096 if kind == "disk" else 512, storage=SOME)
    with pytest.raises(ConfigError, match=f"lun 0:3:0: the store has 512 bytes, less than a block of {size}"):
        build_unit(config, MemoryBackend(512), VirtualClock())


def test_a_medium_below_one_block_is_not_inserted() -> None:
    unit = Cdrom(None, Identity(), VirtualClock())
    with pytest.raises(ConfigError, match="512 bytes, less than a block of 2048"):
        unit.insert(MemoryBackend(512))
    assert unit.backend is None and unit.medium_state() == "absent"
    unit.insert(MemoryBackend(4096))
    assert unit.blocks == 2


def test_a_medium_with_large_blocks_is_inserted_and_ejected() -> None:
    unit = disk(absent=True, removable=True)
    store = Coarse(1 << 20)
    unit.insert(store)
    settle(unit)
    assert exponent(unit) == 3
    ejected = unit.eject()
    assert isinstance(ejected, Backend) and ejected is not store
    unit.insert(ejected)  # as it came out
    settle(unit)
    assert run(unit, write10(1, 1), out=b"b" * 512).status == GOOD
    assert store.content[512:1024] == b"b" * 512
    unit.eject()
    unit.insert(MemoryBackend(1 << 20))
    settle(unit)
    assert exponent(unit) == 0


def test_a_file_cut_below_one_block_leaves_no_block_to_speak_of(tmp_path: Path) -> None:
    """READ CAPACITY answered one block, which does not exist."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8192))
    clock = VirtualClock(1)
    loop = EventLoop(clock)
    workers = WorkerPool(loop, threads=1)
    unit = build_unit(LunConfig(block_size=4096, storage=SOME), FileBackend(path, loop, workers), clock)
    assert isinstance(unit, Disk)
    bus = ScsiBus()
    bus.attach(0, 0, unit)
    told: list[str] = []
    bus.on_storage = lambda event, target, lun: told.append(event)
    settle(unit)
    assert run(unit, "25" + "00" * 9, 8).data[:4] == (1).to_bytes(4, "big")
    for size, ready in ((512, False), (8192, True)):
        with path.open("r+b") as file:
            file.truncate(size)
        store = unit.backend
        assert isinstance(store, FileBackend)
        store.check_size()
        while store.size != size:
            loop.run_once(None)
        result = run(unit, "00" * 6)
        assert result.condition == (sense.NOT_READY_TO_READY_CHANGE if ready else sense.NOT_READY_CAUSE_NOT_REPORTABLE)
        settle(unit)
        result = run(unit, "25" + "00" * 9, 8)
        assert (result.status == GOOD) == ready
        if not ready:
            assert run(unit, CAPACITY16, 32).condition == sense.NOT_READY_CAUSE_NOT_REPORTABLE
            assert run(unit, read10(0, 1), 4096).condition == sense.NOT_READY_CAUSE_NOT_REPORTABLE
            assert unit.medium_state() == "gone"
    assert run(unit, read10(1, 1), 4096).status == GOOD
    assert "error: the store has 512 bytes, less than a block of 4096" in told
    bus.close()
    workers.shutdown()
    loop.close()
