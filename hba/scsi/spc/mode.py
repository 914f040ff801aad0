"""MODE SENSE and MODE SELECT, 6 and 10, over declared mode pages (SPC-4 "Mode parameters").

A device type declares its pages (`ModePage`) once; the current, changeable, default and saved values, the checks of
MODE SELECT and the saving follow. What a changed page means is the unit's: `unit.mode_changed()`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.sense import (
    MODE_PARAMETERS_CHANGED,
    PARAMETER_LIST_LENGTH_ERROR,
    SAVING_PARAMETERS_NOT_SUPPORTED,
    CheckCondition,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.server import DeviceServer, Steps
from hba.scsi.state import SavedState
from hba.scsi.task import Task

commands = CommandTable()

CURRENT, CHANGEABLE, DEFAULT, SAVED = 0, 1, 2, 3
ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
_SECTION = "mode_pages"


class ModePage:
    """One mode page: its default value and which bits MODE SELECT may change.

    `default` and `changeable` are the bytes after the page's header (2 bytes, or 4 for a subpage).
    """

    def __init__(self, code: int, default: bytes, changeable: bytes = b"", subcode: int = 0) -> None:
        self.code = code
        self.subcode = subcode
        self.default = default
        self.changeable = changeable.ljust(len(default), b"\x00")

    def header(self, savable: bool) -> bytes:
        first = self.code | (0x80 if savable else 0)
        if self.subcode:
            return bytes((first | 0x40, self.subcode)) + len(self.default).to_bytes(2, "big")
        return bytes((first, len(self.default)))


class ModePages:
    """The mode pages of a unit with their current and saved values."""

    def __init__(self, pages: Iterable[ModePage], state: SavedState) -> None:
        self._pages = {(page.code, page.subcode): page for page in pages}
        self._state = state
        self._saved: dict[tuple[int, int], bytes] = {}
        self._current: dict[tuple[int, int], bytes] = {}
        self._load()
        self.restore()

    @property
    def savable(self) -> bool:
        return self._state.available

    def _load(self) -> None:
        stored = self._state.get(_SECTION)
        if not isinstance(stored, dict):
            return
        for key, page in self._pages.items():
            text = stored.get(f"{key[0]:02x}/{key[1]:02x}")
            try:
                value = bytes.fromhex(text) if isinstance(text, str) else b""
            except ValueError:
                value = b""
            if len(value) == len(page.default):
                # only what may change is taken from the file
                self._saved[key] = _merge(page.default, value, page.changeable)

    def restore(self) -> None:
        """Current values as after a reset: the saved ones, or the defaults."""
        self._current = {key: self._saved.get(key, page.default) for key, page in self._pages.items()}

    def export(self) -> dict[str, bytes]:
        """The current values by "code/subcode" in hex."""
        return {f"{code:02x}/{sub:02x}": value for (code, sub), value in self._current.items()}

    def check_exported(self, values: dict[str, bytes]) -> None:
        """Raises ValueError unless `values` has a value for every page, and of its length."""
        here = self.export()
        if other := sorted(here.keys() ^ values.keys()):
            raise ValueError(f"mode page {other[0]} is on one side only")
        for key, value in here.items():
            if len(values[key]) != len(value):
                raise ValueError(f"mode page {key} has {len(values[key])} bytes, not {len(value)}")

    def take_over(self, values: dict[str, bytes]) -> None:
        """Make values current that `check_exported` found good, as far as MODE SELECT could have made them so."""
        for (code, sub), page in self._pages.items():
            value = values[f"{code:02x}/{sub:02x}"]
            self._current[code, sub] = _merge(self._current[code, sub], value, page.changeable)

    def current(self, code: int, subcode: int = 0) -> bytes:
        """The current bytes after the header of a page this unit has."""
        return self._current[(code, subcode)]

    def assign(self, code: int, value: bytes, subcode: int = 0) -> None:
        """Set the bytes of a page that only the unit itself changes: current, default and saved ones alike."""
        key = (code, subcode)
        self._pages[key].default = self._current[key] = value
        self._saved.pop(key, None)

    def select(self, code: int, subcode: int) -> list[ModePage]:
        """Pages MODE SENSE asks for, in the order they are sent. Empty: there is no such page."""
        if code == ALL_PAGES:
            if subcode == 0:
                keys = [key for key in self._pages if key[1] == 0]
            elif subcode == ALL_SUBPAGES:
                keys = list(self._pages)
            else:
                return []
        elif subcode == ALL_SUBPAGES:
            keys = [key for key in self._pages if key[0] == code]
        else:
            keys = [key for key in self._pages if key == (code, subcode)]
        # page 00h, were there one, comes last
        return [self._pages[key] for key in sorted(keys, key=lambda key: (key[0] == 0, key))]

    def sense(self, page: ModePage, control: int) -> bytes:
        key = (page.code, page.subcode)
        if control == CHANGEABLE:
            value = page.changeable
        elif control == DEFAULT:
            value = page.default
        elif control == SAVED:
            value = self._saved.get(key, page.default)
        else:
            value = self._current[key]
        return page.header(self.savable) + value

    def check(self, data: bytes, start: int) -> list[tuple[ModePage, bytes]]:
        """The pages in a MODE SELECT parameter list from `start` on. Raises `CheckCondition` for the first error."""
        result: list[tuple[ModePage, bytes]] = []
        position = start
        while position < len(data):
            left = len(data) - position
            long = bool(data[position] & 0x40)
            header = 4 if long else 2
            if left < header:
                raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
            code = data[position] & 0x3F
            subcode = data[position + 1] if long else 0
            length = int.from_bytes(data[position + 2 : position + 4], "big") if long else data[position + 1]
            page = self._pages.get((code, subcode))
            if page is None or (long and not subcode):
                raise invalid_parameter(position, 5)
            if length != len(page.default):
                raise invalid_parameter(position + (2 if long else 1))
            if left < header + length:
                raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
            value = data[position + header : position + header + length]
            current = self._current[(code, subcode)]
            for index, (old, new, mask) in enumerate(zip(current, value, page.changeable, strict=True)):
                wrong = (old ^ new) & ~mask
                if wrong:
                    raise invalid_parameter(position + header + index, wrong.bit_length() - 1)
            result.append((page, value))
            position += header + length
        return result

    def save(self, pages: list[tuple[ModePage, bytes]]) -> Steps:
        """Save values. Raises `StorageError`."""
        saved = dict(self._saved)
        saved.update({(page.code, page.subcode): value for page, value in pages})
        text = {f"{code:02x}/{sub:02x}": value.hex() for (code, sub), value in saved.items()}
        yield partial(self._state.put, _SECTION, text)
        self._saved = saved

    def apply(self, pages: list[tuple[ModePage, bytes]]) -> bool:
        """Make values current; says whether anything changed."""
        changed = False
        for page, value in pages:
            key = (page.code, page.subcode)
            changed = changed or self._current[key] != value
            self._current[key] = value
        return changed


def _merge(base: bytes, value: bytes, mask: bytes) -> bytes:
    return bytes((old & ~bits) | (new & bits) for old, new, bits in zip(base, value, mask, strict=True))


def _sense(unit: DeviceServer, task: Task, long_lba: bool) -> tuple[bytes, bytes]:
    """The block descriptor and the pages."""
    cdb = task.cdb
    control = cdb[2] >> 6
    pages = unit.mode.select(cdb[2] & 0x3F, cdb[3])
    if not pages:
        raise invalid_cdb(2, 5)
    if control == SAVED and not unit.mode.savable:
        raise CheckCondition(SAVING_PARAMETERS_NOT_SUPPORTED)
    descriptor = b"" if cdb[1] & 0x08 else unit.block_descriptor(long_lba)
    if control == CHANGEABLE:
        descriptor = bytes(len(descriptor))
    return descriptor, b"".join(unit.mode.sense(page, control) for page in pages)


@commands.add("1a 08 ff ff ff 00", "MODE SENSE(6)", allocation=(4, 1), access=CONFLICTS)
def mode_sense6(unit: DeviceServer, task: Task) -> bytes:
    descriptor, pages = _sense(unit, task, long_lba=False)
    length = 3 + len(descriptor) + len(pages)
    header = bytes((min(length, 255), unit.medium_type(), unit.device_specific(), len(descriptor)))
    return header + descriptor + pages


@commands.add("5a 18 ff ff 000000 ffff 00", "MODE SENSE(10)", allocation=(7, 2), access=CONFLICTS)
def mode_sense10(unit: DeviceServer, task: Task) -> bytes:
    descriptor, pages = _sense(unit, task, long_lba=bool(task.cdb[1] & 0x10))
    length = 6 + len(descriptor) + len(pages)
    header = (
        length.to_bytes(2, "big")
        + bytes((unit.medium_type(), unit.device_specific(), 0x01 if len(descriptor) == 16 else 0, 0))
        + len(descriptor).to_bytes(2, "big")
    )
    return header + descriptor + pages


def _select(unit: DeviceServer, task: Task, length: int, header: int) -> Steps | None:
    cdb = task.cdb
    if length and not cdb[1] & 0x10:
        raise invalid_cdb(1, 4)  # PF=0: pages of a format nobody documents
    save = bool(cdb[1] & 0x01)
    if save and not unit.mode.savable:
        raise invalid_cdb(1, 0)
    if not length:
        return None
    data = unit.parameters(task, length)
    if len(data) < length or length < header:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    if header == 4:
        descriptor_length = data[3]
        long_lba = False
    else:
        descriptor_length = int.from_bytes(data[6:8], "big")
        long_lba = bool(data[4] & 1)
    if length < header + descriptor_length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    if descriptor_length:
        unit.check_block_descriptor(data[header : header + descriptor_length], header, long_lba)
    pages = unit.mode.check(data, header + descriptor_length)
    return _applying(unit, task, pages, save)


def _applying(unit: DeviceServer, task: Task, pages: list[tuple[ModePage, bytes]], save: bool) -> Steps:
    yield from unit.mode_changes(pages)
    if save:
        yield from unit.mode.save(pages)
    if unit.mode.apply(pages):
        unit.mode_changed()
        unit.attention(MODE_PARAMETERS_CHANGED, but=task.initiator)


@commands.add("15 11 0000 ff 00", "MODE SELECT(6)", access=CONFLICTS, exclusive=True)
def mode_select6(unit: DeviceServer, task: Task) -> Steps | None:
    return _select(unit, task, task.cdb[4], 4)


@commands.add("55 11 0000000000 ffff 00", "MODE SELECT(10)", access=CONFLICTS, exclusive=True)
def mode_select10(unit: DeviceServer, task: Task) -> Steps | None:
    return _select(unit, task, int.from_bytes(task.cdb[7:9], "big"), 8)
