"""INQUIRY, vital product data, mode pages, and truncation at the allocation length."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.scsi import sense
from hba.scsi.server import Identity
from hba.scsi.spc.vpd import device_identification, naa_of
from hba.scsi.state import SavedState
from tests.scsi.util import disk, run, settle, write10

TUR = "000000000000"


@pytest.mark.parametrize("allocation", [0, 1, 4, 5, 36, 95, 96, 97, 255, 256, 0xFFFF])
def test_inquiry_is_cut_at_the_allocation_length(allocation: int) -> None:
    unit = disk()
    whole = run(unit, "120000020000", 512).data
    assert len(whole) == 96 and whole[4] == 91
    result = run(unit, f"120000{allocation:04x}00", 512)
    assert result.status == 0
    assert result.data == whole[:allocation]
    assert result.transferred == min(allocation, 96)


def test_standard_inquiry_data() -> None:
    data = run(disk(removable=True), "120000006000", 96).data
    assert data[0] == 0x00 and data[1] == 0x80 and data[2] == 0x06 and data[3] & 0x0F == 2
    assert data[8:16] == b"HBA     " and data[16:32] == b"VIRTUAL DISK    "
    assert data[58:64] == bytes.fromhex("00a0046004c0")


def test_page_code_without_evpd() -> None:
    assert run(disk(), "120080002400", 36).condition == sense.INVALID_FIELD_IN_CDB
    assert run(disk(), "1201ff002400", 36).condition == sense.INVALID_FIELD_IN_CDB


def test_every_announced_page_is_there_and_has_its_length() -> None:
    unit = disk()
    codes = run(unit, "12010000ff00", 255).data
    assert codes[3] == len(codes) - 4
    assert list(codes[4:]) == sorted(codes[4:])
    for code in codes[4:]:
        page = run(unit, f"1201{code:02x}040000", 1024).data
        assert page[1] == code
        assert int.from_bytes(page[2:4], "big") == len(page) - 4


def test_designators_differ_between_units_and_stay_the_same() -> None:
    first, again, other = Identity(serial="a"), Identity(serial="a"), Identity(serial="b")
    assert naa_of(first) == naa_of(again) != naa_of(other)
    assert naa_of(first) >> 60 == 3
    assert naa_of(Identity(naa=0x5000C50012345678)) == 0x5000C50012345678
    page = device_identification(first)
    assert page[:4] == bytes((1, 3, 0, 8)) and page[12:16] == bytes((2, 1, 0, 25))


def test_odd_characters_do_not_get_out() -> None:
    from hba.scsi.spc.inquiry import text

    assert text("a\n\xe9b", 6) == b"a..b  "


# -- mode pages -----------------------------------------------------------------------------------------------------


def page(unit: object, code: int, subcode: int = 0, control: int = 0) -> bytes:
    from hba.scsi.disk.disk import Disk

    assert isinstance(unit, Disk)
    return run(unit, f"5a08{control << 6 | code:02x}{subcode:02x}000000040000", 1024).data[8:]


def select(*pages: bytes, flags: int = 0x10) -> tuple[str, int, bytes]:
    data = bytes(4) + b"".join(pages)
    return f"15{flags:02x}0000{len(data):02x}00", 0, data


def test_mode_sense_6_and_10_say_the_same() -> None:
    unit = disk()
    six = run(unit, "1a003f00ff00", 255).data
    ten = run(unit, "5a003f0000000000ff00", 255).data
    assert six[0] == len(six) - 1 and int.from_bytes(ten[:2], "big") == len(ten) - 2
    assert six[3] == 8 and ten[7] == 8
    assert six[4:] == ten[8:]
    assert six[4:12] == bytes.fromhex("0000080000000200")
    assert six[2] == ten[3] == 0x10


def test_long_lba_block_descriptor() -> None:
    unit = disk(3 << 40)
    data = run(unit, "5a100a0000000000ff00", 255).data
    assert data[4] == 1 and data[7] == 16
    assert int.from_bytes(data[8:16], "big") == unit.blocks and int.from_bytes(data[20:24], "big") == 512
    assert run(unit, "1a000a00ff00", 255).data[4:8] == b"\xff\xff\xff\xff"


def test_all_pages_with_and_without_subpages() -> None:
    unit = disk()
    assert b"\x4a\x01\x00\x1c" not in page(unit, 0x3F)
    assert b"\x4a\x01\x00\x1c" in page(unit, 0x3F, 0xFF)
    assert page(unit, 0x0A, 0xFF) == page(unit, 0x0A) + page(unit, 0x0A, 1)
    for cdb in ("1a083f010000", "1a083d00ff00", "1a080a02ff00"):
        assert run(unit, cdb, 255).condition == sense.INVALID_FIELD_IN_CDB


def test_changeable_default_and_saved() -> None:
    unit = disk()
    assert page(unit, 0x08, control=1)[2] == 0x04
    assert page(unit, 0x0A, control=1)[2:5] == bytes((0x04, 0, 0x08))
    run(unit, *select(page(unit, 0x08)[:2] + b"\x00" + page(unit, 0x08)[3:]))
    assert page(unit, 0x08)[2] == 0 and page(unit, 0x08, control=2)[2] == 0x04
    assert run(unit, "1a08c800ff00", 255).condition == sense.SAVING_PARAMETERS_NOT_SUPPORTED


def test_mode_select_refuses_what_may_not_change() -> None:
    unit = disk()
    control = bytearray(page(unit, 0x0A))
    control[3] ^= 0x20
    result = run(unit, *select(bytes(control)))
    assert result.condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert result.sense[15:18] == bytes((0x80 | 0x08 | 5, 0, 4 + 3))
    assert run(unit, *select(b"\x3d\x02\x00\x00")).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert run(unit, *select(page(unit, 0x08)[:-1])).condition == sense.PARAMETER_LIST_LENGTH_ERROR
    assert run(unit, *select(b"\x08\x04" + bytes(4))).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert run(unit, *select(page(unit, 0x08), flags=0)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, *select(page(unit, 0x08), flags=0x11)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, "151000000000").status == 0
    assert run(unit, "151000000300", out=bytes(3)).condition == sense.PARAMETER_LIST_LENGTH_ERROR


def test_one_wrong_page_changes_nothing() -> None:
    unit = disk()
    caching = bytearray(page(unit, 0x08))
    caching[2] = 0
    assert run(unit, *select(bytes(caching), b"\x3d\x00")).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert page(unit, 0x08)[2] == 0x04


@pytest.mark.parametrize(
    ("descriptor", "status"),
    [
        ("0000080000000200", 0),
        ("0000000000000200", 0),
        ("ffffffff00000000", 0),
        ("0000080000001000", 2),
        ("0000040000000200", 2),
    ],
)
def test_block_descriptors_in_mode_select(descriptor: str, status: int) -> None:
    unit = disk()
    data = bytes((0, 0, 0, 8)) + bytes.fromhex(descriptor)
    assert run(unit, "151000000c00", out=data).status == status


def test_others_are_told_of_changed_parameters() -> None:
    unit = disk()
    settle(unit, 7, 3)
    caching = page(unit, 0x08)
    assert run(unit, *select(caching)).status == 0
    assert run(unit, TUR, initiator=3).status == 0, "nothing has changed"
    run(unit, *select(caching[:2] + b"\x00" + caching[3:]))
    assert run(unit, TUR, initiator=3).condition == sense.MODE_PARAMETERS_CHANGED
    assert run(unit, TUR).status == 0


def test_software_write_protect() -> None:
    unit = disk()
    control = bytearray(page(unit, 0x0A))
    control[4] |= 0x08
    assert run(unit, *select(bytes(control))).status == 0
    assert run(unit, write10(0, 1), out=bytes(512)).condition == sense.SOFTWARE_WRITE_PROTECTED
    assert run(unit, "1a083f000400", 4).data[2] & 0x80
    unit.reset("lun")
    settle(unit)
    assert run(unit, write10(0, 1), out=bytes(512)).status == 0


def test_saved_pages_survive(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    unit = disk(state=SavedState(state))
    assert page(unit, 0x08)[0] == 0x88
    caching = page(unit, 0x08)
    assert run(unit, *select(caching[:2] + b"\x00" + caching[3:], flags=0x11)).status == 0
    assert page(unit, 0x08, control=3)[2] == 0
    unit.state.close()
    again = disk(state=SavedState(state))
    assert page(again, 0x08)[2] == 0 and again.write_through
    run(again, *select(page(again, 0x08, control=2)))
    assert page(again, 0x08)[2] == 0x04
    again.reset("target")
    settle(again)
    assert page(again, 0x08)[2] == 0


def test_a_saved_page_cannot_change_what_a_guest_could_not(tmp_path: Path) -> None:
    state = SavedState(tmp_path / "state.json")
    state.put("mode_pages", {"08/00": "ff" * 18}, lambda error: None)
    assert page(disk(state=state), 0x08)[2:] == bytes((0x04,)) + bytes(17)


def test_informational_exceptions_test() -> None:
    unit = disk()
    exceptions = bytearray(page(unit, 0x1C))
    exceptions[2] |= 0x04
    run(unit, *select(bytes(exceptions)))
    assert sense.condition_of(run(unit, "030000001200", 18).data) == 0x015DFF
    assert run(unit, "4d006f00000000004000", 64).data[8:10] == b"\x5d\xff"
