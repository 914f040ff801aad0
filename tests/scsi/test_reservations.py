"""RESERVE/RELEASE and persistent reservations, between initiators A and B."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi import sense
from hba.scsi.disk.disk import Disk
from hba.scsi.state import SavedState
from hba.scsi.task import RESPONSE_ABORTED, Task
from hba.storage.workers import WorkerPool
from tests.scsi.util import (
    CHECK_CONDITION,
    GOOD,
    RESERVATION_CONFLICT,
    Deferred,
    Result,
    disk,
    make_task,
    read10,
    run,
    settle,
    write10,
)
from tests.storage.test_nbd import until

A, B, C = 7, 6, 5
KEY_A, KEY_B, KEY_C = 0xAAAA, 0xBBBB, 0xCCCC
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE, MOVE = range(8)
WE, EA, WERO, EARO, WEAR, EAAR = 1, 3, 5, 6, 7, 8
TUR = "000000000000"


def out(unit: Disk, who: int, action: int, key: int = 0, action_key: int = 0, kind: int = 0, flags: int = 0) -> Result:
    data = key.to_bytes(8, "big") + action_key.to_bytes(8, "big") + bytes((0, 0, 0, 0, flags, 0, 0, 0))
    return run(unit, f"5f{action:02x}{kind:02x}0000" + "0000001800", out=data, initiator=who)


def reserved(unit: Disk) -> tuple[int, int]:
    """(key, type) of the reservation; (0, 0) without one."""
    data = run(unit, "5e01000000000000ff00", 255, initiator=A).data
    if len(data) == 8:
        return 0, 0
    return int.from_bytes(data[8:16], "big"), data[21]


def keys(unit: Disk) -> list[int]:
    data = run(unit, "5e00000000000000ff00", 255, initiator=A).data
    return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]


def generation(unit: Disk) -> int:
    return int.from_bytes(run(unit, "5e00000000000000ff00", 255, initiator=A).data[:4], "big")


def pair(*kinds: int, state: SavedState | None = None) -> Disk:
    """A disk with A and B registered, and A's reservation of the type given."""
    unit = disk(state=state)
    settle(unit, A, B, C)
    assert out(unit, A, REGISTER, 0, KEY_A).status == GOOD
    assert out(unit, B, REGISTER, 0, KEY_B).status == GOOD
    for kind in kinds:
        assert out(unit, A, RESERVE, KEY_A, kind=kind).status == GOOD
    return unit


# -- RESERVE and RELEASE --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reserve", "release"), [("160000000000", "170000000000"), ("56" + "00" * 9, "57" + "00" * 9)])
def test_reserve_keeps_others_out_until_release(reserve: str, release: str) -> None:
    unit = disk()
    settle(unit, A, B)
    assert run(unit, reserve, initiator=A).status == GOOD
    assert run(unit, reserve, initiator=A).status == GOOD
    assert run(unit, read10(0, 1), 512, initiator=A).status == GOOD
    assert run(unit, read10(0, 1), 512, initiator=B).status == RESERVATION_CONFLICT
    assert run(unit, reserve, initiator=B).status == RESERVATION_CONFLICT
    assert run(unit, "120000002400", 36, initiator=B).status == GOOD
    assert run(unit, release, initiator=B).status == GOOD
    assert run(unit, read10(0, 1), 512, initiator=B).status == RESERVATION_CONFLICT
    assert run(unit, release, initiator=A).status == GOOD
    assert run(unit, read10(0, 1), 512, initiator=B).status == GOOD


def test_a_reset_ends_reserve_but_not_persistent_reservations() -> None:
    unit = disk()
    settle(unit, A, B)
    run(unit, "160000000000", initiator=A)
    unit.reset("lun")
    settle(unit, A, B)
    assert run(unit, read10(0, 1), 512, initiator=B).status == GOOD
    unit = pair(EA)
    unit.reset("bus")
    settle(unit, A, B, C)
    assert reserved(unit) == (KEY_A, EA)
    unit.reset("power-on")
    settle(unit, A, B, C)
    assert reserved(unit) == (0, 0) and keys(unit) == []


