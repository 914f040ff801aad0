"""The CD/DVD drive."""

from __future__ import annotations

import pytest

from hba.clock import VirtualClock
from hba.scsi import sense
from hba.scsi.optical.cdrom import LARGEST_CD, Cdrom
from hba.scsi.optical.structure import ONE_LAYER
from hba.scsi.server import Identity
from hba.storage.memory import MemoryBackend
from tests.scsi.util import Result, read10, run, settle

TUR = "000000000000"
EJECT, LOAD, LOCK = "1b0000000200", "1b0000000300", "1e0000000100"
GESN = "4a010000100000000800"
EJECT_REQUEST, NEW, REMOVED = 1, 2, 3


def image(sectors: int) -> MemoryBackend:
    backend = MemoryBackend(sectors * 2048)
    assert backend.write([memoryview(b"CD001".ljust(2048, b"."))], 16 * 2048, lambda error: None)
    return backend


def drive(sectors: int | None = 1000) -> Cdrom:
    unit = Cdrom(None if sectors is None else image(sectors), Identity(), VirtualClock())
    settle(unit)
    return unit


def test_identity_and_capacity() -> None:
    unit = drive()
    data = run(unit, "120000006000", 96).data
    assert data[0] == 0x05 and data[1] == 0x80
    assert run(unit, "25", 8).data == bytes.fromhex("000003e700000800")


@pytest.mark.parametrize("cdb", [read10(16, 1), "a80000000010000000010000", "be000000001000000110000000"])
def test_reading(cdb: str) -> None:
    assert run(drive(), cdb, 2048).data.startswith(b"CD001.")


def test_read_cd_gives_user_data_only() -> None:
    unit = drive()
    assert run(unit, "be0000000010000001f80000", 4096).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "be0400000010000001100000", 2048).condition == sense.ILLEGAL_MODE_FOR_THIS_TRACK
    assert run(unit, "be0000000010000001000000", 2048).transferred == 0
    assert run(unit, "be00000003e8000001100000", 2048).condition == sense.LBA_OUT_OF_RANGE


def test_nothing_can_be_written() -> None:
    unit = drive()
    assert run(unit, "2a000000000000000100", out=bytes(2048)).condition == sense.INVALID_COMMAND_OPERATION_CODE
    assert unit.protected
    with pytest.raises(ValueError, match="cannot be written"):
        unit.set_read_only(False)
    with pytest.raises(ValueError, match="image"):
        unit.resize(4096)


def test_table_of_contents() -> None:
    unit = drive()
    assert run(unit, "43000000000000006400", 100).data == bytes.fromhex("0012010100140100000000000014aa00000003e8")
    assert run(unit, "43020000000000006400", 100).data == bytes.fromhex("0012010100140100000002000014aa0000000f19")
    assert run(unit, "4300000000000aa06400".replace("0aa0", "aa00"), 100).data[:2] == bytes((0, 10))
    assert run(unit, "43000100000000006400", 100).data == bytes.fromhex("000a01010014010000000000")
    full = run(unit, "43020200000000006400", 100).data
    assert len(full) == 4 + 4 * 11
    assert run(unit, "43000000000005006400", 100).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "43000500000000006400", 100).condition == sense.INVALID_FIELD_IN_CDB
    # the format where SFF-8020i had it
    assert run(unit, "43000000000000006440", 100).data[:2] == bytes((0, 10))


@pytest.mark.parametrize(("sectors", "profile"), [(1000, 0x08), (LARGEST_CD + 1, 0x10), (None, 0)])
def test_profiles(sectors: int | None, profile: int) -> None:
    unit = drive(sectors)
    data = run(unit, "4600000000000000ff00", 255).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert int.from_bytes(data[6:8], "big") == profile
    one = run(unit, "4602000300000000ff00", 255).data
    assert one[8:10] == b"\x00\x03" and len(one) == 8 + 8
    assert run(unit, "4603000000000000ff00", 255).condition == sense.INVALID_FIELD_IN_CDB
    current = run(unit, "4601000000000000ff00", 255).data
    assert len(current) <= len(data)


