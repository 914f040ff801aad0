"""FORMAT UNIT and SANITIZE, in the foreground and in the background."""

from __future__ import annotations

import errno

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk
from hba.storage.memory import MemoryBackend
from tests.scsi.util import Deferred, be, disk, make_task, read10, run, write10

TUR = "000000000000"
BLOCK_ERASE, OVERWRITE, CRYPTO, EXIT = 0x02, 0x01, 0x03, 0x1F


def sanitize(action: int, length: int = 0, flags: int = 0) -> str:
    return f"48{action | flags:02x}0000000000{be(length, 2)}00"


def overwrite_list(pattern: bytes, count: int = 1, flags: int = 0) -> bytes:
    return bytes((count | flags, 0)) + len(pattern).to_bytes(2, "big") + pattern


def advance(unit: Disk) -> None:
    assert isinstance(unit.clock, VirtualClock)
    for _ in range(1000):
        unit.clock.advance(1)


def whole(unit: Disk) -> bytes:
    return run(unit, read10(0, unit.blocks), unit.blocks * 512).data


def dirty(**options: object) -> Disk:
    unit = disk(1 << 18, **options)
    run(unit, write10(0, unit.blocks), out=b"x" * (unit.blocks * 512))
    return unit


def test_format_makes_zeros() -> None:
    unit = dirty()
    assert run(unit, "040000000000").status == 0
    assert whole(unit) == bytes(1 << 18)


def test_format_with_a_pattern() -> None:
    unit = dirty()
    assert run(unit, "041000000000", out=bytes((0, 0x88, 0, 0)) + bytes((0, 1, 0, 2)) + b"ab").status == 0
    assert whole(unit) == b"ab" * (1 << 17)


@pytest.mark.parametrize(
    "header",
    [bytes((1, 0, 0, 0)), bytes((0, 0x40, 0, 0)), bytes((0, 0, 0, 8)) + bytes(8), bytes((0, 0x88, 0, 0, 0, 7, 0, 0))],
)
def test_format_refuses_what_it_cannot_do(header: bytes) -> None:
    unit = dirty()
    assert run(unit, "041000000000", out=header).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert run(unit, "041000000000", out=b"\x00").condition == sense.PARAMETER_LIST_LENGTH_ERROR
    assert whole(unit) == b"x" * (1 << 18)


def test_format_in_the_background() -> None:
    unit = dirty()
    assert run(unit, "041000000000", out=bytes((0, 0x02, 0, 0))).status == 0
    result = run(unit, TUR)
    assert result.condition == sense.NOT_READY_FORMAT_IN_PROGRESS
    assert result.sense[15] & 0x80
    assert run(unit, read10(0, 1), 512).condition == sense.NOT_READY_FORMAT_IN_PROGRESS
    assert sense.condition_of(run(unit, "030000001200", 18).data) == sense.NOT_READY_FORMAT_IN_PROGRESS
    assert run(unit, "120000002400", 36).status == 0
    advance(unit)
    assert run(unit, TUR).status == 0
    assert whole(unit) == bytes(1 << 18)


def test_format_of_a_protected_disk() -> None:
    assert run(disk(read_only=True), "040000000000").condition == sense.WRITE_PROTECTED


def test_block_erase() -> None:
    unit = dirty()
    assert run(unit, sanitize(BLOCK_ERASE)).status == 0
    assert whole(unit) == bytes(1 << 18)
    assert unit.store().allocated(0, 1 << 18) == (False, 1 << 18)
    assert run(unit, sanitize(BLOCK_ERASE, 8), out=bytes(8)).condition == sense.INVALID_FIELD_IN_CDB


def test_overwrite() -> None:
    unit = dirty()
    data = overwrite_list(b"\xa5\x5a" * 256)
    assert run(unit, sanitize(OVERWRITE, len(data)), out=data).status == 0
    assert whole(unit) == b"\xa5\x5a" * (1 << 17)


def test_overwrite_repeats_short_patterns_and_inverts_between_passes() -> None:
    backend = Deferred(1 << 18, deferred=False)
    unit = disk(backend=backend)
    data = overwrite_list(b"\x0f" * 4, count=3, flags=0x80)
    assert run(unit, sanitize(OVERWRITE, len(data)), out=data).status == 0
    assert len([call for call in backend.calls if call[0] == "write"]) == 3
    assert whole(unit) == b"\x0f" * (1 << 18)


