"""Makes the text of docs/rules.md from a catalogue. `hba.cli.document` writes it."""

from __future__ import annotations

from collections.abc import Mapping

from hba.rules.explain import MODEL_NAMES
from hba.rules.rule import ENFORCED, NOT_APPLICABLE, VERIFIED, Rule

FAMILIES = {
    "SP": "SCSI Port: dispatch and the pull model",
    "Q": "Queues: sort, freeze, lock, flush",
    "OW": "Who owns an SRB, and what may be written",
    "IN": "Interrupts, DPCs, timers, deferral",
    "ER": "Errors, sense data, abort, reset, retry",
    "BC": "Contained crashes",
    "CF": "Configuration and buffers of SCSI Port",
    "ST": "Storport: push model, BuildIo and StartIo",
    "LK": "Locks and IRQL",
    "MB": "Buffers and DMA",
    "QD": "Queue depth, pause, busy",
    "RS": "Resets, power, removal",
    "PF": "Performance options, MSI, DPC",
    "XS": "Extended SRBs",
    "LB": "The routines a miniport calls",
    "DM": "Dump mode",
    "GD": "The guest's driver, as the device sees it",
}

HEAD = """# Rules

<!-- Generated from hba/rules and the rules of adapters by `python -m hba.cli.document docs`. Do not edit. -->

Every rule the port drivers and the device hold or watch. **enforced**: the emulated port keeps it itself; breaking it
would be a defect of this project. **verified**: the miniport or the guest's driver has to keep it; breaking it is a
finding of the verifier. `hba explain ID` tells more about one.
"""


def render(rules: Mapping[str, Rule]) -> str:
    """The whole document."""
    parts = [HEAD]
    families: dict[str, list[Rule]] = {}
    for rule in rules.values():
        families.setdefault(rule.id.split("-")[0], []).append(rule)
    parts.append(_summary(families))
    for prefix, title in FAMILIES.items():
        if prefix in families:
            parts.append(_family(prefix, title, families.pop(prefix)))
    for prefix, others in families.items():
        parts.append(_family(prefix, prefix, others))
    return "\n".join(parts)


def _summary(families: dict[str, list[Rule]]) -> str:
    rules = [rule for family in families.values() for rule in family]
    enforced = sum(ENFORCED in rule.held for rule in rules)
    verified = sum(VERIFIED in rule.held for rule in rules)
    neither = sum(NOT_APPLICABLE in rule.held for rule in rules)
    return f"{len(rules)} rules: {enforced} enforced, {verified} verified (some are both), {neither} not applicable.\n"


def _family(prefix: str, title: str, rules: list[Rule]) -> str:
    lines = [
        f"## {prefix}: {title}",
        "",
        "| ID | Rule | Model | Held | Finding | Windows |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(rule) for rule in rules]
    return "\n".join(lines) + "\n"


def _row(rule: Rule) -> str:
    held = ", ".join(rule.held)
    if NOT_APPLICABLE in rule.held:
        held += f": {rule.why_not}"
    finding = rule.severity if VERIFIED in rule.held else "-"
    cells = (
        rule.id,
        f"**{rule.title}.** {rule.text} *{rule.check}* ({rule.source})",
        MODEL_NAMES.get(rule.model, rule.model),
        held,
        finding,
        rule.counterpart or "-",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
