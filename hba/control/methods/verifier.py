"""The verifier: what it found, by rule; and forgetting it, for the next experiment."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hba.control.method import Call, Method, NoParams, Refused
from hba.control.results.verifier import Findings, Forgotten
from hba.verifier import Finding, Verifier


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """The newest findings, at most `limit` of them, of one rule or of all."""

    rule: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 20


def plain(finding: Finding) -> dict[str, object]:
    """A finding as JSON has it."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "message": finding.message,
        "time": finding.time,
        "where": finding.where,
        "srb": finding.srb,
        "history": list(finding.history),
        "details": {str(key): value for key, value in finding.details.items()},
    }


def report(verifier: Verifier | None, rule: str | None = None, limit: int = 20) -> dict[str, object]:
    if verifier is None:
        return {"level": "off", "counts": {}, "severities": {}, "findings": []}
    findings = [finding for finding in verifier.findings if rule is None or finding.rule == rule]
    return {
        "level": verifier.level,
        "overrides": verifier.overrides,
        "counts": dict(verifier.counts.most_common()),
        "severities": dict(verifier.severities),
        "findings": [plain(finding) for finding in findings[len(findings) - limit :]] if limit else [],
    }


def show(call: Call, params: Which) -> object:
    return report(call.parts.verifier, params.rule, params.limit)


def reset(call: Call, params: NoParams) -> object:
    verifier = call.parts.verifier
    if verifier is None:
        raise Refused("the verifier is off", 'set level = "report" in [adapter.verifier] and start the adapter again')
    forgotten = sum(verifier.counts.values())
    verifier.counts.clear()
    verifier.severities.clear()
    verifier.findings.clear()
    return {"forgotten": forgotten}


METHODS = (
    Method("show.verifier", show, "Findings: counts by rule and severity, and the newest in full.", Which, Findings),
    Method("verifier.reset", reset, "Forget all findings and start counting at zero.", result=Forgotten),
)
