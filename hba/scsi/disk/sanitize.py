"""SANITIZE (SBC-4): overwrite, block erase (thin disks), exit failure mode. There is no cryptographic erase: blocks
are not encrypted, so no key could be forgotten.

A sanitize that fails leaves the unit refusing everything until it is repeated, or left by EXIT FAILURE MODE if AUSE
allowed that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.disk.background import Background
from hba.scsi.disk.verify import CHUNK
from hba.scsi.disk.wipe import zeroing
from hba.scsi.sense import (
    PARAMETER_LIST_LENGTH_ERROR,
    SANITIZE_COMMAND_FAILED,
    CheckCondition,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.server import PENDING
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()
block_erase = CommandTable()  # of a thin provisioned disk

# SBC-4 "Performing a sanitize operation": what goes on meanwhile (INQUIRY, REQUEST SENSE, REPORT LUNS and such)
ALLOWED_MEANWHILE = frozenset((0x03, 0x12, 0xA0, 0x4D, 0xA3))
ALLOWED_AFTER_FAILURE = ALLOWED_MEANWHILE | {0x48}

_IMMED, _AUSE = 0x80, 0x20
_INVERT = 0x80

_OPTIONS = {"access": CONFLICTS, "medium": True, "exclusive": True, "service": True, "timeout": (60, 7200)}


def _sanitize(unit: Disk, task: Task, steps: Callable[[Background], Steps]) -> bool | None:
    """Start in the background; without IMMED the command ends when the sanitize does."""
    unit.sanitize_failed = False
    unit.sanitize_may_leave = bool(task.cdb[1] & _AUSE)

    def all_steps(background: Background) -> Steps:
        yield from steps(background)
        yield unit.store().flush

    def ended(good: bool) -> None:
        unit.background = None
        unit.sanitize_failed = not good
        unit.refresh()
        unit.finish_io(task, None if good else CheckCondition(SANITIZE_COMMAND_FAILED))

    unit.run_in_background(Background(unit, all_steps, sanitize=True, ended=ended))
    return None if task.cdb[1] & _IMMED else PENDING


def _no_parameters(task: Task) -> None:
    if int.from_bytes(task.cdb[7:9], "big"):
        raise invalid_cdb(7)


@commands.add("48 a1 0000000000 ffff 00", "SANITIZE, OVERWRITE", **_OPTIONS)
def overwrite(unit: Disk, task: Task) -> bool | None:
    length = int.from_bytes(task.cdb[7:9], "big")
    if not 4 < length <= unit.block_size + 4:
        raise invalid_cdb(7)
    unit.check_writable()
    data = unit.parameters(task, length)
    if len(data) < length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    count = data[0] & 0x1F
    pattern_length = int.from_bytes(data[2:4], "big")
    if not count:
        raise invalid_parameter(0, 4)
    if data[0] & 0x60 > 0x20:
        raise invalid_parameter(0, 6)  # TEST: 00b and 01b are defined
    if not 0 < pattern_length <= unit.block_size or pattern_length != length - 4:
        raise invalid_parameter(2)
    size = unit.block_size
    block = (data[4:] * (size // pattern_length + 1))[:size]
    invert = bool(data[0] & _INVERT)

    def steps(background: Background) -> Steps:
        for turn in range(count):
            yield from _overwriting(unit, block, invert and bool((count - turn) % 2 == 0), background, turn, count)

    return _sanitize(unit, task, steps)


def _overwriting(unit: Disk, block: bytes, inverted: bool, background: Background, turn: int, turns: int) -> Steps:
    """One pass over the medium."""
    store = unit.store()
    size = unit.block_size
    if inverted:
        block = bytes(byte ^ 0xFF for byte in block)
    chunk = max(1, CHUNK // size)
    pattern = memoryview(block * min(chunk, unit.blocks))
    done, total = 0, unit.blocks
    while done < total:
        now = min(chunk, total - done)
        yield partial(store.write, [pattern[: now * size]], done * size)
        done += now
        background.progress = (turn * total + done) * 0xFFFF // (turns * total)
        yield None


@block_erase.add("48 a2 0000000000 ffff 00", "SANITIZE, BLOCK ERASE", **_OPTIONS)
def erase(unit: Disk, task: Task) -> bool | None:
    _no_parameters(task)
    unit.check_writable()
    return _sanitize(unit, task, lambda background: zeroing(unit, True, background))


@commands.add("48 bf 0000000000 ffff 00", "SANITIZE, EXIT FAILURE MODE", **{**_OPTIONS, "medium": False})
def exit_failure_mode(unit: Disk, task: Task) -> None:
    """Leaves the failed state, if the SANITIZE that failed allowed it (AUSE)."""
    _no_parameters(task)
    if unit.sanitize_failed and not unit.sanitize_may_leave:
        raise invalid_cdb(1, 4)
    unit.sanitize_failed = False
    unit.refresh()