@pytest.mark.parametrize("length", [0, 1, 4, 517])
def test_overwrite_parameter_length(length: int) -> None:
    unit = disk()
    assert run(unit, sanitize(OVERWRITE, length), out=bytes(length)).condition == sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize(
    "data", [overwrite_list(bytes(512), count=0), bytes((1, 0, 0, 0)) + bytes(512), bytes((1, 0, 2, 4)) + bytes(512)]
)
def test_overwrite_parameter_content(data: bytes) -> None:
    unit = disk()
    assert run(unit, sanitize(OVERWRITE, len(data)), out=data).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST


def test_there_is_no_cryptographic_erase() -> None:
    unit = disk()
    assert run(unit, sanitize(CRYPTO)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, sanitize(EXIT)).status == 0
    assert run(disk(thin=False), sanitize(BLOCK_ERASE)).condition == sense.INVALID_FIELD_IN_CDB


def test_sanitize_in_the_background_lets_nearly_nothing_in() -> None:
    unit = dirty()
    assert run(unit, sanitize(BLOCK_ERASE, flags=0x80)).status == 0
    for cdb, room in ((TUR, 0), (read10(0, 1), 512), ("1b0000000100", 0), ("1a003f00ff00", 255)):
        assert run_now(unit, cdb, room) == sense.NOT_READY_SANITIZE_IN_PROGRESS
    assert run_now(unit, "120000002400", 36) == 0
    assert run_now(unit, "a0" + "00" * 5 + "000001000000", 16) == 0
    unit.reset("lun")
    assert unit.background is not None, "a reset does not stop it"
    advance(unit)
    assert run(unit, TUR).condition == sense.BUS_DEVICE_RESET_OCCURRED
    assert run(unit, TUR).status == 0
    assert whole(unit) == bytes(1 << 18)


def run_now(unit: Disk, cdb: str, room: int) -> int:
    task = make_task(cdb, room)
    assert unit.execute([task])
    return sense.condition_of(task.sense)


def test_without_immed_the_command_waits_but_others_are_answered() -> None:
    backend = Deferred(1 << 18)
    unit = disk(backend=backend)
    task = make_task(sanitize(BLOCK_ERASE))
    ended: list[object] = []
    task.done = ended.append
    assert not unit.execute([task])
    advance(unit)
    assert run_now(unit, TUR, 0) == sense.NOT_READY_SANITIZE_IN_PROGRESS
    while backend.pending:
        assert not ended
        backend.finish()
        advance(unit)
    assert ended == [task] and task.status == 0


def test_a_failed_sanitize_keeps_the_unit_shut_until_it_is_repeated() -> None:
    backend = Deferred(1 << 18, deferred=False)
    unit = disk(backend=backend)
    backend.fail_next = StorageError("broken", errno.EIO)
    assert run(unit, sanitize(BLOCK_ERASE)).condition == sense.SANITIZE_COMMAND_FAILED
    assert run(unit, read10(0, 1), 512).condition == sense.SANITIZE_COMMAND_FAILED
    assert run(unit, sanitize(EXIT)).condition == sense.INVALID_FIELD_IN_CDB  # AUSE was 0
    assert run(unit, sanitize(BLOCK_ERASE)).status == 0
    assert run(unit, read10(0, 1), 512).status == 0


def test_exit_failure_mode_when_it_was_allowed() -> None:
    backend = Deferred(1 << 18, deferred=False)
    unit = disk(backend=backend)
    backend.fail_next = StorageError("broken", errno.EIO)
    assert run(unit, sanitize(BLOCK_ERASE, flags=0x20)).condition == sense.SANITIZE_COMMAND_FAILED
    assert run(unit, sanitize(EXIT)).status == 0
    assert run(unit, read10(0, 1), 512).status == 0


def test_close_stops_what_runs_in_the_background() -> None:
    unit = dirty()
    run(unit, sanitize(BLOCK_ERASE, flags=0x80))
    unit.close()
    advance(unit)


def test_a_sanitize_that_finds_no_space_says_so_and_is_continued() -> None:
    store = MemoryBackend(64 << 20, limit=8 << 20)
    told: list[str] = []
    unit = disk(backend=store)
    bus = ScsiBus()
    bus.on_storage = lambda event, target, lun: told.append(event)
    bus.attach(0, 0, unit)
    pattern = bytes((0x01, 0, 0, 4)) + b"\xa5" * 4
    assert run(unit, "48010000000000000800", out=pattern).condition == sense.SANITIZE_COMMAND_FAILED
    assert any("may not use more than" in text for text in told)
    assert store.used <= 8 << 20
    assert run(unit, "000000000000").condition == sense.SANITIZE_COMMAND_FAILED
    store.limit = 128 << 20
    assert run(unit, "48010000000000000800", out=pattern).status == 0
    assert run(unit, read10(0, 1), 512).data == b"\xa5" * 512
