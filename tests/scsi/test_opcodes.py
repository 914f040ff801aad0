"""REPORT SUPPORTED OPERATION CODES agrees with what the unit does, for every device type."""

from __future__ import annotations

import pytest

from hba.clock import VirtualClock
from hba.scsi import sense
from hba.scsi.command import CommandTable
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.server import DeviceServer, Identity
from hba.storage.memory import MemoryBackend
from tests.scsi.util import be, disk, run, settle


def build(kind: str) -> DeviceServer:
    unit: DeviceServer
    if kind == "cdrom":
        unit = Cdrom(MemoryBackend(1 << 20), Identity(), VirtualClock())
    elif kind == "enclosure":
        unit = Enclosure(Identity(), VirtualClock())
    else:
        unit = disk(thin=kind == "thin")
    settle(unit)
    return unit


def rsoc(options: int, opcode: int = 0, action: int = 0, timeouts: bool = False) -> str:
    return f"a30c{options | (0x80 if timeouts else 0):02x}{opcode:02x}{be(action, 2)}000100000000"


def listed(unit: DeviceServer, timeouts: bool = False) -> list[bytes]:
    data = run(unit, rsoc(0, timeouts=timeouts), 65536).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    size = 20 if timeouts else 8
    return [data[at : at + size] for at in range(4, len(data), size)]


@pytest.mark.parametrize("kind", ["thin", "full", "cdrom", "enclosure"])
def test_every_operation_code_is_listed_or_refused(kind: str) -> None:
    unit = build(kind)
    known = {entry[0] for entry in listed(unit)}
    for opcode in range(256):
        result = run(unit, bytes((opcode,)) + bytes(15))
        assert (result.condition == sense.INVALID_COMMAND_OPERATION_CODE) == (opcode not in known), hex(opcode)
        settle(unit)


@pytest.mark.parametrize("kind", ["thin", "full", "cdrom", "enclosure"])
def test_the_one_command_forms(kind: str) -> None:
    unit = build(kind)
    for entry in listed(unit):
        opcode, action, has_actions = entry[0], int.from_bytes(entry[2:4], "big"), entry[5] & 1
        length = int.from_bytes(entry[6:8], "big")
        right, wrong = (2, 1) if has_actions else (1, 2)
        assert run(unit, rsoc(wrong, opcode, action), 64).condition == sense.INVALID_FIELD_IN_CDB
        for option in (right, 3):
            data = run(unit, rsoc(option, opcode, action), 64).data
            assert data[1] & 0x07 == 3 and int.from_bytes(data[2:4], "big") == length
            assert data[4] == opcode and len(data) == 4 + length


def test_timeouts() -> None:
    unit = build("thin")
    for entry in listed(unit, timeouts=True):
        assert entry[5] & 0x02
        assert int.from_bytes(entry[8:10], "big") == 0x0A
        assert 0 < int.from_bytes(entry[12:16], "big") <= int.from_bytes(entry[16:20], "big")
    data = run(unit, rsoc(1, 0x28, timeouts=True), 64).data
    assert data[1] & 0x80 and len(data) == 4 + 10 + 12


def test_what_is_not_there() -> None:
    unit = build("thin")
    assert run(unit, rsoc(1, 0xC0), 64).data == bytes((0, 1, 0, 0))
    assert run(unit, rsoc(2, 0x48, 0x03), 64).data == bytes((0, 1, 0, 0))
    assert run(unit, rsoc(3, 0x28, 1), 64).data == bytes((0, 1, 0, 0))
    assert run(unit, rsoc(4, 0x28), 64).condition == sense.INVALID_FIELD_IN_CDB


def test_the_usage_map_is_what_is_checked() -> None:
    """Every bit outside the map is refused; READ(10) as the example."""
    unit = build("thin")
    usage = run(unit, rsoc(1, 0x28), 64).data[4:]
    for byte in range(1, 10):
        for bit in range(8):
            cdb = bytearray(bytes.fromhex("28000000000000000000"))
            cdb[byte] |= 1 << bit
            refused = run(unit, bytes(cdb), 512).condition == sense.INVALID_FIELD_IN_CDB
            assert refused == (not usage[byte] >> bit & 1), (byte, bit)


def test_task_management_functions() -> None:
    unit = build("thin")
    assert run(unit, "a30d00000000" + "00001000" + "0000", 64).data == bytes((0xCA, 0, 0, 0))
    assert len(run(unit, "a30d80000000" + "00001000" + "0000", 64).data) == 16


def test_a_declaration_that_contradicts_itself() -> None:
    table = CommandTable()
    table.add("9e10 00", "WITH", service=True)(lambda unit, task: None)
    table.add("28 00", "PLAIN")(lambda unit, task: None)
    with pytest.raises(ValueError, match="with and without"):
        table.add("2801", "WITH", service=True)(lambda unit, task: None)