def test_the_two_kinds_exclude_each_other() -> None:
    unit = pair()
    assert run(unit, "160000000000", initiator=A).status == RESERVATION_CONFLICT
    unit = disk()
    run(unit, "160000000000", initiator=A)
    assert out(unit, A, REGISTER, 0, KEY_A).status == RESERVATION_CONFLICT
    assert run(unit, "5e00000000000000ff00", 255).status == RESERVATION_CONFLICT


# -- who may do what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "b_reads", "b_writes", "c_reads", "c_writes"),
    [
        (WE, True, False, True, False),
        (EA, False, False, False, False),
        (WERO, True, True, True, False),
        (EARO, True, True, False, False),
        (WEAR, True, True, True, False),
        (EAAR, True, True, False, False),
    ],
)
def test_access(kind: int, b_reads: bool, b_writes: bool, c_reads: bool, c_writes: bool) -> None:
    """A holds, B is registered, C is not."""
    unit = pair(kind)

    def may(cdb: str, who: int) -> bool:
        result = run(unit, cdb, 512, initiator=who) if cdb.startswith("28") else run(unit, cdb, 0, bytes(512), who)
        assert result.status in (GOOD, RESERVATION_CONFLICT)
        return result.status == GOOD

    assert may(read10(0, 1), A) and may(write10(0, 1), A)
    assert (may(read10(0, 1), B), may(write10(0, 1), B)) == (b_reads, b_writes)
    assert (may(read10(0, 1), C), may(write10(0, 1), C)) == (c_reads, c_writes)
    for always in (TUR, "120000002400", "5e02000000000000ff00"):
        assert run(unit, always, 255, initiator=C).status == GOOD


def test_starting_is_allowed_stopping_is_not() -> None:
    unit = pair(WE)
    assert run(unit, "1b0000000100", initiator=B).status == GOOD
    assert run(unit, "1b0000000000", initiator=B).status == RESERVATION_CONFLICT
    assert run(unit, "1e0000000000", initiator=B).status == GOOD
    assert run(unit, "1e0000000100", initiator=B).status == RESERVATION_CONFLICT


# -- registering ----------------------------------------------------------------------------------------------------


def test_register_change_and_unregister() -> None:
    unit = disk()
    settle(unit, A, B)
    assert out(unit, A, REGISTER, 0x1, KEY_A).status == RESERVATION_CONFLICT
    assert out(unit, A, REGISTER, 0, 0).status == GOOD and keys(unit) == []
    before = generation(unit)
    assert out(unit, A, REGISTER, 0, KEY_A).status == GOOD
    assert keys(unit) == [KEY_A] and generation(unit) == before + 1
    assert out(unit, A, REGISTER, 0, KEY_B).status == RESERVATION_CONFLICT
    assert out(unit, A, REGISTER, KEY_A, KEY_C).status == GOOD and keys(unit) == [KEY_C]
    assert out(unit, A, IGNORE, 0x99, KEY_A).status == GOOD and keys(unit) == [KEY_A]
    assert out(unit, A, REGISTER, KEY_A, 0).status == GOOD and keys(unit) == []


def test_reserve_needs_a_registration_and_the_right_key() -> None:
    unit = pair()
    assert out(unit, C, RESERVE, 0, kind=WE).status == RESERVATION_CONFLICT
    assert out(unit, A, RESERVE, KEY_B, kind=WE).status == RESERVATION_CONFLICT
    assert out(unit, A, RESERVE, KEY_A, kind=2).condition == sense.INVALID_FIELD_IN_CDB
    assert out(unit, A, RESERVE, KEY_A, kind=0x10 | WE).condition == sense.INVALID_FIELD_IN_CDB
    assert out(unit, A, RESERVE, KEY_A, kind=WE).status == GOOD
    assert out(unit, A, RESERVE, KEY_A, kind=WE).status == GOOD
    assert out(unit, A, RESERVE, KEY_A, kind=EA).status == RESERVATION_CONFLICT
    assert out(unit, B, RESERVE, KEY_B, kind=WE).status == RESERVATION_CONFLICT
    assert reserved(unit) == (KEY_A, WE)