def test_disc_and_track_information() -> None:
    unit = drive()
    disc = run(unit, "5100000000000000ff00", 255).data
    assert len(disc) == 34 and disc[2] == 0x0E
    track = run(unit, "5201000000010000ff00", 255).data
    assert len(track) == 36 and int.from_bytes(track[24:28], "big") == 1000
    assert run(unit, "5201000000020000ff00", 255).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "5200000003e80000ff00", 255).condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, "42000000000000000400", 4).data == bytes((0, 0x15, 0, 0))
    assert run(unit, "42004001000000001000", 16).condition == sense.INVALID_FIELD_IN_CDB


def test_capabilities_page() -> None:
    data = run(drive(), "5a002a0000000000ff00", 255).data
    assert data[8:16] == bytes.fromhex("0000000000000800")
    assert data[16] & 0x3F == 0x2A and data[17] == len(data) - 18


def test_the_tray() -> None:
    unit = drive()
    assert run(unit, "bd" + "00" * 8 + "080000", 8).data[1] == 0
    assert run(unit, EJECT).status == 0
    assert run(unit, TUR).condition == sense.NOT_READY_TRAY_OPEN
    assert run(unit, "bd" + "00" * 8 + "080000", 8).data[1] == 0x10
    assert run(unit, LOAD).status == 0
    assert run(unit, TUR).status == 0


def test_media_events() -> None:
    unit = drive()
    assert run(unit, GESN, 8).data == bytes.fromhex("0006045600020000")
    assert run(unit, "4a000000100000000800", 8).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "4a010000080000000800", 8).data == bytes.fromhex("00028056")  # nobody asks for what there is
    run(unit, LOCK)
    with pytest.raises(ValueError, match="locked"):
        unit.eject()
    assert run(unit, GESN, 8).data[4:6] == bytes((1, 2))
    unit.eject(force=True)
    assert run(unit, GESN, 8).data[4:6] == bytes((3, 1))
    unit.insert(image(2000))
    assert run(unit, "4a010000100000000400", 4).data == bytes.fromhex("00060456")
    assert run(unit, GESN, 8).data[4:6] == bytes((2, 2))
    assert run(unit, GESN, 8).data[4:6] == bytes((0, 2))
    assert run(unit, TUR).condition == sense.NOT_READY_TO_READY_CHANGE
    assert run(unit, "25", 8).data[:4] == bytes.fromhex("000007cf")


def test_events_do_not_pile_up() -> None:
    unit = drive()
    for _ in range(100):
        unit.removal_requested()
        unit.medium_event(True)
        unit.removal_requested()
    assert poll(unit) == [(NEW, 2), (EJECT_REQUEST, 2)]


def poll(unit: Cdrom) -> list[tuple[int, int]]:
    """(event, media status) until there is none."""
    found = []
    while (event := run(unit, GESN, 8).data)[4]:
        found.append((event[4], event[5]))
    return found


def refuse_to_eject(unit: Cdrom) -> None:
    assert run(unit, LOCK).status == 0
    with pytest.raises(ValueError, match="locked"):
        unit.eject()


def test_an_eject_request_goes_with_the_disc_it_was_about() -> None:
    """udev ejects what is in the drive when it hears of one."""
    unit = drive()
    refuse_to_eject(unit)
    unit.eject(force=True)
    unit.insert(image(2000))
    assert poll(unit) == [(NEW, 2)]
    settle(unit)
    refuse_to_eject(unit)  # this one is about the new disc
    assert poll(unit) == [(EJECT_REQUEST, 2)]


