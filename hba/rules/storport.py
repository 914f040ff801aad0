"""Rules of Storport (ST, LK, MB, QD, RS, PF, XS)."""

from __future__ import annotations

from hba.rules.rule import Rule

STORPORT_RULES: tuple[Rule, ...] = ()
