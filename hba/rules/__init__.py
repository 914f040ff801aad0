"""The catalogue: every rule by ID. A file for each: SCSI Port, Storport (and both), library, dump mode, guest's driver.

An adapter's rules of its guest's driver are with the adapter; `hba.adapters.types.Registry.rules` has all there are.
"""

from __future__ import annotations

from hba.rules.dump import DUMP_RULES
from hba.rules.guest import GUEST_RULES
from hba.rules.library import LIBRARY_RULES
from hba.rules.rule import Rule
from hba.rules.scsiport import SCSIPORT_RULES
from hba.rules.storport import STORPORT_RULES


def catalogue(*rules: Rule) -> dict[str, Rule]:
    """The rules by ID: the ports' in their order, then those of guests' drivers by ID."""
    ports = [rule for rule in rules if rule.model != "guest"]
    guests = sorted((rule for rule in rules if rule.model == "guest"), key=lambda rule: rule.id)
    found = {rule.id: rule for rule in (*ports, *guests)}
    assert len(found) == len(rules), "two rules of the same ID"
    return found


RULES = catalogue(*SCSIPORT_RULES, *STORPORT_RULES, *LIBRARY_RULES, *DUMP_RULES, *GUEST_RULES)  # without any adapter's
