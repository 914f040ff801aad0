"""Commands every device type has (SPC-4)."""

from __future__ import annotations

from hba.scsi.command import CommandTable
from hba.scsi.spc import inquiry, log, mode, opcodes, ports, ready, report_luns

COMMON = CommandTable(
    inquiry.commands,
    ready.commands,
    report_luns.commands,
    mode.commands,
    log.commands,
    opcodes.commands,
    ports.commands,
)
