"""What of a unit's state survives what: the table of docs/target.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk
from hba.scsi.state import SavedState
from hba.storage.backend import Backend
from hba.storage.memory import MemoryBackend
from tests.scsi.util import CHECK_CONDITION, GOOD, be, disk, run, settle

KEY = (0x1234).to_bytes(8, "big")


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = ScsiBus()
        self.store: Backend = MemoryBackend(1 << 20)
        self.unit = self.make()

    def make(self) -> Disk:
        unit = disk(backend=self.store, removable=True, state=SavedState(self.folder / "state"))
        self.bus.units.clear()
        self.bus.attach(0, 0, unit)
        settle(unit)
        return unit

    def good(self, cdb: str, room: int = 0, out: bytes | None = None) -> bytes:
        result = run(self.unit, cdb, room, out)
        assert result.status == GOOD, result
        return result.data

    def select(self, page: int, length: int, values: dict[int, int], save: bool) -> None:
        body = bytearray(length)
        for at, value in values.items():
            body[at] = value
        data = bytes(4) + bytes((page, length)) + bytes(body)
        self.good(f"15{0x11 if save else 0x10:02x}0000{len(data):02x}00", out=data)


# -- what there is to survive: (set it, is it still there) -----------------------------------------------------------


def current_page(lab: Lab) -> Callable[[], bool]:
    lab.select(0x0A, 10, {0: 0x06, 1: 0x10}, save=False)  # D_SENSE
    return lambda: lab.unit.descriptor_sense


def saved_page(lab: Lab) -> Callable[[], bool]:
    lab.select(0x0A, 10, {0: 0x06, 1: 0x10}, save=True)
    return lambda: lab.unit.descriptor_sense


def reservation(lab: Lab, aptpl: int = 0) -> Callable[[], bool]:
    lab.good("5f000000000000001800", out=bytes(8) + KEY + bytes(4) + bytes((aptpl, 0, 0, 0)))
    lab.good("5f010100000000001800", out=KEY + bytes(16))
    return lambda: bool(lab.unit.reservations.keys and lab.unit.reservations.type)


def reservation_with_aptpl(lab: Lab) -> Callable[[], bool]:
    return reservation(lab, 1)


def reserve(lab: Lab) -> Callable[[], bool]:
    lab.good("160000000000")
    return lambda: lab.unit.reservations.legacy_holder is not None


def prevented(lab: Lab) -> Callable[[], bool]:
    lab.good("1e0000000100")
    return lambda: bool(lab.unit.locked_by)


def tray(lab: Lab) -> Callable[[], bool]:
    lab.good("1b0000000200")
    return lambda: lab.unit.tray_open


def stopped(lab: Lab) -> Callable[[], bool]:
    lab.unit.removable = False
    lab.good("1b0000000000")
    return lambda: lab.unit.stopped


def echo(lab: Lab) -> Callable[[], bool]:
    lab.good("3b0a0000000000000800", out=KEY)
    return lambda: run(lab.unit, "3c0a0000000000000800", 8).status == GOOD


def timestamp(lab: Lab) -> Callable[[], bool]:
    lab.good("a40f000000000000000c0000", out=bytes(4) + (1 << 40).to_bytes(6, "big") + bytes(2))
    return lambda: lab.unit.timestamp[0] != 0


def protected_by_the_host(lab: Lab) -> Callable[[], bool]:
    lab.unit.set_read_only(True)
    settle(lab.unit)
    return lambda: lab.unit.write_protected


def data(lab: Lab) -> Callable[[], bool]:
    lab.good(f"2a00{be(8, 4)}00{be(1, 2)}00", out=b"\xa5" * 512)
    return lambda: run(lab.unit, f"2800{be(8, 4)}00{be(1, 2)}00", 512).data == b"\xa5" * 512


# -- events ----------------------------------------------------------------------------------------------------------


def client_leaves(lab: Lab) -> None:
    lab.bus.power_cycle()


def machine_resets(lab: Lab) -> None:
    lab.bus.reset_bus()  # what the port does when the function is reset


def unit_reset(lab: Lab) -> None:
    lab.bus.reset_unit(0, 0)


def server_starts_anew(lab: Lab) -> None:
    lab.unit.abort_all(3)
    lab.unit.state.close()
    lab.unit = lab.make()


YES, NO = True, False
EVENTS = (client_leaves, machine_resets, unit_reset, server_starts_anew)
SURVIVES: dict[Callable[[Lab], Callable[[], bool]], tuple[bool, bool, bool, bool]] = {
    current_page: (NO, NO, NO, NO),
    saved_page: (YES, YES, YES, YES),
    reservation: (NO, YES, YES, NO),
    reservation_with_aptpl: (YES, YES, YES, YES),
    reserve: (NO, NO, NO, NO),
    prevented: (NO, NO, NO, NO),
    tray: (YES, YES, YES, NO),
    stopped: (NO, YES, YES, NO),
    echo: (NO, NO, NO, NO),
    timestamp: (NO, NO, YES, NO),
    protected_by_the_host: (YES, YES, YES, NO),
    data: (YES, YES, YES, YES),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("what", SURVIVES)
def test_the_table(tmp_path: Path, what: Callable[[Lab], Callable[[], bool]], event: Callable[[Lab], None]) -> None:
    lab = Lab(tmp_path)
    there = what(lab)
    assert there()
    event(lab)
    settle(lab.unit)
    assert there() == SURVIVES[what][EVENTS.index(event)]


@pytest.mark.parametrize(
    ("event", "attention"),
    [(client_leaves, 0x062901), (machine_resets, 0x062902), (unit_reset, 0x062903), (server_starts_anew, 0x062901)],
)
def test_each_is_told_once(tmp_path: Path, event: Callable[[Lab], None], attention: int) -> None:
    lab = Lab(tmp_path)
    event(lab)
    if event is server_starts_anew:
        lab.unit.attentions.reset("power-on")
        lab.unit.refresh()
    first = run(lab.unit, "000000000000")
    assert (first.status, first.condition) == (CHECK_CONDITION, attention)
    assert run(lab.unit, "000000000000").status == GOOD


def test_the_documented_table_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "target.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 6]
    found = {row.split("|")[1].strip(): tuple(cell.strip() == "kept" for cell in row.split("|")[2:6]) for row in rows}
    names = {what.__name__.replace("_", " "): survives for what, survives in SURVIVES.items()}
    assert names.items() <= found.items()
