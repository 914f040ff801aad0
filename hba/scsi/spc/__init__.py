"""Commands every device type has (SPC-4)."""

from __future__ import annotations

from hba.scsi.command import CommandTable
from hba.scsi.spc import (
    buffers,
    diagnostic,
    inquiry,
    log,
    mode,
    opcodes,
    persistent_reserve,
    ports,
    ready,
    report_luns,
    reserve_release,
    timestamp,
)

COMMON = CommandTable(
    inquiry.commands,
    ready.commands,
    report_luns.commands,
    mode.commands,
    log.commands,
    opcodes.commands,
    ports.commands,
    persistent_reserve.commands,
    reserve_release.commands,
    buffers.commands,
    diagnostic.commands,
    timestamp.commands,
)
