"""The enclosure."""

from __future__ import annotations

from hba.clock import VirtualClock
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.enclosure.pages import SLOTS
from hba.scsi.server import Identity
from tests.scsi.util import be, disk, run, settle


def enclosure() -> Enclosure:
    unit = Enclosure(Identity(product="BOX"), VirtualClock())
    settle(unit)
    return unit


def receive(unit: Enclosure, code: int) -> bytes:
    data = run(unit, f"1c01{code:02x}040000", 1024).data
    assert data[0] == code and int.from_bytes(data[2:4], "big") == len(data) - 4
    return data


def send(unit: Enclosure, data: bytes) -> int:
    return run(unit, f"1d1000{be(len(data), 2)}00", out=data).condition


def test_it_is_no_disk() -> None:
    unit = enclosure()
    data = run(unit, "120000006000", 96).data
    assert data[0] == 0x0D and data[6] & 0x40
    assert run(unit, "000000000000").status == 0
    assert run(unit, "28000000000000000100", 512).condition == sense.INVALID_COMMAND_OPERATION_CODE
    assert run(unit, "1a003f00ff00", 255).data[3] == 0


def test_supported_pages() -> None:
    unit = enclosure()
    for code in receive(unit, 0)[4:]:
        receive(unit, code)
    assert run(unit, "1c01ff040000", 1024).condition == sense.INVALID_FIELD_IN_CDB


def test_configuration_matches_status() -> None:
    unit = enclosure()
    configuration, status = receive(unit, 1), receive(unit, 2)
    types = configuration[8 + 2]
    headers = configuration[8 + 40 : 8 + 40 + 4 * types]
    elements = sum(headers[at + 1] + 1 for at in range(0, len(headers), 4))
    assert len(status) == 8 + 4 * elements


def test_slots_show_the_bus() -> None:
    unit = enclosure()
    bus = ScsiBus()
    bus.attach(6, 0, unit)
    bus.attach(2, 0, disk())
    status = receive(unit, 2)
    codes = [status[12 + 4 * slot] & 0x0F for slot in range(SLOTS)]
    assert [slot for slot, code in enumerate(codes) if code == 1] == [2, 6]
    assert set(codes) == {1, 5}


def test_lamps() -> None:
    unit = enclosure()
    control = bytearray(receive(unit, 2))
    control[8:] = bytes(len(control) - 8)
    at = 12 + 4 * 3
    control[at : at + 4] = bytes((0x80, 0, 0x02, 0x20))
    assert send(unit, bytes(control)) == 0
    assert unit.identify == {3} and unit.fault == {3}
    assert receive(unit, 2)[at + 2 : at + 4] == bytes((0x02, 0x20))
    control[at + 2] = 0
    control[-4:] = bytes((0x80, 0x80, 0, 0))
    assert send(unit, bytes(control)) == 0
    assert unit.identify == set() and unit.identify_enclosure
    control[4] = 1
    assert send(unit, bytes(control)) == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert send(unit, bytes(control[:-4])) == sense.PARAMETER_LIST_LENGTH_ERROR
    assert send(unit, bytes((0x05, 0, 0, 0))) == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert send(unit, bytes(4)) == 0