@pytest.mark.parametrize(
    ("steps", "events"),
    [
        ("r", [(EJECT_REQUEST, 2)]),
        ("rr", [(EJECT_REQUEST, 2)]),
        ("rf", [(REMOVED, 1)]),
        ("rg", [(REMOVED, 1)]),  # the guest did as it was asked
        ("rgl", [(NEW, 2)]),
        ("f", [(REMOVED, 1)]),
        ("fi", [(NEW, 2)]),
        ("fif", [(REMOVED, 1)]),
        ("fifi", [(NEW, 2)]),
        ("fir", [(NEW, 2), (EJECT_REQUEST, 2)]),
        ("firfi", [(NEW, 2)]),
    ],
)
def test_media_events_are_about_the_disc_that_is_there(steps: str, events: list[tuple[int, int]]) -> None:
    """r: the host's wish is refused, f: it insists, i: it inserts; g: the guest ejects, l: it loads."""
    unit = drive()
    for step in steps:
        if step == "r":
            refuse_to_eject(unit)
        elif step == "f":
            unit.eject(force=True)
        elif step == "i":
            unit.insert(image(2000))
            settle(unit)
        else:
            run(unit, "1e0000000000")
            assert run(unit, EJECT if step == "g" else LOAD).status == 0
    names = {EJECT_REQUEST: "EjectRequest", NEW: "NewMedia", REMOVED: "MediaRemoval"}
    assert unit.describe()["media_events"] == [names[event] for event, _ in events]
    assert poll(unit) == events


def test_a_wish_for_an_empty_tray_is_not_about_the_disc_that_comes() -> None:
    unit = drive(None)
    refuse_to_eject(unit)
    unit.insert(image(1000))
    assert poll(unit) == [(NEW, 2)]


def test_nothing_is_left_of_the_time_before_power_on() -> None:
    unit = drive()
    refuse_to_eject(unit)
    unit.reset("power-on")
    assert poll(unit) == []
    assert run(unit, TUR).condition == sense.POWER_ON_OCCURRED


def test_an_empty_drive() -> None:
    unit = drive(None)
    assert run(unit, TUR).condition == sense.NOT_READY_TRAY_CLOSED
    for cdb in (read10(0, 1), "43000000000000006400", "5100000000000000ff00", "25"):
        assert run(unit, cdb, 2048).condition == sense.NOT_READY_TRAY_CLOSED
    assert run(unit, "bb00ffffffff000000000000").status == 0


# -- classes of events ----------------------------------------------------------------------------------------------


def gesn(unit: Cdrom, classes: int, room: int = 8) -> bytes:
    return run(unit, f"4a010000{classes:02x}0000{room:04x}00", room).data


OPERATIONAL, POWER, MEDIA, BUSY = 1, 2, 4, 6


def test_the_lowest_class_with_an_event_comes_first() -> None:
    unit = drive()
    everything = 0xFE
    assert gesn(unit, everything) == bytes.fromhex("0006015600000000"), "nothing has happened: the first class says so"
    unit.eject()
    run(unit, "1b0000003000")  # Standby
    assert gesn(unit, everything) == bytes.fromhex("0006015602000001")  # features have changed
    assert gesn(unit, everything) == bytes.fromhex("0006025601030000")  # power: changed, to standby
    assert gesn(unit, everything) == bytes.fromhex("0006045603010000")  # media: removed, tray open
    assert gesn(unit, everything) == bytes.fromhex("0006015600000000")
    assert gesn(unit, 1 << BUSY) == bytes.fromhex("0006065600000000")
    assert gesn(unit, 1 << POWER | 1 << MEDIA) == bytes.fromhex("0006025600030000")


def test_an_operational_change_stays_until_it_was_read_whole() -> None:
    unit = drive()
    unit.eject()
    assert gesn(unit, 1 << OPERATIONAL, room=4) == bytes.fromhex("00060156")
    assert gesn(unit, 1 << OPERATIONAL)[4:] == bytes.fromhex("02000001")
    assert gesn(unit, 1 << OPERATIONAL)[4:] == bytes(4)
    unit.insert(image(1000))
    assert gesn(unit, 1 << OPERATIONAL)[4:] == bytes.fromhex("02000001")


