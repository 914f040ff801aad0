"""The enclosure's diagnostic pages (SES-3): supported pages, configuration, status and control, element descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.sense import PARAMETER_LIST_LENGTH_ERROR, CheckCondition, invalid_parameter
from hba.scsi.spc.inquiry import text
from hba.scsi.spc.vpd import naa_of

if TYPE_CHECKING:
    from hba.scsi.enclosure.enclosure import Enclosure

SLOTS = 16
TEMPERATURE = 25  # degrees Celsius

SUPPORTED, CONFIGURATION, STATUS, DESCRIPTORS = 0x00, 0x01, 0x02, 0x07

TEMPERATURE_SENSOR, ENCLOSURE, ARRAY_DEVICE_SLOT = 0x04, 0x0E, 0x17

_GENERATION = bytes(4)  # the configuration never changes
_OK, _NOT_INSTALLED = 1, 5
_SELECT = 0x80


def _elements() -> list[tuple[int, int, str]]:
    """(element type, how many, name)."""
    return [(ARRAY_DEVICE_SLOT, SLOTS, "slot"), (TEMPERATURE_SENSOR, 1, "temperature"), (ENCLOSURE, 1, "enclosure")]


def diagnostic_page(unit: Enclosure, code: int) -> bytes | None:
    """A whole page with its header, or None."""
    if code == SUPPORTED:
        body = bytes((SUPPORTED, CONFIGURATION, STATUS, DESCRIPTORS))
        return bytes((SUPPORTED, 0)) + len(body).to_bytes(2, "big") + body
    makers = {CONFIGURATION: _configuration, STATUS: _status, DESCRIPTORS: _descriptors}
    maker = makers.get(code)
    if maker is None:
        return None
    body = _GENERATION + maker(unit)
    return bytes((code, 0)) + len(body).to_bytes(2, "big") + body


def _configuration(unit: Enclosure) -> bytes:
    identity = unit.identity
    elements = _elements()
    descriptor = bytes((0x11, 0, len(elements), 36))  # process 1 of 1, the primary subenclosure
    descriptor += naa_of(identity).to_bytes(8, "big")
    descriptor += text(identity.vendor, 8) + text(identity.product, 16) + text(identity.revision, 4)
    for kind, count, name in elements:
        descriptor += bytes((kind, count, 0, len(name)))
    return descriptor + b"".join(name.encode() for _, _, name in elements)


def _status(unit: Enclosure) -> bytes:
    body = bytes(4)  # the overall element of the slots: not reported
    for slot in range(SLOTS):
        code = _OK if unit.occupied(slot) else _NOT_INSTALLED
        body += bytes((code, 0, 0x02 if slot in unit.identify else 0, 0x20 if slot in unit.fault else 0))
    body += bytes(4) + bytes((_OK, 0, TEMPERATURE + 20, 0))
    return body + bytes(4) + bytes((_OK, 0x80 if unit.identify_enclosure else 0, 0, 0))


def _descriptors(unit: Enclosure) -> bytes:
    body = b""
    for _, count, name in _elements():
        body += bytes(4)
        for number in range(count):
            label = f"{name} {number}".encode()
            body += bytes(2) + len(label).to_bytes(2, "big") + label
    return body


def control(unit: Enclosure, data: bytes) -> None:
    """An enclosure control page: switch the lamps of the elements it selects."""
    expected = 8 + 4 * (1 + SLOTS) + 8 + 8
    if len(data) != expected:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    if data[4:8] != _GENERATION:
        raise invalid_parameter(4)
    overall = data[8:12]
    for slot in range(SLOTS):
        start = 12 + 4 * slot
        element = data[start : start + 4]
        if not element[0] & _SELECT:
            if not overall[0] & _SELECT:
                continue
            element = overall
        _switch(unit.identify, slot, bool(element[2] & 0x02))
        _switch(unit.fault, slot, bool(element[3] & 0x20))
    enclosure = data[expected - 4 :]
    if enclosure[0] & _SELECT:
        unit.identify_enclosure = bool(enclosure[1] & 0x80)


def _switch(lamps: set[int], slot: int, on: bool) -> None:
    if on:
        lamps.add(slot)
    else:
        lamps.discard(slot)
