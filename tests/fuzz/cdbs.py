"""Commands in a row to one logical unit: each ends once, with a status there is, and moves no more than fits."""

from __future__ import annotations

from collections.abc import Iterator

from hba.scsi.task import ACA, DATA_IN, DATA_NONE, DATA_OUT, HEAD_OF_QUEUE, ORDERED, SIMPLE
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target
from tests.hostile.guest import TEMPLATES
from tests.scsi.test_fuzz import UNITS, build, check, declared

MOST_COMMANDS = 16
ROOM = (0, 4, 8, 16, 18, 24, 36, 96, 255, 512, 516, 1024, 4096)


def run(data: bytes) -> None:
    reader = Reader(data)
    kind = reader.choose(UNITS)
    unit = build(kind)
    commands = declared(kind)
    try:
        for _ in reader.steps(MOST_COMMANDS):
            how = reader.u8()
            cdb = bytearray(reader.bytes(32 if how & 1 else 16))
            if how & 2:
                # One the unit has, with any bits it looks at.
                command = commands[reader.u8() % len(commands)]
                cdb = bytearray(
                    byte & mask
                    for byte, mask in zip(bytes(cdb).ljust(command.length, b"\0"), command.usage, strict=False)
                )
                cdb[0] = command.opcode
                if command.service_action is not None:
                    cdb[1] = cdb[1] & ~0x1F | command.service_action
            elif how & 4:
                cdb = bytearray(reader.choose(TEMPLATES).ljust(16, b"\0"))
                for _ in range(how >> 6):
                    cdb[reader.u8() % 16] = reader.u8()
            direction = reader.choose((DATA_NONE, DATA_IN, DATA_OUT))
            size = reader.u16() & 0x7FF if how & 8 else reader.choose(ROOM)
            attribute = reader.choose((SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA, 0, 255))
            content = reader.piece() if how & 16 else b""
            check(unit, bytes(cdb), direction, size, attribute, 6 if how & 32 else 7, content)
    finally:
        unit.close()


def _seeds() -> Iterator[bytes]:
    for unit, kind in enumerate(UNITS):
        for number in range(len(declared(kind))):
            for direction in (1, 2):
                yield bytes((unit, 2 | 16)) + bytes(16) + bytes((number, direction, 9, 0, 24)) + bytes(24)
    for number in range(len(TEMPLATES)):
        yield bytes((number % 2, 4)) + bytes(16) + bytes((number, 1 + number % 2, 12, 0))


TARGET = Target("cdbs", run, tuple(_seeds()))
