"""What a class driver for disks knows of a SCSI command: where it is on the medium, how long it may take, whether it is
one of its own that it tries again.

Sources: SCSI_REQUEST_BLOCK (QueueSortKey, TimeOutValue); Storage Class Driver's BuildRequest Routine; the behaviour of
Microsoft's samples of classpnp and disk (time-outs and retry counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_SORT_KEY: Final = 0xFFFFFFFF  # of a block beyond the first 2**32: towards the end of the queue
START_UNIT_TIME_OUT: Final = 240  # seconds: enough for a drive to spin up
VERIFY_BLOCKS: Final = 128  # so many blocks of a VERIFY have one TimeOutValue

READS_AND_WRITES: Final = -1  # `Command.retries`: as many as reads and writes have (an option)


@dataclass(frozen=True, slots=True)
class Command:
    """`lba`: offset and length in bytes of the logical block address in the CDB; none: it has no place on the medium.
    `factor`: how many TimeOutValues it has. `retries`: how often it is tried again after an error."""

    lba: tuple[int, int] | None = None
    factor: int = 1
    retries: int = 0
    transfer: bool = False  # reads or writes blocks


_SIX, _TEN, _LONG = (1, 3), (2, 4), (2, 8)


def _transfer(lba: tuple[int, int]) -> Command:
    return Command(lba, retries=READS_AND_WRITES, transfer=True)


COMMANDS: Final[dict[int, Command]] = {
    0x08: _transfer(_SIX),  # READ(6)
    0x0A: _transfer(_SIX),  # WRITE(6)
    0x28: _transfer(_TEN),  # READ(10)
    0x2A: _transfer(_TEN),  # WRITE(10)
    0xA8: _transfer(_TEN),  # READ(12)
    0xAA: _transfer(_TEN),  # WRITE(12)
    0x88: _transfer(_LONG),  # READ(16)
    0x8A: _transfer(_LONG),  # WRITE(16)
    0x2F: Command(_TEN),  # VERIFY(10); its time-out: `time_out`
    0x8F: Command(_LONG),  # VERIFY(16)
    0x2E: Command(_TEN, factor=4),  # WRITE AND VERIFY(10)
    0x8E: Command(_LONG, factor=4),  # WRITE AND VERIFY(16)
    0x35: Command(factor=4, retries=4),  # SYNCHRONIZE CACHE(10)
    0x91: Command(factor=4, retries=4),  # SYNCHRONIZE CACHE(16)
    0x1A: Command(retries=1),  # MODE SENSE(6)
    0x5A: Command(retries=1),  # MODE SENSE(10)
    0x25: Command(retries=1),  # READ CAPACITY(10)
    0x9E: Command(retries=1),  # READ CAPACITY(16), a service action
    0x07: Command(factor=2),  # REASSIGN BLOCKS
}
UNKNOWN: Final = Command()
_VERIFY = {0x2F: (7, 2), 0x8F: (10, 4)}  # where the number of blocks is


def known(cdb: bytes) -> Command:
    return COMMANDS.get(cdb[0], UNKNOWN) if cdb else UNKNOWN


def sort_key(cdb: bytes, command: Command) -> int:
    """QueueSortKey: the first logical block, or 0 where a command has none (Q-01, Q-02)."""
    if command.lba is None:
        return 0
    offset, length = command.lba
    block = int.from_bytes(cdb[offset : offset + length], "big")
    if length == 3:
        block &= 0x1FFFFF  # bits above are no part of it
    return min(block, MOST_SORT_KEY)


def time_out(cdb: bytes, command: Command, base: int) -> int:
    """TimeOutValue in seconds; `base` is that of a read."""
    if not cdb:
        return base
    if cdb[0] == 0x1B:  # START STOP UNIT
        return max(START_UNIT_TIME_OUT, base)
    if (place := _VERIFY.get(cdb[0])) is not None:
        blocks = int.from_bytes(cdb[place[0] : place[0] + place[1]], "big")
        return min(max(1, (blocks + VERIFY_BLOCKS - 1) // VERIFY_BLOCKS) * base, 0xFFFF)
    return base * command.factor
