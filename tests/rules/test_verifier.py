"""Levels, overrides, counters of the verifier."""

from __future__ import annotations

import pytest

from hba.clock import VirtualClock
from hba.verifier import KEPT, Finding, Verifier


def test_a_finding_has_the_rules_severity() -> None:
    verifier = Verifier(VirtualClock(5))
    found = verifier.report("OW-02", "twice", where="mini.py:1", srb="#1", history=("a", "b"), extra=1)
    assert found == Finding("OW-02", "violation", "twice", 5, "mini.py:1", "#1", ("a", "b"), {"extra": 1})
    assert verifier.violations == 1
    assert verifier.counts == {"OW-02": 1}


def test_a_breach_may_be_less_than_its_rule_but_an_override_wins() -> None:
    verifier = Verifier(VirtualClock(), overrides={"IN-03": "violation", "SP-12": "off"})
    assert verifier.report("OW-02", "x", severity="note").severity == "note"  # type: ignore[union-attr]
    assert verifier.report("IN-03", "x", severity="note").severity == "violation"  # type: ignore[union-attr]
    assert verifier.report("SP-12", "x") is None
    assert verifier.counts["SP-12"] == 0


@pytest.mark.parametrize(("level", "overrides"), [("loud", {}), ("report", {"XX-99": "off"})])
def test_what_does_not_exist_is_refused(level: str, overrides: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Verifier(VirtualClock(), level, overrides)


def test_an_override_must_be_a_severity() -> None:
    with pytest.raises(ValueError, match="loud"):
        Verifier(VirtualClock(), "report", {"OW-02": "loud"})


def test_findings_are_bounded_and_counted_on() -> None:
    verifier = Verifier(VirtualClock())
    seen: list[Finding] = []
    verifier.subscribers.append(seen.append)
    for _ in range(KEPT + 5):
        verifier.report("OW-02", "again")
    assert len(verifier.findings) == KEPT
    assert verifier.counts["OW-02"] == len(seen) == KEPT + 5