def test_release() -> None:
    unit = pair(EARO)
    assert out(unit, B, RELEASE, KEY_B, kind=EARO).status == GOOD and reserved(unit) == (KEY_A, EARO)
    wrong = out(unit, A, RELEASE, KEY_A, kind=WE)
    assert wrong.condition == sense.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
    assert out(unit, A, RELEASE, KEY_A, kind=EARO).status == GOOD and reserved(unit) == (0, 0)
    assert run(unit, TUR, initiator=B).condition == sense.RESERVATIONS_RELEASED
    assert run(unit, TUR, initiator=A).status == GOOD


def test_unregistering_the_holder_releases() -> None:
    unit = pair(WERO)
    assert out(unit, A, REGISTER, KEY_A, 0).status == GOOD
    assert reserved(unit) == (0, 0)
    assert run(unit, TUR, initiator=B).condition == sense.RESERVATIONS_RELEASED
    unit = pair(EAAR)
    assert out(unit, A, REGISTER, KEY_A, 0).status == GOOD
    assert reserved(unit) == (0, EAAR)
    assert out(unit, B, REGISTER, KEY_B, 0).status == GOOD
    assert reserved(unit) == (0, 0)


def test_clear() -> None:
    unit = pair(EA)
    before = generation(unit)
    assert out(unit, B, CLEAR, KEY_B).status == GOOD
    assert run(unit, TUR, initiator=A).condition == sense.RESERVATIONS_PREEMPTED
    assert keys(unit) == [] and reserved(unit) == (0, 0) and generation(unit) == before + 1


# -- preempting -----------------------------------------------------------------------------------------------------


def test_preempt_takes_the_reservation_over() -> None:
    unit = pair(EA)
    before = generation(unit)
    assert out(unit, B, PREEMPT, KEY_B, KEY_A, kind=WE).status == GOOD
    assert run(unit, TUR, initiator=A).condition == sense.REGISTRATIONS_PREEMPTED
    assert reserved(unit) == (KEY_B, WE) and keys(unit) == [KEY_B] and generation(unit) == before + 1


def test_preempt_of_a_mere_registration_leaves_the_reservation() -> None:
    unit = pair(EA)
    assert out(unit, A, PREEMPT, KEY_A, KEY_B, kind=WE).status == GOOD
    assert reserved(unit) == (KEY_A, EA) and keys(unit) == [KEY_A]
    assert out(unit, A, PREEMPT, KEY_A, 0x1234, kind=WE).status == RESERVATION_CONFLICT
    assert out(unit, A, PREEMPT, KEY_A, 0, kind=WE).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST


def test_preempting_oneself_changes_the_type() -> None:
    unit = pair(EARO)
    assert out(unit, A, PREEMPT, KEY_A, KEY_A, kind=WERO).status == GOOD
    assert reserved(unit) == (KEY_A, WERO) and keys(unit) == [KEY_A, KEY_B]
    assert run(unit, TUR, initiator=B).condition == sense.RESERVATIONS_RELEASED


def test_preempt_of_all_registrants() -> None:
    unit = pair(WEAR)
    assert out(unit, C, IGNORE, 0, KEY_C).status == GOOD
    assert out(unit, B, PREEMPT, KEY_B, KEY_C, kind=EA).status == GOOD
    assert reserved(unit) == (0, WEAR) and keys(unit) == [KEY_A, KEY_B]
    assert out(unit, B, PREEMPT, KEY_B, 0, kind=EA).status == GOOD
    settle(unit, A)
    assert reserved(unit) == (KEY_B, EA) and keys(unit) == [KEY_B]


def test_preempt_and_abort_ends_the_victims_tasks() -> None:
    backend = Deferred(1 << 20)
    unit = disk(backend=backend)
    settle(unit, A, B)
    out(unit, A, REGISTER, 0, KEY_A)
    out(unit, B, REGISTER, 0, KEY_B)
    ended: list[Task] = []
    victim = make_task(read10(0, 1), 512, initiator=A)
    victim.done = ended.append
    assert not unit.execute([victim])
    preempting = make_task(
        "5f050100000000001800", out=KEY_B.to_bytes(8, "big") + KEY_A.to_bytes(8, "big") + bytes(8), initiator=B
    )
    assert unit.execute([preempting])
    assert ended == [victim] and victim.response == RESPONSE_ABORTED
    assert unit.reservations.keys == {B: KEY_B}


