"""What was found: the verifier's levels, overrides, findings and their counters.

The watchers sit with what they watch (the port, the buffers, the adapter); all of them report here, by rule ID.
With the verifier off nobody holds a `Verifier` at all (the attribute is None), so off costs one test.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hba.clock import Clock
from hba.rules import RULES
from hba.rules.rule import NOTE, VIOLATION, WARNING, Rule

LEVELS = ("off", "report", "strict")
SEVERITIES = ("off", NOTE, WARNING, VIOLATION)  # of an override
KEPT: Final = 1000  # findings kept for `hba show verifier`; counters go on beyond


class RuleViolation(Exception):
    """Raised into the offender at level strict."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.rule}: {finding.message}")
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    severity: str
    message: str  # what happened, with the values
    time: int  # ns on the adapter's clock
    where: str = ""  # "module.py:123 in hw_start_io" of the miniport, or the ring slot of the guest
    srb: str = ""  # address, CDB and status of the request, if one is involved
    history: tuple[str, ...] = ()  # what happened to that SRB so far
    details: Mapping[str, object] = field(default_factory=dict)


class Verifier:
    """Collects findings. One per adapter.

    `rules`: the catalogue; with an adapter, that has its rules too (`hba.adapters.types.Registry.rules`).
    `overrides`: rule ID -> "off", "note", "warning", "violation" (severity instead of the rule's own).
    """

    def __init__(
        self,
        clock: Clock,
        level: str = "report",
        overrides: Mapping[str, str] | None = None,
        rules: Mapping[str, Rule] = RULES,
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"verifier level {level!r} is none of {', '.join(LEVELS)}")
        self.clock = clock
        self.level = level
        self.strict = level == "strict"
        self._rules = rules
        self.overrides = dict(overrides or {})
        unknown = sorted(set(self.overrides) - set(rules))
        if unknown:
            raise ValueError(f"no such rule: {', '.join(unknown)}")
        wrong = sorted({severity for severity in self.overrides.values() if severity not in SEVERITIES})
        if wrong:
            raise ValueError(f"an override is one of {', '.join(SEVERITIES)}, not {', '.join(wrong)}")
        self.counts: Counter[str] = Counter()  # by rule ID
        self.severities: Counter[str] = Counter()
        self.findings: deque[Finding] = deque(maxlen=KEPT)
        self.subscribers: list[Callable[[Finding], None]] = []

    def report(
        self,
        rule: str,
        message: str,
        *,
        severity: str | None = None,
        where: str = "",
        srb: str = "",
        history: tuple[str, ...] = (),
        **details: object,
    ) -> Finding | None:
        """Record a finding under `rule`. Returns it, or None when an override switches the rule off.

        `severity` when this breach is less (or more) than the rule's usual; an override beats both.

        Does not raise: whether the offender gets an exception at level strict is for the caller, who knows whether
        there is an offender to raise into (see `RuleViolation`).
        """
        severity = self.overrides.get(rule) or severity or self._rules[rule].severity
        if severity == "off":
            return None
        finding = Finding(rule, severity, message, self.clock.now(), where, srb, history, details)
        self.counts[rule] += 1
        self.severities[severity] += 1
        self.findings.append(finding)
        for subscriber in self.subscribers:
            subscriber(finding)
        return finding

    @property
    def violations(self) -> int:
        return self.severities[VIOLATION]
