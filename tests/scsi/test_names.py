"""Commands have the names of the device type they are sent to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.scsi.disk.disk import Disk
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.names import command_name, condition_name, operation_name
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.unit import UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("device_type", "cdb", "name"),
    [
        (Disk.device_type, "28000000000000000800", "READ(10)"),
        (Disk.device_type, "9e100000000000000000000000200000", "READ CAPACITY(16)"),
        (Disk.device_type, "42000000000000001800", "UNMAP"),
        (Cdrom.device_type, "42000000000000001800", "READ SUB-CHANNEL"),
        (Cdrom.device_type, "43000000000000000c00", "READ TOC/PMA/ATIP"),
        (Enclosure.device_type, "1c01020400", "RECEIVE DIAGNOSTIC RESULTS"),
        (UNKNOWN_TYPE, "120000002400", "INQUIRY"),
        (UNKNOWN_TYPE, "28000000000000000800", ""),
        (Disk.device_type, "c1", ""),
        (Disk.device_type, "", ""),
    ],
)
def test_commands_have_names(device_type: int, cdb: str, name: str) -> None:
    assert command_name(device_type, bytes.fromhex(cdb)) == name


@given(st.integers(0, 0x1F), st.binary(max_size=32))
def test_any_cdb_is_survived(device_type: int, cdb: bytes) -> None:
    assert isinstance(command_name(device_type, cdb), str)


def test_conditions_and_operation_codes() -> None:
    assert condition_name(0x062901) == "POWER ON OCCURRED"
    assert condition_name(0x06) == condition_name(0xFFFFFFFF) == ""
    assert [operation_name(code) for code in (0x28, 0x8A, 0xFF)] == ["READ(10)", "WRITE(16)", ""]
