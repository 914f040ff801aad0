"""Reserved values are refused, with the field pointer: every field of every CDB that the command tables describe.

A bit of a usage map belongs to a flag (both values mean something), to a code (some values are reserved, or not
supported), or to a number (an address, a length, an identifier, a page). `CODES` and `FLAGS` say which, from the
standards; a bit in neither must lie in a byte that is a number as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hba.scsi import sense
from hba.scsi.command import VARIABLE_LENGTH, Command, field
from tests.scsi.test_announced import KINDS, build
from tests.scsi.test_nothing import zero
from tests.scsi.util import run, settle

Code = dict[tuple[int, int], tuple[int, ...]]  # (byte, mask) -> values that mean something here

_PROTECT: Code = {(1, 0xE0): (0, 1, 2, 3, 4, 5)}  # SBC-3 tables of RDPROTECT, WRPROTECT, VRPROTECT: 6 and 7 reserved
_BYTCHK: Code = {(1, 0x06): (0, 1, 3)}  # SBC-3 VERIFY: 10b reserved
_DEFECTS10: Code = {(2, 0x07): (0, 1, 2, 3, 4, 5)}  # SBC-3 address descriptor formats: 110b vendor's, 111b reserved
_DEFECTS12: Code = {(1, 0x07): (0, 1, 2, 3, 4, 5)}
_SECTOR_TYPE: Code = {(1, 0x1C): (0, 1, 2, 3, 4, 5)}  # MMC-6 expected sector type: 6 and 7 reserved
_TYPES = (1, 3, 5, 6, 7, 8)  # SPC-4 persistent reservation types
_SCOPE: Code = {(2, 0xF0): (0,), (2, 0x0F): _TYPES}  # SPC-4: LU_SCOPE; others reserved or obsolete

CODES: dict[str, Code] = {
    "FORMAT UNIT": {(1, 0x07): (0, 1, 2, 3, 4, 5)},
    "FORMAT UNIT with protection": {(1, 0x07): (0, 1, 2, 3, 4, 5), (1, 0xC0): (0, 2)},
    "SEND DIAGNOSTIC": {(1, 0xE0): (0, 1, 2, 4, 5, 6)},  # SPC-4 SELF-TEST CODE: 011b and 111b reserved
    "VERIFY(10)": _BYTCHK,
    "VERIFY(12)": _BYTCHK,
    "VERIFY(16)": _BYTCHK,
    **{f"WRITE AND VERIFY({size})": {(1, 0x06): (0, 1)} for size in (10, 12, 16)},
    "READ DEFECT DATA(10)": _DEFECTS10,
    "READ DEFECT DATA(12)": _DEFECTS12,
    "WRITE BUFFER(10)": {(1, 0x1F): (0x02, 0x0A)},
    "READ BUFFER(10)": {(1, 0x1F): (0x02, 0x03, 0x0A, 0x0B)},
    "LOG SENSE": {(2, 0xC0): (0, 1)},  # SPC-4 PC: there are no default values here
    "PERSISTENT RESERVE OUT, RESERVE": _SCOPE,
    "REPORT LUNS": {(2, 0xFF): (0, 1, 2)},
    "REPORT TARGET PORT GROUPS": {(1, 0xE0): (0, 1)},  # SPC-4 PARAMETER DATA FORMAT
    "REPORT SUPPORTED OPERATION CODES": {(2, 0x07): (0, 1, 2, 3)},
    **{f"{name} with protection": {**_PROTECT} for name in ("READ(10)", "READ(12)", "READ(16)")},
    **{f"{name} with protection": {**_PROTECT} for name in ("WRITE(10)", "WRITE(12)", "WRITE(16)")},
    **{f"{name} with protection": {**_PROTECT, **_BYTCHK} for name in ("VERIFY(10)", "VERIFY(12)", "VERIFY(16)")},
    "START STOP UNIT": {(4, 0xF0): (0, 1, 2, 3, 7, 10, 11)},  # SBC-3; the modifiers in test_medium.py
    "START STOP UNIT of a drive": {(4, 0xF0): (0, 2, 3, 5)},  # MMC-6
    "GET CONFIGURATION": {(1, 0x03): (0, 1, 2)},
    "READ DISC INFORMATION": {(1, 0x07): (0,)},
    "READ TRACK INFORMATION": {(1, 0x03): (0, 1, 2)},
    "READ DISC STRUCTURE": {(1, 0x0F): (0,)},
    "READ TOC/PMA/ATIP": {(2, 0x0F): (0, 1, 2)},
    "READ CD": _SECTOR_TYPE,
    "READ CD MSF": _SECTOR_TYPE,
    "SET CD SPEED": {(1, 0x03): (0, 1)},  # MMC-6 ROTATIONAL CONTROL
}
# Where a reserved or obsolete value is accepted, and who needs that.
LENIENT: dict[tuple[str, int, int], str] = {
    ("READ CAPACITY(10)", 1, 0x01): "RELADR, obsolete since SBC: ignored, as drives do",
    ("READ CAPACITY(10)", 8, 0x01): "PMI, obsolete since SBC-3: ignored, as drives do",
    ("READ CAPACITY(16)", 14, 0x01): "PMI, obsolete since SBC-3: ignored, as drives do",
    ("READ TOC/PMA/ATIP", 9, 0xC0): "the format, where SFF-8020i had it: older drivers put it there",
    ("PERSISTENT RESERVE OUT, RELEASE", 2, 0xFF): "SPC-4: not what is held is 5/26/04; nothing held is no error",
    ("PERSISTENT RESERVE OUT, PREEMPT", 2, 0xFF): "SPC-4: ignored when registrations only are preempted",
    ("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", 2, 0xFF): "SPC-4: ignored when registrations only are preempted",
}
_DPO_FUA = {1: 0x18}
FLAGS: dict[str, dict[int, int]] = {
    "REQUEST SENSE": {1: 0x01},  # DESC
    "FORMAT UNIT": {1: 0x38},  # LONGLIST, FMTDATA, CMPLST
    "FORMAT UNIT with protection": {1: 0x38},
    "READ(6)": {1: 0x1F},  # of the address
    "WRITE(6)": {1: 0x1F},
    "INQUIRY": {1: 0x01},  # EVPD
    "MODE SELECT(6)": {1: 0x11},  # PF, SP
    "MODE SELECT(10)": {1: 0x11},
    "MODE SENSE(6)": {1: 0x08},  # DBD
    "MODE SENSE(10)": {1: 0x18},  # LLBAA, DBD
    "START STOP UNIT": {1: 0x01, 3: 0x0F, 4: 0x07},  # IMMED; the modifier; NO_FLUSH, LOEJ, START
    "START STOP UNIT of a drive": {1: 0x01, 4: 0x03},
    "RECEIVE DIAGNOSTIC RESULTS": {1: 0x01},  # PCV
    "SEND DIAGNOSTIC": {1: 0x17},  # PF, SELFTEST, DEVOFFL, UNITOFFL
    "PREVENT ALLOW MEDIUM REMOVAL": {4: 0x01},
    **{f"{name}({size})": _DPO_FUA for name in ("READ", "WRITE") for size in (10, 12, 16)},
    **{f"{name}({size}) with protection": _DPO_FUA for name in ("READ", "WRITE") for size in (10, 12, 16)},
    **dict.fromkeys(("COMPARE AND WRITE", "ORWRITE(16)", "WRITE ATOMIC(16)"), _DPO_FUA),
    **{f"{name}({size})": {1: 0x10} for name in ("VERIFY", "WRITE AND VERIFY") for size in (10, 12, 16)},  # DPO
    **{f"VERIFY({size}) with protection": {1: 0x10} for size in (10, 12, 16)},
    "PRE-FETCH(10)": {1: 0x02},  # IMMED
    "PRE-FETCH(16)": {1: 0x02},
    "SYNCHRONIZE CACHE(10)": {1: 0x06},  # SYNC_NV, IMMED
    "SYNCHRONIZE CACHE(16)": {1: 0x06},
    "READ DEFECT DATA(10)": {2: 0x18},  # REQ_PLIST, REQ_GLIST
    "READ DEFECT DATA(12)": {1: 0x18},
    "WRITE SAME(10)": {1: 0x18},  # ANCHOR, UNMAP
    "WRITE SAME(16)": {1: 0x19},  # ... NDOB
    "UNMAP": {1: 0x01},  # ANCHOR
    "LOG SENSE": {2: 0x3F},  # the page
    "SANITIZE, OVERWRITE": {1: 0xA0},  # IMMED, AUSE
    "SANITIZE, BLOCK ERASE": {1: 0xA0},
    "SANITIZE, EXIT FAILURE MODE": {1: 0xA0},
    "REPORT SUPPORTED OPERATION CODES": {2: 0x80},  # RCTD
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": {2: 0x80},  # REPD
    "READ SUB-CHANNEL": {1: 0x02, 2: 0x40},  # TIME, SUBQ
    "READ TOC/PMA/ATIP": {1: 0x02},  # TIME
    "GET EVENT STATUS NOTIFICATION": {1: 0x01},  # POLLED
    "READ CD": {9: 0xF8},  # main channel selection
    "READ CD MSF": {9: 0xF8},
}


# GROUP NUMBER, ignored: byte 6 of ten, 10 of twelve, 14 of sixteen.
_GROUPED = frozenset(
    bytes.fromhex("28 a8 88 2a aa 8a 2e ae 8e 2f af 8f 35 91 34 90 41 93 42 8b 89 9c"),
)


def group_of(kind: str, command: Command) -> dict[int, int]:
    if kind in ("cd", "dvd", "empty drive") or command.opcode not in _GROUPED:
        return {}
    return {{10: 6, 12: 10, 16: 14}[command.length]: 0x1F}


def name_of(kind: str, command: Command) -> str:
    if (
        kind == "protected"
        and command.usage[1] & 0xC0
        and command.opcode in (4, 0x28, 0x2A, 0x2F, 0x88, 0x8A, 0x8F, 0xA8, 0xAA, 0xAF)
    ):
        return f"{command.name} with protection"
    if command.name == "START STOP UNIT" and kind in ("cd", "dvd", "empty drive"):
        return "START STOP UNIT of a drive"
    return command.name


def commands() -> Iterator[tuple[str, str, Command]]:
    seen: set[tuple[str, bytes]] = set()
    for kind in KINDS:
        if kind == "empty drive" or kind == "removable":
            continue  # the same tables, without a medium
        for command in build(kind).commands:
            if (command.name, command.usage) not in seen:
                seen.add((command.name, command.usage))
                yield kind, name_of(kind, command), command


ALL = [pytest.param(kind, name, command, id=name) for kind, name, command in commands()]


@pytest.mark.parametrize(("kind", "name", "command"), ALL)
def test_every_bit_of_a_usage_map_is_accounted_for(kind: str, name: str, command: Command) -> None:
    codes = CODES.get(name, {})
    for byte, usage in enumerate(command.usage):
        if byte == 0 or usage in (0x00, 0xFF):
            continue
        if command.service_action is not None and (byte == 1 or (command.opcode == VARIABLE_LENGTH and byte < 10)):
            usage &= ~0x1F
        known = FLAGS.get(name, {}).get(byte, 0) | group_of(kind, command).get(byte, 0)
        for at, mask in codes:
            known |= mask if at == byte else 0
        for lenient, at, mask in LENIENT:
            known |= mask if (lenient, at) == (name, byte) and usage & mask else 0
        assert usage & ~known == 0, f"byte {byte}: {usage & ~known:02x}h is neither flag nor code"
        assert known & ~usage == 0, f"byte {byte}: {known & ~usage:02x}h is not in the usage map"


@pytest.mark.parametrize(("kind", "name", "command"), ALL)
def test_reserved_values_are_refused_where_they_are(kind: str, name: str, command: Command) -> None:
    for (byte, mask), values in CODES.get(name, {}).items():
        shift = (mask & -mask).bit_length() - 1
        pointer = bytes((0xC8 | mask.bit_length() - 1, 0, byte))
        for value in range((mask >> shift) + 1):
            unit = build(kind)
            cdb = bytearray(zero(command))
            cdb[byte] = cdb[byte] & ~mask | value << shift
            assert field(bytes(cdb), byte, mask) == value
            if (2, 0x0F) in CODES.get(name, {}) and byte == 2 and mask == 0xF0:
                cdb[2] |= 1  # of a type that there is
            if command.name == "REPORT SUPPORTED OPERATION CODES" and value == 2:
                cdb[3], cdb[5] = 0xA3, 0x0C  # one that has service actions
            if command.name.startswith("PERSISTENT RESERVE OUT"):
                cdb[8] = 24
                register(unit)
            result = run(unit, bytes(cdb), **data_for(command, value))
            refused = result.condition == sense.INVALID_FIELD_IN_CDB and result.sense[15:18] == pointer
            assert refused == (value not in values), f"byte {byte} mask {mask:02x}h value {value}"


def register(unit: object) -> None:
    data = bytes(8) + (7).to_bytes(8, "big") + bytes(8)
    assert run(unit, "5f000000000000001800", out=data).status == 0  # type: ignore[arg-type]


def data_for(command: Command, value: int) -> dict[str, object]:
    if command.name.startswith("PERSISTENT RESERVE OUT"):
        return {"out": (7).to_bytes(8, "big") + bytes(16)}
    return {"room": 4096}


@pytest.mark.parametrize(("kind", "name", "command"), ALL)
def test_every_bit_outside_the_map_is_refused_where_it_is(kind: str, name: str, command: Command) -> None:
    unit = build(kind)
    for byte in range(1, command.length):
        for bit in range(8):
            if command.usage[byte] >> bit & 1 or (command.service_action is not None and byte == 1 and bit < 5):
                continue
            cdb = bytearray(zero(command))
            cdb[byte] |= 1 << bit
            result = run(unit, bytes(cdb), 4096)
            assert (result.condition, result.sense[15:18]) == (sense.INVALID_FIELD_IN_CDB, bytes((0xC8 | bit, 0, byte)))
    settle(unit)


def test_nothing_is_lenient_that_is_not_there() -> None:
    usage = {name: command.usage for _, name, command in commands()}
    for name, byte, mask in LENIENT:
        assert name in usage and byte < len(usage[name]) and mask
