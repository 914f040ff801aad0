"""Nothing means nothing: every command with a length of zero moves no data and changes nothing.

The commands are those the units' own tables declare, so one that is added is swept, too. What does something else with
a zero there is listed with the clause that says so.
"""

from __future__ import annotations

from typing import Any

import pytest

from hba.adapters.pvscsi.bench import MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import CMP_CONS_IDX, FLAG_DIR_TODEVICE, FLAG_DIR_TOHOST
from hba.bench import own_server
from hba.scsi import sense
from hba.scsi.command import VARIABLE_LENGTH, Command
from hba.scsi.server import DeviceServer
from tests.scsi.test_opcodes import build
from tests.scsi.util import GOOD, run, settle

KINDS = ("thin", "full", "cdrom", "enclosure")
# Buffers that may come with it: none, one to read into, one to write from, each smaller and larger than a block.
BUFFERS: tuple[tuple[int, bytes | None], ...] = ((0, None), (64, None), (8192, None), (0, bytes(64)), (0, bytes(8192)))

# A zero in every field: what is refused, and by which clause.
REFUSED = {
    "WRITE(6)": (sense.INVALID_FIELD_IN_CDB, "SBC-4 WRITE(6): zero is 256 blocks, which are not in the buffer"),
    "WRITE SAME(10)": (
        sense.INVALID_FIELD_IN_CDB,
        "SBC-4 WRITE SAME: zero is all blocks, refused by WSNZ=1",
    ),
    "WRITE SAME(16)": (sense.INVALID_FIELD_IN_CDB, "as WRITE SAME(10)"),
    "MODE SENSE(6)": (sense.INVALID_FIELD_IN_CDB, "SPC-4 6.11: page 00h is vendor specific, there is none"),
    "MODE SENSE(10)": (sense.INVALID_FIELD_IN_CDB, "as MODE SENSE(6)"),
    "WRITE BUFFER(10)": (sense.INVALID_FIELD_IN_CDB, "SPC-4 6.49: mode 00h (combined) is not supported"),
    "READ BUFFER(10)": (sense.INVALID_FIELD_IN_CDB, "SPC-4 6.16: mode 00h (combined) is not supported"),
    "SANITIZE, OVERWRITE": (sense.INVALID_FIELD_IN_CDB, "SBC-4 SANITIZE overwrite: a list of 0 bytes has no pattern"),
    "RECEIVE COPY RESULTS, COPY STATUS": (sense.INVALID_FIELD_IN_CDB, "SPC-4 6.17: no copy has list identifier 0"),
    "READ DISC STRUCTURE": (sense.CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT, "MMC-6 6.22: a CD has no such structure"),
    "GET EVENT STATUS NOTIFICATION": (sense.INVALID_FIELD_IN_CDB, "MMC-6 6.6: POLLED=0 asks for asynchronous events"),
    "PERSISTENT RESERVE OUT, RESERVE": (sense.INVALID_FIELD_IN_CDB, "SPC-4 6.16.2: there is no type 0"),
    **{
        f"PERSISTENT RESERVE OUT, {name}": (
            sense.PARAMETER_LIST_LENGTH_ERROR,
            "SPC-4 6.16: a parameter list of other than 24 bytes (48 to move)",
        )
        for name in (
            *("REGISTER", "RELEASE", "CLEAR", "PREEMPT", "PREEMPT AND ABORT"),
            *("REGISTER AND IGNORE EXISTING KEY", "REGISTER AND MOVE"),
        )
    },
}
# A zero in every field means something, or the command has no length to be zero.
MEANS_SOMETHING = {
    "READ(6)": "SBC-4 READ(6): zero is 256 blocks",
    "READ CAPACITY(10)": "SBC-4: always eight bytes, there is no allocation length",
    "SANITIZE, BLOCK ERASE": "SBC-4: erases",
    "SANITIZE, EXIT FAILURE MODE": "SBC-4: about the last operation",
    "FORMAT UNIT": "SBC-4: formats, with FMTDATA=0, by defaults",
    "START STOP UNIT": "SBC-4: START=0 stops",
    "RESERVE(6)": "SPC-2: reserves",
    "RESERVE(10)": "SPC-2: reserves",
}


