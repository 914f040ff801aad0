"""`hba explain ID`: one rule in words."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping

from hba.errors import WrongUsage
from hba.rules.rule import NOT_APPLICABLE, Rule

MODEL_NAMES = {
    "scsiport": "SCSI Port",
    "storport": "Storport",
    "both": "SCSI Port and Storport",
    "guest": "the guest's driver",
}


def find_rule(rules: Mapping[str, Rule], rule_id: str) -> Rule:
    """The one of `rules` with this ID, whatever its case. Raises WrongUsage that names similar ones."""
    rule = rules.get(rule_id.upper())
    if rule is None:
        similar = difflib.get_close_matches(rule_id.upper(), rules, n=5, cutoff=0.5)
        hint = f"; did you mean {', '.join(similar)}?" if similar else f"; there are {', '.join(prefixes(rules))}"
        raise WrongUsage(f"there is no rule {rule_id!r}{hint}")
    return rule


def prefixes(rules: Mapping[str, Rule]) -> list[str]:
    """The families of rules: SP-.., Q-.., and so on."""
    return sorted({f"{rule_id.split('-')[0]}-*" for rule_id in rules})


def explain(rule: Rule, width: int = 100) -> str:
    """The text `hba explain` prints."""
    parts = [
        f"{rule.id}  {rule.title}",
        "",
        _paragraph("", rule.text, width),
        "",
        _paragraph("Model:    ", MODEL_NAMES.get(rule.model, rule.model), width),
        _paragraph("Source:   ", rule.source, width),
        _paragraph("Held:     ", ", ".join(rule.held), width),
    ]
    if NOT_APPLICABLE in rule.held:
        parts.append(_paragraph("Why not:  ", rule.why_not, width))
    else:
        parts.append(_paragraph("Checked:  ", rule.check, width))
        parts.append(_paragraph("Severity: ", rule.severity, width))
    if rule.counterpart:
        parts.append(_paragraph("Windows:  ", rule.counterpart, width))
    return "\n".join(parts)


def _paragraph(label: str, text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=label, subsequent_indent=" " * len(label))
