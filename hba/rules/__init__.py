"""The catalogue: every rule by ID. One file per side: SCSI Port, Storport (and both), the guest driver."""

from __future__ import annotations

from hba.rules.guest import GUEST_RULES
from hba.rules.rule import Rule
from hba.rules.scsiport import SCSIPORT_RULES
from hba.rules.storport import STORPORT_RULES

RULES: dict[str, Rule] = {rule.id: rule for rule in (*SCSIPORT_RULES, *STORPORT_RULES, *GUEST_RULES)}
