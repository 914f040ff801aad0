"""T10 protection information, type 1."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi import sense
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.disk.protection import PIECE, ProtectedStore, guard_of
from hba.scsi.disk.tags import in_file
from hba.scsi.server import Identity
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool
from tests.scsi.util import Deferred, Result, be, disk, make_task, read10, read16, run, settle, write10, write16
from tests.storage.test_nbd import until

PI = 8


def protected(size: int = 1 << 18, **options: object) -> Disk:
    return disk(size, protection=True, **options)


def store(unit: Disk) -> ProtectedStore:
    backend = unit.backend
    assert isinstance(backend, ProtectedStore)
    return backend


def mixed(lba: int, *blocks: bytes, guard: int | None = None, tag: int = 0x55, reference: int | None = None) -> bytes:
    result = b""
    for index, block in enumerate(blocks):
        crc = guard_of(block) if guard is None else guard
        ref = lba + index if reference is None else reference
        result += block + crc.to_bytes(2, "big") + tag.to_bytes(2, "big") + ref.to_bytes(4, "big")
    return result


def test_the_guard_is_the_standards() -> None:
    """Test vectors of SBC-4, "CRC test cases": 32 bytes of zeros, of FFh, counting up, counting down."""
    assert guard_of(bytes(32)) == 0x0000
    assert guard_of(b"\xff" * 32) == 0xA293
    assert guard_of(bytes(range(32))) == 0x0224
    assert guard_of(bytes([0xFF] * 2 + [0] * 30)) == 0x21B8


def test_it_is_announced() -> None:
    unit = protected()
    assert run(unit, "120000006000", 96).data[5] & 0x01
    assert run(unit, "9e10" + "00" * 8 + "000000200000", 32).data[12] == 0x01
    assert run(unit, "12018600ff00", 255).data[4] == 0x05
    usage = run(unit, "a30c0128000000000040" + "0000", 64).data[4:]
    assert usage[1] == 0xF8
    plain = disk()
    assert not run(plain, "120000006000", 96).data[5] & 0x01
    assert run(plain, read10(0, 1, 0x20), 520).condition == sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize(("write", "read"), [(write10, read10), (write16, read16)])
def test_what_was_written_without_gets_it(write: object, read: object) -> None:
    assert callable(write) and callable(read)
    unit = protected()
    block = bytes(range(256)) * 2
    assert run(unit, write(3, 2), out=block * 2).status == 0
    assert run(unit, read(3, 2), 1024).data == block * 2
    assert run(unit, read(3, 2, 0x20), 1040).data == mixed(3, block, block, tag=0)


def test_what_was_written_with_it_is_kept() -> None:
    unit = protected()
    data = mixed(7, b"a" * 512, b"b" * 512, tag=0x1234)
    assert run(unit, write10(7, 2, 0x20), out=data).status == 0
    assert run(unit, read10(7, 2, 0x60), 1040).data == data
    assert run(unit, read10(7, 2), 1024).data == b"a" * 512 + b"b" * 512


@pytest.mark.parametrize(
    ("field", "guard_checked", "reference_checked"),
    [(1, True, True), (2, False, True), (3, False, False), (4, True, False), (5, True, True)],
)
def test_what_is_checked_on_writing(field: int, guard_checked: bool, reference_checked: bool) -> None:
    unit = protected()
    flags = field << 5
    wrong_guard = run(unit, write10(0, 1, flags), out=mixed(0, b"x" * 512, guard=1))
    assert wrong_guard.condition == (sense.GUARD_CHECK_FAILED if guard_checked else 0)
    wrong_reference = run(unit, write10(1, 1, flags), out=mixed(1, b"x" * 512, reference=9))
    assert wrong_reference.condition == (sense.REFERENCE_TAG_CHECK_FAILED if reference_checked else 0)
    if reference_checked:
        assert int.from_bytes(wrong_reference.sense[3:7], "big") == 1
        assert run(unit, read10(1, 1), 512).data == bytes(512)


def test_what_is_checked_on_reading() -> None:
    unit = protected()
    run(unit, write10(0, 1, 0x60), out=mixed(0, b"x" * 512, guard=1))
    for cdb, room in ((read10(0, 1), 512), (read10(0, 1, 0x20), 520), (read10(0, 1, 0x80), 520), (read16(0, 1), 512)):
        result = run(unit, cdb, room)
        assert result.condition == sense.GUARD_CHECK_FAILED and result.transferred == 0
    assert run(unit, read10(0, 1, 0x40), 520).status == 0
    assert run(unit, read10(0, 1, 0x60), 520).status == 0
    assert run(unit, f"2f20{be(0, 4)}00000100").condition == sense.GUARD_CHECK_FAILED
    assert run(unit, f"2f60{be(0, 4)}00000100").status == 0
    assert run(unit, f"2f22{be(0, 4)}00000100", out=bytes(520)).condition == sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("field", [6, 7])
def test_reserved_values(field: int) -> None:
    unit = protected()
    assert run(unit, read10(0, 1, field << 5), 520).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, write10(0, 1, field << 5), out=bytes(520)).condition == sense.INVALID_FIELD_IN_CDB


def test_silent_damage_is_found() -> None:
    unit = protected()
    run(unit, write10(0, 8), out=b"x" * 4096)
    inner = store(unit).inner
    assert isinstance(inner, MemoryBackend)
    inner.write([memoryview(b"!")], 3 * 512 + 100, lambda error: None)
    result = run(unit, read10(0, 8), 4096)
    assert result.condition == sense.GUARD_CHECK_FAILED
    assert int.from_bytes(result.sense[3:7], "big") == 3


def test_what_was_never_written_is_not_checked() -> None:
    unit = protected()
    assert run(unit, read10(0, 1, 0x20), 520).data == bytes(512) + b"\xff" * 8
    run(unit, write10(0, 1), out=b"x" * 512)
    unmap = bytes((0, 22, 0, 16, 0, 0, 0, 0)) + bytes(8) + (1).to_bytes(4, "big") + bytes(4)
    assert run(unit, "42000000000000001800", out=unmap).status == 0
    assert run(unit, read10(0, 1, 0x20), 520).data == bytes(512) + b"\xff" * 8


def test_other_writers_keep_it_right() -> None:
    unit = protected()
    assert run(unit, f"9300{be(0, 8)}{be(4, 4)}0000", out=b"s" * 512).status == 0
    assert run(unit, f"8900{be(1, 8)}000000010000", out=b"s" * 512 + b"n" * 512).status == 0
    assert run(unit, f"8b00{be(2, 8)}{be(1, 4)}0000", out=b"\x80" * 512).status == 0
    assert run(unit, f"9c00{be(3, 8)}0000{be(1, 2)}0000", out=b"t" * 512).status == 0
    data = run(unit, read10(0, 4, 0x20), 4 * 520).data
    assert data == mixed(0, b"s" * 512, b"n" * 512, bytes((ord("s") | 0x80,)) * 512, b"t" * 512, tag=0)


def test_too_little_data() -> None:
    unit = protected()
    assert run(unit, write10(0, 1, 0x20), out=bytes(519)).condition == sense.INVALID_FIELD_IN_CDB
    short = run(unit, read10(0, 1, 0x20), 100)
    assert (short.transferred, short.task.overrun) == (100, 420)


def test_formatting_switches_it_off_and_on() -> None:
    unit = protected()
    assert run(unit, "040000000000").status == 0
    assert run(unit, "9e10" + "00" * 8 + "000000200000", 32).data[12] == 0
    assert run(unit, read10(0, 1, 0x20), 520).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, read10(0, 1), 512).status == 0
    assert run(unit, "048000000000").status == 0
    assert run(unit, "9e10" + "00" * 8 + "000000200000", 32).data[12] == 1
    assert run(unit, "04c000000000").condition == sense.INVALID_FIELD_IN_CDB
    assert run(disk(), "048000000000").condition == sense.INVALID_FIELD_IN_CDB


class Kept:
    """A disk whose information is in a file."""

    def __init__(self, path: Path, block_size: int = 512) -> None:
        self.loop = EventLoop()
        self.workers = WorkerPool(self.loop, threads=2)
        self.path = path
        self.data = MemoryBackend(1 << 18)
        self.unit = self.open(block_size)

    def open(self, block_size: int = 512) -> Disk:
        unit = Disk(
            self.data,
            Identity(),
            self.loop.clock,
            DiskOptions(
                protection=True, block_size=block_size, tags=partial(in_file, self.path, self.loop, self.workers)
            ),
        )
        settle(unit)
        return unit

    def command(self, cdb: str, room: int = 0, out: bytes | None = None) -> Result:
        task = make_task(cdb, room, out)
        ended: list[object] = []
        task.done = ended.append
        if not self.unit.execute([task]):
            until(self.loop, lambda: bool(ended))
        return Result(task, task.data.read() if task.data is not None else b"")

    def close(self) -> None:
        store(self.unit).tags.close()
        assert self.workers.shutdown()
        self.loop.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path / "pi")
    yield kept
    kept.close()


def test_it_can_be_kept_in_a_file(kept: Kept) -> None:
    assert kept.path.stat().st_mode & 0o777 == 0o600
    kept.command(write10(0, 1, 0x20), out=mixed(0, b"k" * 512, tag=0x77))
    kept.command("35000000000000000000")
    store(kept.unit).tags.close()
    kept.unit = kept.open()
    assert kept.command(read10(0, 1, 0x20), 520).data == mixed(0, b"k" * 512, tag=0x77)


def test_whether_the_disk_is_formatted_with_it_is_kept_as_well(kept: Kept) -> None:
    assert kept.command("040000000000").status == 0
    store(kept.unit).tags.close()
    kept.unit = kept.open()
    assert not kept.unit.protection_enabled
    assert kept.command("048000000000").status == 0
    store(kept.unit).tags.close()
    kept.unit = kept.open()
    assert kept.unit.protection_enabled


@pytest.mark.parametrize("content", [b"", b"a letter to my mother", bytes(8192)])
def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"not (protection information of ours|a positive multiple of 512)"):
        Kept(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "elsewhere"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pi"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path = tmp_path / "nowhere" / "pi"
    with pytest.raises(StorageError, match=str(path)):
        Kept(path)


def test_a_file_in_use_is_refused(kept: Kept) -> None:
    with pytest.raises(StorageError, match="in use"):
        Kept(kept.path)


def test_a_file_for_other_blocks_is_refused(kept: Kept) -> None:
    store(kept.unit).tags.close()
    with pytest.raises(StorageError, match="blocks of 512 bytes, this one has 4096"):
        kept.open(4096)
    kept.unit = kept.open()


def test_a_full_disk_is_an_error_of_the_command(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a signal that ended the adapter: the file was mapped."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hba.storage.descriptor.pwritev", full)
    result = kept.command(write10(0, 1), out=bytes(512))
    assert result.condition == sense.SPACE_ALLOCATION_FAILED_WRITE_PROTECT


@pytest.mark.parametrize(
    "cdb", [write10(0, 0x2800), read10(0, 0x2800), read10(0, 0x2000, 0x20), write10(0, 0x2000, 0x20)]
)
def test_much_at_once_is_done_in_pieces(cdb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB took 15.8 s in one turn. The guards of one turn are those of a piece: 1 MiB, of 5 MiB here."""
    unit = protected(64 << 20)
    turns: Counter[int] = Counter()  # blocks, by the number of the turn
    number = 0

    def counted(block: memoryview) -> int:
        turns[number] += 1
        return guard_of(block)

    def next_turn(clock: VirtualClock) -> None:
        nonlocal number
        number += 1
        run_due(clock)

    run_due = VirtualClock.run_due
    monkeypatch.setattr(VirtualClock, "run_due", next_turn)

    assert run(unit, write10(0, 0x2800), out=bytes(range(256)) * (0x2800 * 2)).status == 0
    monkeypatch.setattr("hba.scsi.disk.protection.guard_of", counted)
    if cdb.startswith("28"):
        assert run(unit, cdb, 0x2800 * 512 if cdb[2:4] == "00" else 0x2000 * 520).status == 0
    else:
        data = bytes(0x2800 * 512) if cdb[2:4] == "00" else b"".join(mixed(lba, b"q" * 512) for lba in range(0x2000))
        assert run(unit, cdb, out=data).status == 0
    assert turns.total() == (0x2800 if cdb[2:4] == "00" else 0x2000)
    assert max(turns.values()) <= PIECE // 512


