"""Registers and the entry of the ring."""

from __future__ import annotations

import struct

from hba.pci.identity import Identity
from hba.pci.registers import RO, RW, WO, Register

IDENTITY = Identity(vendor=0x1234, device=0x0001, class_code=0x010000)
BAR_SIZE = 0x1000
RING, SIZE, DOORBELL, DONE, UNIT, HEARD = 0x00, 0x08, 0x0C, 0x10, 0x14, 0x18
REGISTERS = [
    Register("RING", RING, 64, RW, doc="bus address of the ring"),
    Register("SIZE", SIZE, 32, RW, doc="entries of the ring"),
    Register("DOORBELL", DOORBELL, 32, WO, doc="entries made ready so far"),
    Register("DONE", DONE, 32, RO, doc="entries done so far"),
    Register("UNIT", UNIT, 32, RO, doc="a unit that has come (1) or gone (2), its target, its LUN; a byte for each"),
    Register("HEARD", HEARD, 32, WO, doc="the driver knows of that now"),
]

# cdb, address, length; bytes: CDB length, target, LUN, direction, state, SCSI status, SRB status, sense length; sense
ENTRY = struct.Struct("<16sQI8B18s10x")
ENTRY_SIZE = 64
STATE_AT = 16 + 8 + 4 + 4  # the state, and what else the adapter writes behind it
RESULT = struct.Struct("<4B18s")
NO_DATA, IN, OUT = 0, 1, 2  # direction
READY, ENDED = 1, 2  # state
COME, GONE = 1, 2  # of a unit
assert ENTRY.size == ENTRY_SIZE
