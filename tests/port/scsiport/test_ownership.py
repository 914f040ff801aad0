"""OW: who owns an SRB, and which of its members may be read and written."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from hba.port.buffers import POISON
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SP_UNTAGGED,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_RESET_BUS,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_PENDING,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.verifier import RuleViolation
from tests.port.fakes import Rig

Make = Callable[..., Rig]


def test_OW_01_the_srb_is_not_touched_after_completion(rig: Make) -> None:
    r = rig()
    srb = r.command()
    held: Any = r.held(srb)
    r.finish(srb)
    assert held.cdb == srb.cdb
    held.scsi_status = 2
    assert r.rules == ["OW-01", "OW-01"]
    assert srb.scsi_status == 0  # not written
    finding = r.verifier.findings[0]
    assert "test_ownership.py" in finding.where and "test_OW_01" in finding.where
    assert any("complete" in line for line in finding.history)


def test_OW_01_not_even_in_the_same_callback(rig: Make) -> None:
    r = rig()
    srb = r.command()
    held = r.held(srb)

    def work() -> None:
        r.miniport.finish(held)
        r.miniport.port.log_error(held, 0, 0, 0, 1, 1)

    r.hardware(work)
    assert r.rules == ["OW-01"]


def test_OW_01_nor_is_its_mapped_buffer(rig: Make) -> None:
    r = rig(options={"map_buffers": True})
    srb = r.command()
    buffer = r.held(srb).data_buffer
    assert buffer.write(b"x") == 1 and r.rules == []
    r.finish(srb)
    buffer.read()
    assert r.rules == ["OW-01"]


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_OW_02_a_second_completion_is_ignored(rig: Make, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    srb = r.command()
    held = r.held(srb)

    def work() -> None:
        r.miniport.finish(held)
        r.miniport.port.notification(0, held)

    r.hardware(work)
    r.hardware(lambda: r.miniport.port.notification(0, held))
    assert r.done == [srb]
    assert r.rules == (["OW-02", "OW-02"] if verifier == "report" else [])
    assert r.port.snapshot()["counters"]["double completions"] == 2


def test_OW_02_the_history_of_what_is_completed_for_ever_has_an_end(rig: Make) -> None:
    r = rig()
    held = r.held(r.command())
    for _ in range(200):
        r.hardware(lambda: r.miniport.port.notification(0, held))
    assert r.rules.count("OW-02") == 199
    assert len(r.verifier.findings[-1].history) <= 65  # with the line for its start


def test_OW_02_something_that_is_no_srb(rig: Make) -> None:
    r = rig()
    r.hardware(lambda: r.miniport.port.notification(0, "srb"))
    assert r.rules == ["OW-02"]


def test_OW_02_strict_raises_into_the_offender(rig: Make) -> None:
    r = rig(verifier="strict")
    held = r.held(r.command())
    raised: list[BaseException] = []

    def work() -> None:
        r.miniport.finish(held)
        try:
            r.miniport.port.notification(0, held)
        except RuleViolation as error:
            raised.append(error)
            raise

    r.hardware(work)
    assert len(raised) == 1
    assert r.rules == ["OW-02"]  # the exception itself is no second finding


@pytest.mark.parametrize("status", [SRB_STATUS_PENDING, 0x0C, 0x17, 0x26, 0x3F])
def test_OW_03_invalid_status(rig: Make, status: int) -> None:
    r = rig()
    srb = r.command()
    r.finish(srb, status)
    assert r.rules == ["OW-03"]
    assert srb.srb_status == SRB_STATUS_INTERNAL_ERROR


def test_OW_04_success_with_a_bad_scsi_status(rig: Make) -> None:
    r = rig()
    r.command()
    r.finish(scsi_status=SCSISTAT_CHECK_CONDITION)
    assert r.rules == ["OW-04"]


def test_OW_05_success_without_data(rig: Make) -> None:
    r = rig()
    r.command()
    r.finish(data_transfer_length=0)
    assert r.rules == ["OW-05"]
    r.command(size=0)
    r.finish()
    assert r.rules == ["OW-05"]  # nothing was asked for


@pytest.mark.parametrize(
    ("member", "value"),
    [("path_id", 3), ("cdb", b""), ("data_buffer", None), ("time_out_value", 1), ("mdl", None), ("queue_tag", 7)],
)
def test_OW_06_read_only_members(rig: Make, member: str, value: object) -> None:
    r = rig()
    srb = r.command()
    before = getattr(srb, member)
    setattr(r.held(srb), member, value)
    assert r.rules == ["OW-06"]
    assert getattr(srb, member) == before


def test_OW_06_private_state_belongs_into_the_extension(rig: Make) -> None:
    r = rig()
    held: Any = r.held(r.command())
    held.my_state = 1
    assert r.rules == ["OW-06"]
    assert "extension" in r.verifier.findings[0].message


@pytest.mark.parametrize(("units", "rules"), [(8, ["OW-06"]), (9, []), (16, [])])
def test_OW_06_lun_with_more_than_8_units(rig: Make, units: int, rules: list[str]) -> None:
    r = rig(maximum_number_of_logical_units=units)
    r.held(r.command()).lun = 1
    assert r.rules == rules


def test_OW_06_direction_only_if_unspecified(rig: Make) -> None:
    r = rig()
    held = r.held(r.command(srb_flags=SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_UNSPECIFIED_DIRECTION))
    held.srb_flags = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_IN
    assert r.rules == []
    held.srb_flags = SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_DATA_OUT
    assert r.rules == ["OW-06"]


def test_OW_06_lengths_only_go_down(rig: Make) -> None:
    r = rig()
    srb = r.command(size=512)
    r.finish(srb, data_transfer_length=513, sense_info_buffer_length=19)
    assert r.rules == ["OW-06", "OW-06"]
    assert (srb.data_transfer_length, srb.sense_info_buffer_length) == (512, 18)


def test_OW_07_underrun(rig: Make) -> None:
    r = rig()
    r.command()
    r.finish(data_transfer_length=100)
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("OW-07", "warning")]
    srb = r.command()
    r.finish(srb, SRB_STATUS_DATA_OVERRUN, data_transfer_length=100)
    assert len(r.rules) == 1 and srb.data_transfer_length == 100


@pytest.mark.parametrize(
    ("status", "severity"), [(SRB_STATUS_SUCCESS, "warning"), (SRB_STATUS_DATA_OVERRUN, "violation")]
)
def test_OW_07_is_compared_with_what_the_device_moved(rig: Make, status: int, severity: str) -> None:
    r = rig()
    srb = r.command()
    windows = r.chip.windows
    assert windows is not None and srb.mdl is not None
    windows.open_now[srb.mdl][1] = 100
    r.finish(srb, status)
    assert [(f.rule, f.severity) for f in r.verifier.findings] == [("OW-07", severity)]


def test_OW_08_extension(rig: Make) -> None:
    r = rig(srb_extension_size=64)
    held: Any = r.held(r.command())
    extension = held.srb_extension
    assert len(extension) == 64 and set(bytes(extension)) == {POISON}  # the port does not initialise it
    extension[0:4] = b"mine"
    extension.task = "a command"
    assert bytes(extension.memory[:4]) == b"mine" and held.srb_extension.task == "a command"
    assert r.rules == []
    r.finish()
    assert r.rules == []
    held.srb_extension  # noqa: B018 - the access is the point
    assert r.rules == ["OW-08"]
    with pytest.raises(AttributeError):
        extension.task  # noqa: B018
    extension[0:4] = b"late"
    extension.task = "again"
    assert extension.task == "again"  # only told
    assert r.rules == ["OW-08"] * 4


def test_OW_08_the_memory_is_the_ports(rig: Make) -> None:
    """SrbExtension is a pointer the port sets: what it points to may be written, not the pointer."""
    r = rig(srb_extension_size=64)
    held: Any = r.held(r.command())
    before = held.srb_extension
    held.srb_extension = {"state": 1}
    assert r.rules == ["OW-08"] and held.srb_extension is before


def test_OW_08_a_view_that_is_written_after_the_completion(rig: Make) -> None:
    """Nobody sees the write itself; that the memory changed is seen when it is lent again."""
    r = rig(srb_extension_size=64)
    kept = r.held(r.command()).srb_extension.memory
    r.finish()
    kept[5] = 1
    for _ in range(70):  # the pieces are lent in turn
        assert set(r.held(r.command()).srb_extension.memory) == {POISON}
        r.finish()
    assert r.rules == ["OW-08"]
    assert "written after" in r.verifier.findings[0].message


def test_OW_08_extensions_are_lent_again(rig: Make) -> None:
    r = rig(srb_extension_size=100, need_physical_addresses=True)
    seen = set()
    for _ in range(200):
        held = r.held(r.command())
        seen.add(r.miniport.port.get_physical_address(None, held.srb_extension)[0])
        assert set(held.srb_extension.memory) == {POISON}
        held.srb_extension[0:4] = b"mine"
        r.finish()
    assert len(seen) == 64 and min(b - a for a, b in itertools.pairwise(sorted(seen))) == 112
    assert r.rules == []


def test_OW_09_a_command_has_no_next_srb(rig: Make) -> None:
    r = rig()
    srb = r.prepared(next_srb=r.prepared())
    r.port.submit(srb)
    held = r.held(srb)
    assert (held.cdb, held.lun) == (srb.cdb, 0)
    held.scsi_status = 2
    assert (held.scsi_status, srb.scsi_status) == (2, 2)
    assert r.rules == []
    assert held.next_srb is None
    assert r.rules == ["OW-09"]


def test_OW_08_no_extension_without_its_size(rig: Make) -> None:
    r = rig()
    held: Any = r.held(r.command())
    assert held.srb_extension is None
    held.srb_extension = 1
    assert r.rules == ["OW-08", "OW-08"]


@pytest.mark.parametrize(
    ("function", "member"),
    [
        (SRB_FUNCTION_RESET_BUS, "target_id"),
        (SRB_FUNCTION_RESET_BUS, "cdb"),
        (SRB_FUNCTION_FLUSH, "data_buffer"),
        (SRB_FUNCTION_IO_CONTROL, "cdb"),
        (SRB_FUNCTION_EXECUTE_SCSI, "next_srb"),
    ],
)
def test_OW_09_members_that_are_not_valid(rig: Make, function: int, member: str) -> None:
    r = rig(next="next", caches_data=True)
    srb = r.submit(function, cdb=bytes(6) if not function else b"")
    held = r.held(srb)
    value = getattr(held, member)
    assert r.rules == ["OW-09"]
    assert value in (0xDB, bytes([0xDB]) * 16, None)


def test_OW_09_valid_ones_are_fine(rig: Make) -> None:
    r = rig()
    victim = r.command()
    abort = r.submit(SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    held = r.held(abort)
    assert (held.path_id, held.target_id, held.lun) == (0, 0, 0)
    assert held.next_srb is r.held(victim)
    assert r.rules == []


def test_OW_10_lun_ff_is_no_unit(rig: Make) -> None:
    r = rig(maximum_number_of_logical_units=256)
    srb = r.submit(0, 0, 0xFF, cdb=bytes(6))
    assert srb.srb_status == SRB_STATUS_NO_DEVICE
    assert r.submit(0, 0, 0xFE, cdb=bytes(6)).srb_status == SRB_STATUS_PENDING


def test_get_srb_finds_what_is_active(rig: Make) -> None:
    r = rig()
    tagged, untagged = r.command(lun=0), r.command(lun=1, srb_flags=0)
    port = r.miniport.port
    assert port.get_srb(0, 0, 0, r.held(tagged).queue_tag) is r.held(tagged)
    assert port.get_srb(0, 0, 1, SP_UNTAGGED) is r.held(untagged)
    assert port.get_srb(0, 0, 0, 99) is None
    assert port.get_srb(0, 5, 0, 1) is None
    tag = r.held(tagged).queue_tag
    r.finish(tagged)
    assert port.get_srb(0, 0, 0, tag) is None


def test_without_a_verifier_the_miniport_gets_the_srb_itself(rig: Make) -> None:
    r = rig(verifier="off")
    srb: Srb = r.command()
    assert r.miniport.held[0] is srb
