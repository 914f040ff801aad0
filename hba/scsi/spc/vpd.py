"""Vital product data every device type has (SPC-4 "Vital product data parameters"): bodies without the header."""

from __future__ import annotations

import hashlib

from hba.scsi.server import Identity
from hba.scsi.spc.inquiry import text

_BINARY = 1
_ASCII = 2
_ASSOCIATION_PORT = 0x10

RELATIVE_PORT = 1
PORT_GROUP = 1


def unit_serial_number(identity: Identity) -> bytes:
    """Page 80h."""
    return text(identity.serial, max(1, min(len(identity.serial), 252)))


def naa_of(identity: Identity) -> int:
    """The unit's 64-bit name: as configured, or NAA 3h (locally assigned) derived from what identifies it."""
    if identity.naa:
        return identity.naa
    seed = f"{identity.vendor}/{identity.product}/{identity.serial}/{identity.target}/{identity.lun}"
    return 0x3 << 60 | int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 4


def _designator(code_set: int, kind: int, value: bytes) -> bytes:
    return bytes((code_set, kind, 0, len(value))) + value


def device_identification(identity: Identity) -> bytes:
    """Page 83h: NAA and T10 vendor ID of the unit, relative port and port group of the path."""
    vendor_id = text(identity.vendor, 8) + text(identity.product, 16) + identity.serial.encode("ascii", "replace")[:32]
    return (
        _designator(_BINARY, 0x03, naa_of(identity).to_bytes(8, "big"))
        + _designator(_ASCII, 0x01, vendor_id)
        + _designator(_BINARY, _ASSOCIATION_PORT | 0x04, RELATIVE_PORT.to_bytes(4, "big"))
        + _designator(_BINARY, _ASSOCIATION_PORT | 0x05, PORT_GROUP.to_bytes(4, "big"))
    )


def extended_inquiry(*, volatile_cache: bool, protection_types: int | None = None) -> bytes:
    """Page 86h. `protection_types`: the SPT field, when protection information is supported."""
    body = bytearray(60)
    if protection_types is not None:
        body[0] = protection_types << 3 | 0x05  # GRD_CHK, REF_CHK; application tags are the initiator's
    body[1] = 0x20 | 0x07  # UASK_SUP; HEADSUP, ORDSUP, SIMPSUP
    body[2] = 0x01 if volatile_cache else 0x00  # V_SUP
    body[3] = 0x01  # LUICLR: unit attentions of all initiators are cleared one by one
    return bytes(body)