@pytest.mark.parametrize("condition", range(1, 16))
def test_power_conditions_of_a_drive(condition: int) -> None:
    unit = drive()
    states = {2: 2, 3: 3, 5: 4}
    result = run(unit, f"1b000000{condition << 4:02x}00")
    if condition not in states:
        assert (result.condition, result.sense[15:18]) == (sense.INVALID_FIELD_IN_CDB, bytes((0xCF, 0, 4)))
        return
    assert gesn(unit, 1 << POWER)[4:6] == bytes((1, states[condition]))
    assert run(unit, "120000006000", 96).status == 0
    assert gesn(unit, 1 << POWER)[4:6] == bytes((0, states[condition])), "INQUIRY wakes nobody"
    assert run(unit, read10(16, 1), 2048).status == 0
    assert gesn(unit, 1 << POWER)[4:6] == bytes((1, 1)), "a READ does"


def test_no_format_layers() -> None:
    result = run(drive(), "1b0000000700")
    assert (result.condition, result.sense[15:18]) == (sense.INVALID_FIELD_IN_CDB, bytes((0xCA, 0, 4)))


# -- DVD structures -------------------------------------------------------------------------------------------------


def structure(unit: Cdrom, code: int, layer: int = 0, media: int = 0) -> Result:
    return run(unit, f"ad{media:02x}00000000{layer:02x}{code:02x}ffff0000", 65535)


def test_the_physical_format_of_one_layer() -> None:
    unit = drive(LARGEST_CD + 1)
    data = structure(unit, 0).data
    assert len(data) == 2052 and data[:4] == bytes.fromhex("08020000")
    layer = data[4:]
    assert layer[0] >> 4 == 0, "a DVD-ROM"
    assert layer[2] == 0x01, "one layer, embossed"
    assert layer[4:8] == bytes.fromhex("00030000")
    assert int.from_bytes(layer[8:12], "big") - 0x30000 + 1 == unit.blocks
    assert structure(unit, 0, layer=1).condition == sense.INVALID_FIELD_IN_CDB


def test_two_layers_have_all_sectors_between_them() -> None:
    unit = drive(ONE_LAYER + 1)
    layers = [structure(unit, 0, layer).data[4:] for layer in (0, 1)]
    assert all(layer[2] == 0x21 for layer in layers)
    assert sum(int.from_bytes(layer[8:12], "big") - 0x30000 + 1 for layer in layers) == unit.blocks


def test_the_list_of_structures_is_what_can_be_read() -> None:
    unit = drive(LARGEST_CD + 1)
    data = structure(unit, 0xFF).data
    entries = [data[at : at + 4] for at in range(4, len(data), 4)]
    assert [entry[0] for entry in entries] == [0, 1, 4]
    for code in range(256):
        result = structure(unit, code)
        if code == 0xFF:
            continue
        listed = [int.from_bytes(entry[2:], "big") for entry in entries if entry[0] == code]
        if listed:
            assert [len(result.data)] == listed
        else:
            assert result.condition == sense.INVALID_FIELD_IN_CDB


def test_other_media_have_none() -> None:
    assert structure(drive(), 0).condition == sense.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT
    assert structure(drive(None), 0).condition == sense.NOT_READY_TRAY_CLOSED
    assert structure(drive(LARGEST_CD + 1), 0, media=1).condition == sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize(
    ("first", "end", "condition", "data"),
    [
        ("000210", "000211", 0, b"CD001."),  # 0:2:16 is LBA 16
        ("000210", "000210", 0, b""),
        ("000000", "000001", sense.LBA_OUT_OF_RANGE, b""),
        ("000211", "000210", sense.INVALID_FIELD_IN_CDB, b""),
        ("003c00", "013c00", sense.INVALID_FIELD_IN_CDB, b""),
        ("00024b", "000300", sense.INVALID_FIELD_IN_CDB, b""),
    ],
)
def test_read_cd_msf(first: str, end: str, condition: int, data: bytes) -> None:
    result = run(drive(), f"b90000{first}{end}100000", 2048)
    assert result.condition == condition and result.data[:6] == data