def test_formatting_costs_no_memory() -> None:
    """2.5 GiB of information that says nothing were written."""
    unit = protected(1 << 38)
    assert run(unit, "040000000000").status == 0
    assert run(unit, "048000000000").status == 0
    tags = store(unit).tags.store
    assert isinstance(tags, MemoryBackend) and tags.used < 1 << 16


def test_a_read_between_the_halves_of_a_write_is_read_again() -> None:
    """Data and information come to their stores one after the other; a guest that reads meanwhile sees no error."""
    backend = Deferred(1 << 18)
    unit = disk(backend=backend, protection=True)
    write = make_task(write10(0, 1), out=b"x" * 512)
    write.done = lambda task: None
    assert not unit.execute([write])  # the information is there already, the data is not
    ended: list[object] = []
    read = make_task(read10(0, 1), 512)
    read.done = ended.append
    assert not unit.execute([read])
    backend.pending.rotate(1)
    backend.finish()  # the read first: old data
    assert isinstance(unit.clock, VirtualClock)
    backend.finish()
    unit.clock.advance(1)
    backend.finish_all()
    assert ended == [read] and read.status == 0
    assert read.data is not None and read.data.read() == b"x" * 512


def test_resizing_keeps_what_is_below() -> None:
    unit = protected()
    run(unit, write10(0, 1, 0x20), out=mixed(0, b"k" * 512))
    unit.resize(1 << 19)
    run(unit, "000000000000")
    assert run(unit, read10(0, 1, 0x20), 520).data == mixed(0, b"k" * 512)
    assert run(unit, write10(1023, 1), out=b"l" * 512).status == 0
    assert run(unit, read10(1023, 1, 0x20), 520).data == mixed(1023, b"l" * 512, tag=0)


def test_with_a_store_that_answers_later() -> None:
    backend = Deferred(1 << 18)
    unit = disk(backend=backend, protection=True)
    ended: list[object] = []
    write = make_task(write10(0, 1), out=b"x" * 512)
    write.done = ended.append
    assert not unit.execute([write])
    backend.finish()
    backend.memory.write([memoryview(b"!")], 0, lambda error: None)
    read = make_task(read10(0, 1), 512)
    read.done = ended.append
    assert not unit.execute([read])
    backend.finish()
    assert ended == [write, read]
    assert sense.condition_of(read.sense) == sense.GUARD_CHECK_FAILED


WITHOUT = """
import sys
sys.modules["fastcrc"] = None
sys.modules["fastcrc.crc16"] = None
sys.path.insert(0, ".")
from hba.errors import StorageError
from tests.scsi.util import disk
disk(1 << 18)
try:
    disk(1 << 18, protection=True)
except StorageError as error:
    print(error)
"""


def test_without_the_package_for_it_only_protection_is_missing() -> None:
    """A distribution's Python may not have it; the lab's guest runs the server with such a one."""
    result = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "needs the Python package fastcrc" in result.stdout
