"""Rules of a minimal adapter's driver."""

from __future__ import annotations

from hba.rules.rule import NOTE, VERIFIED, Rule

MINIMAL_RULES = (
    Rule(
        "MN-01",
        "doorbell without work",
        "guest",
        "The doorbell announces at least one entry.",
        "the interface of the minimal adapter",
        "Compared with the count before.",
        (VERIFIED,),
        NOTE,
    ),
)
