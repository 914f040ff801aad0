"""What is announced is there, and what is there is announced: features, pages and commands by device type.

The tables are the standards' own (MMC-6 clause 5, tables of mandatory commands of each feature and profile; SPC-4,
SBC-3 and SES-3, tables of commands; SPC-4 and SBC-3, tables of VPD pages), not made from our declarations.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.scsi import sense
from hba.scsi.bus import REPORT_LUNS_WELL_KNOWN, ScsiBus
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import LARGEST_CD, Cdrom
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.state import SavedState
from hba.storage.memory import MemoryBackend
from tests.scsi.test_nothing import zero
from tests.scsi.util import GOOD, be, disk, make_task, run, settle

KINDS = ("disk", "thick", "removable", "protected", "4Kn", "cd", "dvd", "empty drive", "enclosure")


def build(kind: str, state: SavedState | None = None) -> DeviceServer:
    unit: DeviceServer
    match kind:
        case "disk":
            unit = disk(state=state)
        case "thick":
            unit = disk(thin=False, state=state)
        case "removable":
            unit = disk(absent=True, removable=True, state=state)
        case "protected":
            unit = disk(protection=True, state=state)
        case "4Kn":
            unit = disk(block_size=4096, state=state)
        case "enclosure":
            unit = Enclosure(Identity(), VirtualClock(), state)
        case _:
            sectors = {"cd": 1000, "dvd": LARGEST_CD + 1, "empty drive": 0}[kind]
            unit = Cdrom(MemoryBackend(sectors * 2048) if sectors else None, Identity(), VirtualClock(), state)
    settle(unit)
    return unit


def known(unit: DeviceServer, opcode: int, action: int | None = None) -> bool:
    cdb = bytearray(16)
    cdb[0] = opcode
    if action is not None:
        cdb[1] = action
    return run(unit, bytes(cdb), 4096).condition != sense.INVALID_COMMAND_OPERATION_CODE


# -- MMC-6: features -------------------------------------------------------------------------------------------------

FEATURES: dict[int, tuple[str, tuple[int, ...]]] = {
    0x0000: ("Profile List", (0x46,)),
    0x0001: ("Core", (0x46, 0x4A, 0x12, 0x55, 0x5A, 0x03, 0x00)),
    0x0002: ("Morphing", (0x46, 0x4A)),
    0x0003: ("Removable Medium", (0xBD, 0x1E, 0x1B)),
    0x0010: ("Random Readable", (0x25, 0x28)),
    0x001D: ("Multi-Read", (0x28, 0xBE, 0x51, 0x52)),
    0x001E: ("CD Read", (0xBE, 0xB9, 0x43)),
    0x001F: ("DVD Read", (0x28, 0xA8, 0xAD, 0x43)),
    0x0100: ("Power Management", (0x4A, 0x1B)),
    0x0105: ("Time-out", ()),
}
PROFILES: dict[int, tuple[int, ...]] = {
    0x0008: (0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x001E, 0x0100, 0x0105),
    0x0010: (0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x001F, 0x0100, 0x0105),
}
# Classes of events (GET EVENT STATUS NOTIFICATION) that a feature is about: Core with DBE, Morphing with OCEVENT, ...
EVENTS = {0x0001: 6, 0x0002: 1, 0x0003: 4, 0x0100: 2}
# Commands of MMC-6 that belong to a feature we do not announce, and are there all the same.
BESIDES = {
    0x42: "READ SUB-CHANNEL (CD Audio External Play): drivers ask for the audio status of discs that have none",
    0xBB: "SET CD SPEED (Real Time Streaming, legacy): players set it for every drive",
}


def features(unit: DeviceServer) -> dict[int, tuple[bool, bytes]]:
    """Code: whether it is current, and its data."""
    data = run(unit, "46000000000000ffff00", 65535).data
    found, at = {}, 8
    while at < len(data):
        length = data[at + 3]
        found[int.from_bytes(data[at : at + 2], "big")] = (bool(data[at + 2] & 1), data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


@pytest.mark.parametrize("kind", ["cd", "dvd", "empty drive"])
def test_every_feature_has_its_commands_and_events(kind: str) -> None:
    unit = build(kind)
    announced = features(unit)
    assert set(announced) == set(FEATURES)
    for code in announced:
        for opcode in FEATURES[code][1]:
            assert known(unit, opcode), f"{FEATURES[code][0]} without {opcode:02x}h"
    supported = run(unit, "4a010000fe0000000800", 8).data[3]
    assert supported == sum(1 << number for number in EVENTS.values())
    for number in range(8):
        answer = run(unit, f"4a010000{1 << number:02x}0000000800", 8).data
        assert (answer[2] == number) == bool(supported >> number & 1)


@pytest.mark.parametrize("kind", ["cd", "dvd", "empty drive"])
def test_every_profile_has_its_features_and_they_are_current_with_it(kind: str) -> None:
    unit = build(kind)
    announced = features(unit)
    profiles = announced[0][1]
    listed = {
        int.from_bytes(profiles[at : at + 2], "big"): bool(profiles[at + 2] & 1) for at in range(0, len(profiles), 4)
    }
    assert set(listed) == set(PROFILES)
    for profile, needed in PROFILES.items():
        assert set(needed) <= set(announced)
        if listed[profile]:
            assert all(announced[code][0] for code in needed)
    assert sum(listed.values()) == (0 if kind == "empty drive" else 1)


@pytest.mark.parametrize("kind", ["cd", "dvd", "empty drive"])
def test_no_mmc_command_without_its_feature(kind: str) -> None:
    unit = build(kind)
    owned = {opcode for _, opcodes in FEATURES.values() for opcode in opcodes}
    primary = {command.opcode for command in build("enclosure").commands}  # SPC's, which every type has
    for opcode in range(256):
        if opcode in owned or opcode in primary or opcode in BESIDES:
            continue
        assert not known(unit, opcode), f"{opcode:02x}h belongs to no feature that is announced"


def test_nothing_is_excused_that_is_not_there() -> None:
    assert all(known(build("cd"), opcode) for opcode in BESIDES)


# -- SPC, SBC, SES: commands and pages -------------------------------------------------------------------------------

PRIMARY = ((0x12, None), (0xA0, None), (0x03, None), (0x00, None))
MANDATORY: dict[str, tuple[tuple[int, int | None], ...]] = {
    # SBC-3 table "Commands for direct access block devices"; the last three with logical block provisioning
    "disk": (
        *PRIMARY,
        (0x04, None),
        (0x25, None),
        (0x28, None),
        (0x1D, None),
        (0x9E, 0x10),
        (0x9E, 0x12),
        (0x42, None),
    ),
    "thick": (*PRIMARY, (0x04, None), (0x25, None), (0x28, None), (0x1D, None)),
    # ... and those of protection information
    "protected": (
        *PRIMARY,
        (0x04, None),
        (0x25, None),
        (0x28, None),
        (0x2A, None),
        (0x88, None),
        (0x8A, None),
        (0x9E, 0x10),
    ),
    # SES-3
    "enclosure": (*PRIMARY, (0x1C, None), (0x1D, None)),
    # MMC-6, of every drive
    "cd": (*PRIMARY, (0x46, None), (0x4A, None)),
}
PAGES: dict[str, tuple[int, ...]] = {
    "disk": (0x00, 0x83, 0xB0, 0xB2),
    "thick": (0x00, 0x83),
    "protected": (0x00, 0x83, 0x86),
    "enclosure": (0x00, 0x83),
    "cd": (0x00, 0x83),
}


@pytest.mark.parametrize("kind", MANDATORY)
def test_mandatory_commands(kind: str) -> None:
    unit = build(kind)
    for opcode, action in MANDATORY[kind]:
        assert known(unit, opcode, action), f"{opcode:02x}h"


@pytest.mark.parametrize("kind", PAGES)
def test_mandatory_pages(kind: str) -> None:
    unit = build(kind)
    listed = run(unit, "12010000ff00", 255).data[4:]
    assert set(PAGES[kind]) <= set(listed)
    for page in range(256):
        assert (run(unit, f"1201{page:02x}040000", 1024).status == GOOD) == (page in listed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_reported_as_supported_is_what_is_answered(kind: str) -> None:
    unit = build(kind)
    data = run(unit, "a30c0000000000ffffff0000", 1 << 16).data
    listed: dict[int, set[int]] = {}
    for at in range(4, len(data), 8):
        listed.setdefault(data[at], set())
        if data[at + 5] & 1:
            listed[data[at]].add(int.from_bytes(data[at + 2 : at + 4], "big"))
    for opcode in range(256):
        assert known(build(kind), opcode) == (opcode in listed), f"{opcode:02x}h"
        for action in listed.get(opcode, ()):
            command = next(one for one in unit.commands if (one.opcode, one.service_action) == (opcode, action))
            asked = run(build(kind), zero(command), 4096)
            assert asked.condition != sense.INVALID_COMMAND_OPERATION_CODE
            assert not (asked.condition == sense.INVALID_FIELD_IN_CDB and asked.sense[15:18] == bytes((0xCC, 0, 1)))


def test_the_well_known_unit() -> None:
    bus = ScsiBus()
    unit = build("disk")
    bus.attach(0, 0, unit)

    def ask(cdb: str, room: int = 255) -> tuple[int, bytes]:
        task = make_task(cdb, room)
        assert bus.execute(0, REPORT_LUNS_WELL_KNOWN, [task])
        assert task.data is not None
        return sense.condition_of(task.sense), task.data.read(0, task.transferred)

    for opcode in range(256):
        answered = ask(bytes((opcode,)).hex())[0] != sense.INVALID_COMMAND_OPERATION_CODE
        assert answered == (opcode in (0x00, 0x03, 0x12, 0xA0)), f"{opcode:02x}h"
    assert ask("12000000ff00")[1][0] == 0x1E
    assert ask("12010000ff00")[1] == bytes.fromhex("1e0000020083")
    page = ask("12018300ff00")[1]
    assert page[:2] == b"\x1e\x83" and int.from_bytes(page[2:4], "big") == len(page) - 4
    at = 4
    while at < len(page):
        assert page[at + 1] & 0x30, "nothing that names a logical unit"
        at += 4 + page[at + 3]
    assert ask("12018000ff00")[0] == ask("12000100ff00")[0] == sense.INVALID_FIELD_IN_CDB


# -- mode parameters: what is sent is taken back ---------------------------------------------------------------------

CURRENT, DEFAULT, SAVED = 0, 2, 3


PAGES_ASKED = (0x3F, 0x01, 0x04, 0x07, 0x08, 0x0A, 0x0E, 0x1A, 0x1C, 0x1D, 0x2A)
# MODE SENSE (6 or 10), its DBD and LLBAA bits, and MODE SELECT (6 or 10)
FORMS = [
    *((0x1A, flags, select) for flags in (0x00, 0x08) for select in (0x15, 0x55)),
    *((0x5A, flags, select) for flags in (0x00, 0x08, 0x10, 0x18) for select in (0x15, 0x55)),
]
CHANGES = ("WCE", "SWP", "D_SENSE", "resize", "reset", "save")


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_mode_sense_sends_mode_select_takes(kind: str, save: bool) -> None:
    unit = unsaved(kind)
    taken = sum(
        takes_back(unit, page, subpage, control, form, save)
        for page in PAGES_ASKED
        for subpage in (0x00, 0x01, 0xFF)
        for control in (CURRENT, DEFAULT, SAVED)
        for form in FORMS
    )
    assert taken >= 3 * len(FORMS)


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(KINDS), changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4))
def test_and_so_it_is_after_changes(kind: str, changes: list[str]) -> None:
    unit = unsaved(kind)
    for change in changes:
        disturb(unit, change)
    for control in (CURRENT, DEFAULT, SAVED):
        for form in FORMS:
            takes_back(unit, 0x3F, 0xFF, control, form, save=False)


def unsaved(kind: str) -> DeviceServer:
    """A unit that can save, without a file."""
    state = SavedState(None)
    state.path = Path("/nowhere")
    state.put = lambda section, value, done: True  # type: ignore[method-assign]
    return build(kind, state)


def takes_back(
    unit: DeviceServer, page: int, subpage: int, control: int, form: tuple[int, int, int], save: bool
) -> bool:
    """False when there is no such page, or no such form of it."""
    opcode, flags, select = form
    length = "000000ffff00" if opcode == 0x5A else "ff00"
    result = run(unit, f"{opcode:02x}{flags:02x}{control << 6 | page:02x}{subpage:02x}{length}", 65535)
    if result.status != GOOD:
        assert result.condition == sense.INVALID_FIELD_IN_CDB
        return False
    data: bytearray | None = bytearray(result.data)
    if (opcode == 0x5A) != (select == 0x55):
        data = converted(bytearray(result.data), opcode == 0x5A)
    if data is None:
        return False
    first = f"{select:02x}{0x11 if save else 0x10:02x}"
    cdb = f"{first}0000000000{be(len(data), 2)}00" if select == 0x55 else f"{first}0000{be(len(data), 1)}00"
    before = run(unit, "5a003fff000000ffff00", 65535).data
    assert run(unit, cdb, out=bytes(data)).status == GOOD
    if control == CURRENT:
        assert run(unit, "5a003fff000000ffff00", 65535).data == before
        assert not unit.attentions.any(), "nothing has changed, so nobody is told"
    settle(unit)
    return True


def converted(data: bytearray, from_ten: bool) -> bytearray | None:
    """The parameter list with the other header; None when that cannot say it."""
    if from_ten:
        if data[4] & 1 or len(data) - 4 > 255:
            return None
        return bytearray((0, data[2], data[3], data[7])) + data[8:]
    return bytearray((0, 0, data[1], data[2], 0, 0, 0, data[3])) + data[4:]


def disturb(unit: DeviceServer, change: str) -> None:
    bits = {"WCE": (0x08, 0, 0x04), "SWP": (0x0A, 2, 0x08), "D_SENSE": (0x0A, 0, 0x04)}
    if change == "reset":
        unit.reset("lun")
    elif change == "resize":
        if isinstance(unit, Cdrom | Enclosure) or getattr(unit, "backend", None) is None:
            return
        unit.resize(unit.backend.size * 2)  # type: ignore[attr-defined]
    elif change == "save":
        data = run(unit, "5a083f00000000ffff00", 65535).data
        run(unit, f"55110000000000{be(len(data), 2)}00"[:20], out=bytes(data))
    else:
        page, byte, mask = bits[change]
        found = run(unit, f"5a08{page:02x}00000000ffff00", 65535)
        if found.status == GOOD:
            data = bytearray(found.data)
            data[10 + byte] ^= mask
            run(unit, f"5510000000000000{len(data):02x}00", out=bytes(data))
    settle(unit)
