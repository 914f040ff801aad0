"""Rules of the guest driver's side, from what only the device sees (GD)."""

from __future__ import annotations

from hba.rules.rule import Rule

GUEST_RULES: tuple[Rule, ...] = ()
