"""Which units there are: what a port driver and the class drivers above it ask when an adapter starts, and when a bus
has changed.

For each target: INQUIRY of LUN 0; if something answers, REPORT LUNS; of each unit INQUIRY and the vital product data
Windows wants (supported pages, unit serial number, device identification). Units that do not answer are not there.

Sources: Storport Queue Management and its registry entries (MaximumLogicalUnit); SCSI_ADAPTER_CONTROL_TYPE
(ScsiAdapterPrepareForBusReScan); SPC-4 "INQUIRY", "REPORT LUNS".
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from hba.classdriver import srbs
from hba.classdriver.srbs import Unit
from hba.port.driver import PortDriver
from hba.port.script import Step
from hba.srb import SRB_STATUS_DATA_OVERRUN, SRB_STATUS_MASK, SRB_STATUS_SUCCESS, Srb

INQUIRY_LENGTH: Final = 36
PAGE_LENGTH: Final = 252
LUNS_LENGTH: Final = 16 + 8 * 256
TIME_OUT: Final = 4  # seconds of an INQUIRY: a unit that does not answer shall not hold up the others for long
NOTHING_THERE: Final = 3  # peripheral qualifier
UNIT_SERIAL_NUMBER, DEVICE_IDENTIFICATION = 0x80, 0x83


@dataclass(frozen=True, slots=True)
class FoundUnit:
    """What answered at an address. `serial`: of page 80h; `pages`: vital product data pages it says it has."""

    unit: Unit
    device_type: int
    vendor: str
    product: str
    revision: str
    serial: str
    pages: tuple[int, ...]


def send(port: PortDriver, srb: Srb) -> Step:
    """The step of sending an SRB; it ends with the SRB."""

    def begin(ended: Callable[[Srb], None]) -> None:
        srb.completion = ended
        port.submit(srb)

    return begin


def scan(
    port: PortDriver, buses: int, targets: int, luns: int
) -> Generator[Step, Any, list[FoundUnit]]:  # one request at a time, as at a start
    """All units behind `port`, an adapter with so many buses, targets and logical units of each."""
    found: list[FoundUnit] = []
    for path in range(buses):
        for target in range(targets):
            first = yield from inquiry(port, (path, target, 0))
            if first is None:
                continue
            for lun in (yield from _luns(port, (path, target, 0), luns)):
                unit = (path, target, lun)
                standard = first if not lun else (yield from inquiry(port, unit))
                if standard is not None and standard[0] >> 5 != NOTHING_THERE:
                    found.append((yield from _known(port, unit, standard)))
    return found


def inquiry(port: PortDriver, unit: Unit, page: int | None = None) -> Generator[Step, Any, bytes | None]:
    """INQUIRY data, or those of a vital product data page; None when it fails."""
    length = INQUIRY_LENGTH if page is None else PAGE_LENGTH
    cdb = bytes((0x12, int(page is not None), page or 0, 0, length, 0))
    data = _data((yield send(port, srbs.read_in(unit, cdb, length, TIME_OUT))))
    return data if data is not None and len(data) >= (5 if page is None else 4) else None


def _luns(port: PortDriver, unit: Unit, most: int) -> Generator[Step, Any, list[int]]:
    """The LUNs of a target; only LUN 0 of one that does not know the command."""
    cdb = bytes((0xA0, 0, 0, 0, 0, 0)) + LUNS_LENGTH.to_bytes(4, "big") + bytes(2)
    data = _data((yield send(port, srbs.read_in(unit, cdb, LUNS_LENGTH, srbs.TIME_OUT))))
    if data is None or len(data) < 16:
        return [0]
    end = min(8 + int.from_bytes(data[:4], "big"), len(data))
    there = {_lun(data[at : at + 8]) for at in range(8, end - 7, 8)}
    return sorted(lun for lun in there if lun is not None and lun < most)


def _lun(entry: bytes) -> int | None:
    """A LUN of one level, peripheral or flat (SAM-5 "LUN representation format"); None for others."""
    if any(entry[2:]) or entry[0] & 0x80:
        return None
    return (entry[0] & 0x3F) << 8 | entry[1] if entry[0] & 0x40 else (entry[1] if not entry[0] else None)


def _known(port: PortDriver, unit: Unit, standard: bytes) -> Generator[Step, Any, FoundUnit]:
    supported = (yield from inquiry(port, unit, 0)) or b""
    pages = tuple(supported[4 : 4 + supported[3]]) if supported else ()
    serial = b""
    for page in (UNIT_SERIAL_NUMBER, DEVICE_IDENTIFICATION):
        if page in pages:
            data = (yield from inquiry(port, unit, page)) or b""
            if page == UNIT_SERIAL_NUMBER and data:
                serial = data[4 : 4 + data[3]]
    return FoundUnit(
        unit,
        standard[0] & 0x1F,
        _text(standard[8:16]),
        _text(standard[16:32]),
        _text(standard[32:36]),
        _text(serial),
        pages,
    )


def _data(srb: Srb) -> bytes | None:
    """What a command brought; None when it failed. Less than asked for is as good."""
    if srb.srb_status & SRB_STATUS_MASK not in (SRB_STATUS_SUCCESS, SRB_STATUS_DATA_OVERRUN) or srb.mdl is None:
        return None
    return srb.mdl.read(0, srb.data_transfer_length)


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")