def test_register_and_move() -> None:
    unit = pair(EA)
    data = KEY_A.to_bytes(8, "big") + KEY_C.to_bytes(8, "big") + bytes((0, 0x02)) + bytes((0, 1)) + bytes((0, 0, 0, 24))
    data += bytes((1, 0)) + C.to_bytes(2, "big") + bytes(20)
    assert run(unit, "5f070000000000003000", out=data, initiator=A).status == GOOD
    assert unit.reservations.holds(C)
    assert unit.reservations.keys == {B: KEY_B, C: KEY_C}
    assert run(unit, "5f070000000000003000", out=data, initiator=A).status == RESERVATION_CONFLICT


# -- reporting and parameters ---------------------------------------------------------------------------------------


def test_read_full_status_names_initiators() -> None:
    unit = pair(EA)
    data = run(unit, "5e03000000000000ff00", 255).data
    assert int.from_bytes(data[4:8], "big") == len(data) - 8 == 2 * 48
    first, second = data[8:56], data[56:104]
    assert int.from_bytes(first[:8], "big") == KEY_A and first[12] == 1 and first[13] == EA
    assert int.from_bytes(second[:8], "big") == KEY_B and second[12] == 0
    assert first[24:28] == bytes((1, 0, 0, A))


def test_truncated_keys_keep_their_length() -> None:
    unit = pair()
    data = run(unit, "5e000000000000000800", 255).data
    assert len(data) == 8 and int.from_bytes(data[4:8], "big") == 16


@pytest.mark.parametrize("action", range(4, 32))
def test_service_actions_that_do_not_exist(action: int) -> None:
    unit = disk()
    assert run(unit, f"5e{action:02x}000000000000ff00", 255).condition == sense.INVALID_FIELD_IN_CDB


def test_parameter_list_length() -> None:
    unit = disk()
    assert run(unit, "5f000000000000001700", out=bytes(23)).condition == sense.PARAMETER_LIST_LENGTH_ERROR
    assert run(unit, "5f000000000000001800", out=bytes(10)).condition == sense.PARAMETER_LIST_LENGTH_ERROR


@pytest.mark.parametrize("flags", [0x01, 0x04, 0x08])
def test_what_is_not_supported_is_refused(flags: int) -> None:
    unit = disk()
    result = out(unit, A, REGISTER, 0, KEY_A, flags=flags)
    assert (result.status, result.condition) == (CHECK_CONDITION, sense.INVALID_FIELD_IN_PARAMETER_LIST)
    assert unit.reservations.keys == {}
    assert run(unit, "5e02000000000000ff00", 255).data == bytes.fromhex("00080080ea010000")


# -- persistence ----------------------------------------------------------------------------------------------------


