"""Rules of SCSI Port, and those both models share (SP, Q, OW, IN, ER, CF)."""

from __future__ import annotations

from hba.rules.rule import Rule

SCSIPORT_RULES: tuple[Rule, ...] = ()