def zero(command: Command) -> bytes:
    """The CDB with nothing but its operation code and service action."""
    cdb = bytearray(command.length)
    cdb[0] = command.opcode
    if command.service_action is not None:
        if command.opcode == VARIABLE_LENGTH:
            cdb[7] = command.length - 8
            cdb[8:10] = command.service_action.to_bytes(2, "big")
        else:
            cdb[1] = command.service_action
    return bytes(cdb)


def swept() -> list[Any]:
    found = []
    for kind in KINDS:
        for command in build(kind).commands:
            found.append(pytest.param(kind, command, id=f"{kind}-{command.name}"))
    return found


_COUNTS = ("storage", "commands", "check_conditions")


def state(unit: DeviceServer) -> tuple[object, ...]:
    """All that a command could have changed, as the initiator and the host see it."""
    store = getattr(unit, "backend", None)
    medium = bytearray(store.size if store is not None else 0)
    if store is not None:
        assert store.read([memoryview(medium)], 0, lambda error: None)
    description = {key: value for key, value in unit.describe().items() if key not in _COUNTS}
    pages = run(unit, "5a003f00000000ffff00", 65535).data
    full_status = run(unit, "5e03000000000000ff00" + "00" * 6, 255).data
    return bytes(medium), description, pages, full_status, unit.attentions.pending(7)


@pytest.mark.parametrize(("kind", "command"), swept())
@pytest.mark.parametrize(("room", "out"), BUFFERS, ids=["none", "in-64", "in-8192", "out-64", "out-8192"])
def test_a_zero_in_every_field(kind: str, command: Command, room: int, out: bytes | None) -> None:
    unit = build(kind)
    before = state(unit)
    result = run(unit, zero(command), room, out)
    if command.name in MEANS_SOMETHING:
        return
    expected = REFUSED[command.name][0] if command.name in REFUSED else 0
    assert (result.condition, result.transferred) == (expected, 0)
    assert state(unit) == before


def test_every_exception_is_a_command_of_ours() -> None:
    names = {command.name for kind in KINDS for command in build(kind).commands}
    assert set(REFUSED) | set(MEANS_SOMETHING) <= names


# -- parameter lists and states that ask for nothing ----------------------------------------------------------------