def test_aptpl_survives_a_power_loss(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    unit = pair(state=SavedState(path))
    assert out(unit, A, REGISTER, KEY_A, KEY_A, flags=1).status == GOOD
    assert out(unit, A, RESERVE, KEY_A, kind=EARO).status == GOOD
    assert run(unit, "5e02000000000000ff00", 255).data[2:4] == bytes((0x01, 0x81))
    unit.state.close()
    again = disk(state=SavedState(path))
    settle(again, A, B, C)
    assert keys(again) == [KEY_A, KEY_B] and reserved(again) == (KEY_A, EARO)
    assert run(again, write10(0, 1), out=bytes(512), initiator=C).status == RESERVATION_CONFLICT
    again.reset("power-on")
    settle(again, A, B, C)
    assert reserved(again) == (KEY_A, EARO)


def test_without_aptpl_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    unit = pair(EA, state=SavedState(path))
    assert out(unit, A, REGISTER, KEY_A, KEY_A, flags=1).status == GOOD
    assert out(unit, A, REGISTER, KEY_A, KEY_A, flags=0).status == GOOD
    unit.state.close()
    again = disk(state=SavedState(path))
    assert keys(again) == [] and reserved(again) == (0, 0)


def test_what_cannot_be_saved_is_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    unit = pair(state=SavedState(folder / "state.json"))
    shutil.rmtree(folder)
    assert out(unit, C, IGNORE, 0, KEY_C, flags=1).status == CHECK_CONDITION
    assert keys(unit) == [KEY_A, KEY_B] and not unit.reservations.aptpl


FORMAT = '{"format": "hba unit state", '


@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "{}", '{"format": "another"}', "{" * 100_000, '{"a":' * 50_000, FORMAT + '"more": 1}'),
        FORMAT + '"reservations": {"keys": [1], "holder": null, "type": 0, "generation": 0}}',
        FORMAT + '"reservations": {"keys": {"7": "x"}, "holder": null, "type": 0, "generation": 0}}',
        FORMAT + '"reservations": {"keys": {}, "holder": null, "type": 2, "generation": 0}}',
        FORMAT + '"reservations": {"keys": {}, "holder": 70000, "type": 1, "generation": 0}}',
        FORMAT + '"mode_pages": {"08/00": "zz"}}',
        FORMAT + f'"mode_pages": {{"{"8" * 10_000}": "00"}}}}',
        FORMAT + '"mode_pages": {}}' + " " * (1 << 20),
    ],
)
def test_what_is_not_ours_is_refused_at_the_start_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(StorageError, match=r"is not a unit's saved state .*; choose another state_file, or delete it"):
        SavedState(path)
    assert path.read_text() == content


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "socket", "nowhere"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "zero":
            path = Path("/dev/zero")
        elif kind == "socket":
            listener.bind(str(path))
        else:
            path = tmp_path / "nowhere" / "state"
        with pytest.raises(StorageError, match=str(path)):
            SavedState(path)


def test_a_file_of_another_unit_is_refused(tmp_path: Path) -> None:
    first = SavedState(tmp_path / "state")
    with pytest.raises(StorageError, match="in use by another unit"):
        SavedState(tmp_path / "state")
    first.put("mode_pages", {"08/00": "00"}, lambda error: None)  # a new file, which is locked as well
    with pytest.raises(StorageError, match="in use by another unit"):
        SavedState(tmp_path / "state")
    first.close()
    again = SavedState(tmp_path / "state")
    assert again.get("mode_pages") == {"08/00": "00"}
    again.close()


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = SavedState(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="cannot be saved: No space left"):
        state.put("mode_pages", {"08/00": "00"}, lambda error: None)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert state.get("mode_pages") is None
    state.close()


def test_a_trap_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".state.{os.getpid()}.new").symlink_to(victim)
    state = SavedState(tmp_path / "state")
    state.put("mode_pages", {"08/00": "00"}, lambda error: None)
    assert victim.read_text() == "precious"
    state.close()


def test_saving_is_done_beside_the_loop_and_others_wait(loop: EventLoop, workers: WorkerPool, tmp_path: Path) -> None:
    """An fsync of 0.9 s held up the guest's registers."""
    gate = threading.Event()
    state = SavedState(tmp_path / "state", workers)
    write = state._write

    def slowly(path: Path, sections: dict[str, Any]) -> None:
        gate.wait()
        write(path, sections)

    state._write = slowly  # type: ignore[method-assign]
    unit = pair(state=state)
    assert not gate.is_set()
    task = make_task("5f000000000000001800", out=KEY_A.to_bytes(8, "big") * 2 + bytes((0, 0, 0, 0, 1, 0, 0, 0)))
    task.initiator = A
    ended: list[object] = []
    task.done = ended.append
    assert not unit.execute([task])
    read = make_task("28" + "00" * 9, 512)
    read.done = ended.append
    assert not unit.execute([read]), "it waits until the registration is stable"
    gate.set()
    until(loop, lambda: len(ended) == 2)
    assert ended == [task, read] and task.status == GOOD
    unit.close()
