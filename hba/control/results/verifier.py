"""What the verifier found."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from hba.shapes import Count, CountByName, Nanoseconds, Result


class FindingShown(Result):
    """A finding. `where`: the miniport's source line, or the ring slot of the guest; `srb`: the request, `history`:
    what had happened to it; `details`: whatever the rule adds."""

    rule: str
    severity: Literal["note", "warning", "violation"]
    message: str
    time: Nanoseconds
    where: str
    srb: str
    history: list[str]
    details: dict[str, Any]


class Findings(Result, kw_only=True):
    """Counts by rule and by severity, and the newest in full. `overrides`: severities of the configuration; not there
    with level off."""

    level: Literal["off", "report", "strict"]
    overrides: dict[str, str] | UnsetType = UNSET
    counts: CountByName
    severities: CountByName
    findings: list[FindingShown]


class Forgotten(Result):
    """How many findings there were."""

    forgotten: Count