HEADER6, HEADER10 = bytes(4), bytes(8)
UNMAP_NONE = (6).to_bytes(2, "big") + bytes(6)
UNMAP_EMPTY = (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + bytes(16)
COPY_NONE = bytes(16)

NO_OPS = [
    pytest.param("full", "89 00" + "00" * 14, bytes(512), id="COMPARE AND WRITE of 0 blocks, a block"),
    pytest.param("full", "89 00" + "00" * 14, bytes(1024), id="COMPARE AND WRITE of 0 blocks, two blocks"),
    pytest.param("full", "89 00" + "00" * 14, b"x", id="COMPARE AND WRITE of 0 blocks, a byte"),
    pytest.param("full", "8b 00" + "00" * 14, bytes(512), id="ORWRITE of 0 blocks"),
    pytest.param("full", "9c 00" + "00" * 14, bytes(512), id="WRITE ATOMIC of 0 blocks"),
    pytest.param("full", "2a 00 00000000 00 0000 00", bytes(512), id="WRITE(10) of 0 blocks"),
    pytest.param("full", "2e 02 00000000 00 0000 00", bytes(512), id="WRITE AND VERIFY of 0 blocks, BYTCHK"),
    pytest.param("full", "2f 02 00000000 00 0000 00", bytes(512), id="VERIFY of 0 blocks, BYTCHK 1"),
    pytest.param("thin", "42 00 00000000 00 0000 00", UNMAP_EMPTY, id="UNMAP of a list of 0 bytes"),
    pytest.param("thin", "42 00 00000000 00 0008 00", UNMAP_NONE, id="UNMAP without descriptors"),
    pytest.param("thin", "42 00 00000000 00 0018 00", UNMAP_EMPTY, id="UNMAP of 0 blocks"),
    pytest.param("full", "15 10 0000 00 00", HEADER6, id="MODE SELECT(6) of 0 bytes"),
    pytest.param("full", "15 00 0000 00 00", HEADER6, id="MODE SELECT(6) of 0 bytes, PF=0"),
    pytest.param("full", "15 10 0000 04 00", HEADER6, id="MODE SELECT(6) of a header"),
    pytest.param("full", "55 10 0000000000 0008 00", HEADER10, id="MODE SELECT(10) of a header"),
    pytest.param("full", "83 00" + "00" * 14, COPY_NONE, id="EXTENDED COPY of 0 bytes"),
    pytest.param("full", "83 00" + "00" * 8 + "00000010 0000", COPY_NONE, id="EXTENDED COPY of a header"),
    pytest.param("full", "3b 02 00 000000 000000 00", bytes(16), id="WRITE BUFFER of 0 bytes"),
    pytest.param("full", "3b 0a 00 000000 000000 00", bytes(16), id="WRITE BUFFER of 0 bytes to the echo buffer"),
    pytest.param("full", "1d 10 00 0000 00", bytes(16), id="SEND DIAGNOSTIC of 0 bytes"),
    pytest.param("full", "a4 0f 00000000 00000000 00 00", bytes(12), id="SET TIMESTAMP of 0 bytes"),
    pytest.param("full", "1b 00 00 00 01 00", None, id="START of a unit that runs"),
    pytest.param("cdrom", "1b 00 00 00 03 00", None, id="LOAD of a disc that is in"),
    pytest.param("cdrom", "1e 00 0000 00 00", None, id="ALLOW where nothing is prevented"),
]


@pytest.mark.parametrize(("kind", "cdb", "out"), NO_OPS)
def test_nothing_is_done_and_that_is_good(kind: str, cdb: str, out: bytes | None) -> None:
    unit = build(kind)
    before = state(unit)
    result = run(unit, cdb.replace(" ", ""), out=out)
    assert (result.status, result.condition) == (GOOD, 0)
    assert state(unit) == before


@pytest.mark.parametrize("cdb", ["1a 08 3f 00 ff 00", "5a 08 3f 00 000000 00ff 00"])
def test_mode_pages_sent_back_as_they_are_change_nothing(cdb: str) -> None:
    unit = build("full")
    data = bytearray(run(unit, cdb.replace(" ", ""), 255).data)
    data[0] = 0
    if cdb.startswith("5a"):
        data[1] = 0
        select = f"5510000000000000{len(data):02x}00"
    else:
        select = f"15100000{len(data):02x}00"
    data[2 if cdb.startswith("1a") else 3] = 0  # the device specific byte is only reported
    before = state(unit)
    assert run(unit, select, out=bytes(data)).status == GOOD
    assert state(unit) == before


def test_the_second_of_two_that_ask_for_the_same_state_changes_nothing() -> None:
    unit = build("cdrom")
    for cdb in ("1b0000000000", "1e0000000100", "160000000000"):  # stop, prevent, reserve
        run(unit, cdb)
        settle(unit)
        before = state(unit)
        assert run(unit, cdb).status == GOOD
        assert state(unit) == before


@pytest.mark.parametrize("port", ["scsiport", "storport"])
def test_the_guest_is_told_that_nothing_moved(port: str) -> None:
    """The whole way: a buffer that a command has no use for was not moved, and no error is made of that."""
    commands = [
        *((FLAG_DIR_TODEVICE, cdb) for cdb in ("89" + "00" * 15, "2a" + "00" * 9, "8a" + "00" * 15, "15" + "00" * 5)),
        *((FLAG_DIR_TOHOST, cdb) for cdb in ("28" + "00" * 9, "88" + "00" * 15, "12" + "00" * 5, "a0" + "00" * 11)),
        (FLAG_DIR_TODEVICE, "35" + "00" * 9),
    ]
    with own_server.start(None, port=port, size=1 << 20) as server, PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        for flags, cdb in commands:
            slot = driver._produced & MASK
            driver._place(0, bytes.fromhex(cdb), 4096, flags, driver._data_at, slot)
            driver._submit(1)
            driver._wait(driver._produced)
            moved, status = driver._completions[slot * 4 + 1 : slot * 4 + 3]
            driver._state[CMP_CONS_IDX // 4] = driver._produced & 0xFFFFFFFF
            assert (moved, status) == (0, 0), cdb
