"""Names of SCSI commands by operation code and service action, for showing requests (SPC-6, "Operation codes")."""

from __future__ import annotations

_NAMES = {
    0x00: "TEST UNIT READY",
    0x01: "REZERO UNIT",
    0x03: "REQUEST SENSE",
    0x04: "FORMAT UNIT",
    0x07: "REASSIGN BLOCKS",
    0x08: "READ(6)",
    0x0A: "WRITE(6)",
    0x12: "INQUIRY",
    0x15: "MODE SELECT(6)",
    0x16: "RESERVE(6)",
    0x17: "RELEASE(6)",
    0x1A: "MODE SENSE(6)",
    0x1B: "START STOP UNIT",
    0x1C: "RECEIVE DIAGNOSTIC RESULTS",
    0x1D: "SEND DIAGNOSTIC",
    0x1E: "PREVENT ALLOW MEDIUM REMOVAL",
    0x23: "READ FORMAT CAPACITIES",
    0x25: "READ CAPACITY(10)",
    0x28: "READ(10)",
    0x2A: "WRITE(10)",
    0x2E: "WRITE AND VERIFY(10)",
    0x2F: "VERIFY(10)",
    0x34: "PRE-FETCH(10)",
    0x35: "SYNCHRONIZE CACHE(10)",
    0x37: "READ DEFECT DATA(10)",
    0x3B: "WRITE BUFFER",
    0x3C: "READ BUFFER",
    0x41: "WRITE SAME(10)",
    0x42: "UNMAP",
    0x43: "READ TOC/PMA/ATIP",
    0x46: "GET CONFIGURATION",
    0x48: "SANITIZE",
    0x4A: "GET EVENT STATUS NOTIFICATION",
    0x4C: "LOG SELECT",
    0x4D: "LOG SENSE",
    0x51: "READ DISC INFORMATION",
    0x55: "MODE SELECT(10)",
    0x56: "RESERVE(10)",
    0x57: "RELEASE(10)",
    0x5A: "MODE SENSE(10)",
    0x5E: "PERSISTENT RESERVE IN",
    0x5F: "PERSISTENT RESERVE OUT",
    0x7F: "variable length",
    0x83: "EXTENDED COPY",
    0x84: "RECEIVE COPY RESULTS",
    0x88: "READ(16)",
    0x89: "COMPARE AND WRITE",
    0x8A: "WRITE(16)",
    0x8B: "ORWRITE(16)",
    0x8E: "WRITE AND VERIFY(16)",
    0x8F: "VERIFY(16)",
    0x90: "PRE-FETCH(16)",
    0x91: "SYNCHRONIZE CACHE(16)",
    0x93: "WRITE SAME(16)",
    0x9C: "WRITE ATOMIC(16)",
    0xA0: "REPORT LUNS",
    0xA8: "READ(12)",
    0xAA: "WRITE(12)",
    0xAE: "WRITE AND VERIFY(12)",
    0xAF: "VERIFY(12)",
    0xB7: "READ DEFECT DATA(12)",
    0xBE: "READ CD",
}

_SERVICE_ACTIONS = {
    (0x9E, 0x10): "READ CAPACITY(16)",
    (0x9E, 0x12): "GET LBA STATUS",
    (0xA3, 0x05): "REPORT DEVICE IDENTIFIER",
    (0xA3, 0x0A): "REPORT TARGET PORT GROUPS",
    (0xA3, 0x0C): "REPORT SUPPORTED OPERATION CODES",
    (0xA3, 0x0D): "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    (0xA3, 0x0F): "REPORT TIMESTAMP",
    (0xA4, 0x0F): "SET TIMESTAMP",
}


def cdb_name(cdb: str) -> str:
    """The name of the command in a CDB given as hex digits."""
    try:
        raw = bytes.fromhex(cdb)
    except ValueError:
        return "?"
    if not raw:
        return "?"
    if len(raw) > 1 and (name := _SERVICE_ACTIONS.get((raw[0], raw[1] & 0x1F))):
        return name
    return _NAMES.get(raw[0], f"operation {raw[0]:02X}h")
