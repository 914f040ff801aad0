"""Buffers, diagnostics, time stamps, log pages, defects, ports."""

from __future__ import annotations

import pytest

from hba.clock import MS, VirtualClock
from hba.scsi import sense
from hba.scsi.spc.buffers import DATA_CAPACITY, ECHO_CAPACITY
from tests.scsi.util import be, disk, read10, run, settle, write10


def test_the_echo_buffer() -> None:
    unit = disk()
    assert run(unit, "3c0a0000000000001000", 16).condition == sense.COMMAND_SEQUENCE_ERROR
    assert run(unit, "3b0a0000000000001000", out=b"0123456789abcdef").status == 0
    assert run(unit, "3c0a0000000000000800", 16).data == b"01234567"
    assert run(unit, "3c0b0000000000000400", 4).data == bytes((0, 0)) + ECHO_CAPACITY.to_bytes(2, "big")
    assert run(unit, f"3b0a00000000{be(ECHO_CAPACITY + 1, 3)}00", out=bytes(5000)).condition == 0x052400


def test_the_data_buffer() -> None:
    unit = disk()
    assert run(unit, "3c030000000000000400", 4).data == b"\x00" + DATA_CAPACITY.to_bytes(3, "big")
    assert run(unit, "3b020000001000000400", out=b"data").status == 0
    assert run(unit, "3c020000000e00000800", 8).data == b"\x00\x00data\x00\x00"
    assert run(unit, f"3b0200{be(DATA_CAPACITY, 3)}00000100", out=b"x").condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "3b020000000000000400", out=b"x").condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "3c020100000000000400", 4).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "3b050000000000000400", out=bytes(4)).condition == sense.INVALID_FIELD_IN_CDB
    assert len(unit.buffer) <= DATA_CAPACITY


def test_self_tests_are_logged() -> None:
    unit = disk()
    assert run(unit, "1d0400000000").status == 0
    assert run(unit, "1d2000000000").status == 0
    assert run(unit, "1dc000000000").status == 0
    assert run(unit, "1d6000000000").condition == sense.INVALID_FIELD_IN_CDB
    log = run(unit, "4d005000000000040000", 1024).data
    assert len(log) == 4 + 20 * 20
    assert log[8] >> 5 == 6 and log[28] >> 5 == 1 and log[48] == 0
    assert run(unit, "1c010000ff00", 255).data == bytes.fromhex("0000000100")


@pytest.mark.parametrize("code", [0x00, 0x02, 0x03, 0x05, 0x06, 0x0D, 0x0E, 0x10, 0x11, 0x15, 0x2F])
def test_log_pages(code: int) -> None:
    unit = disk()
    assert code in run(unit, "4d004000000000ff0000", 255).data[4:]
    page = run(unit, f"4d00{0x40 | code:02x}00000000040000", 1024).data
    assert page[0] & 0x3F == code
    assert int.from_bytes(page[2:4], "big") == len(page) - 4
    if code:
        at, found = 4, []
        while at < len(page):
            found.append(int.from_bytes(page[at : at + 2], "big"))
            at += 4 + page[at + 3]
        assert at == len(page) and found == sorted(found)


def test_log_counters_count() -> None:
    unit = disk()
    run(unit, write10(0, 4), out=bytes(2048))
    run(unit, read10(0, 2), 1024)

    def processed(code: int) -> int:
        page = run(unit, f"4d00{0x40 | code:02x}0000000500ff00", 255).data
        assert page[4:6] == b"\x00\x05"
        return int.from_bytes(page[8:16], "big")

    assert processed(0x02) == 2048 and processed(0x03) == 1024


def test_log_sense_refuses() -> None:
    unit = disk()
    assert run(unit, "4d007e00000000ff00", 255).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "4d004d0000000900ff00", 255).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "4d00c000000000ff00", 255).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "4d0040ff000000ff0000", 255).data[:2] == b"\x40\xff"
    assert run(disk(rotation_rate=7200), "4d005100000000ff0000", 255).condition == sense.INVALID_FIELD_IN_CDB


def test_timestamps() -> None:
    unit = disk()
    settle(unit, 7, 3)
    assert isinstance(unit.clock, VirtualClock)
    unit.clock.advance(5 * MS)
    assert run(unit, "a30f00000000000000ff0000", 255).data == bytes.fromhex("000a0000" + "000000000005" + "0000")
    stamp = bytes(4) + (1_000_000).to_bytes(6, "big") + bytes(2)
    assert run(unit, "a40f000000000000000c0000", out=stamp).status == 0
    assert run(unit, "000000000000", initiator=3).condition == sense.TIMESTAMP_CHANGED
    unit.clock.advance(7 * MS)
    data = run(unit, "a30f00000000000000ff0000", 255).data
    assert data[2] == 2 and int.from_bytes(data[4:10], "big") == 1_000_007
    assert run(unit, "a40f00000000000000080000", out=bytes(8)).condition == sense.PARAMETER_LIST_LENGTH_ERROR


def test_defect_lists_are_empty() -> None:
    unit = disk()
    assert run(unit, "37001d00000000000800", 8).data == bytes((0, 0x1D, 0, 0))
    assert run(unit, "b71d00000000000000080000", 8).data == bytes((0, 0x1D, 0, 0, 0, 0, 0, 0))


def test_target_port_groups() -> None:
    unit = disk()
    data = run(unit, "a30a00000000000000ff0000", 255).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == 12
    assert data[6:8] == b"\x00\x01" and data[11] == 1
    extended = run(unit, "a32a00000000000000ff0000", 255).data
    assert int.from_bytes(extended[:4], "big") == len(extended) - 4 and extended[4] == 0x10
