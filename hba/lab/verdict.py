"""What `launch` prints at the end: the suite's results, what the device saw, and one word with the reason for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hba.lab.case import Case
from hba.lab.findings import FailOn, Group, failing
from hba.lab.observe import Seen
from hba.lab.suite import Outcome, Suite
from hba.terminal import screen
from hba.terminal.tables import aligned, lay_out
from hba.visible import visible

_NAMED = 3  # tests in the last line
_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def cases(groups: Sequence[Group], fail_on: FailOn) -> list[Case]:
    """The findings that are failures, as cases beside the guest's tests: a case for each place that breaks a rule."""
    return [
        Case(
            f"verifier: {' '.join(filter(None, (group.first.rule, group.first.where and f'at {group.first.where}')))}",
            "failed",
            message=f"{group.title}, first during {group.during}",
            details=group.text,
        )
        for group in failing(groups, fail_on)
    ]


def print_outcome(suite: Suite, outcome: Outcome, seconds: float) -> None:
    """Every test with its result, then what those say that did not pass."""
    _title(f"suite {suite.name}: {suite.title} ({seconds:.1f} s)")
    rows = [(case.outcome, f"{case.seconds:.1f}", visible(case.name)) for case in outcome.cases]
    for line in lay_out(("result", "s", "test"), rows, indent=0, width=screen.width(sys.stdout)):
        word, space, rest = line.partition(" ")
        click.echo(click.style(word, fg=_COLOURS.get(word)) + space + rest)
    for case in outcome.cases:
        if case.message and case.outcome != "passed":
            click.echo(f"{case.outcome}: {visible(case.name)}")
            for line in case.message.strip()[:600].expandtabs().split("\n"):
                click.echo(f"  {visible(line)}")


def print_last(suite: Suite, outcome: Outcome) -> None:
    """PASS or FAIL, and why: the last line."""
    counts = ", ".join(f"{outcome.count(name)} {name}" for name in _COLOURS)
    verdict = click.style("PASS", fg="green") if outcome.passed else click.style("FAIL", fg="red")
    why = ""
    if failed := [case.name for case in outcome.cases if case.outcome == "failed"]:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        why = "; failed: " + ", ".join(failed[:_NAMED]) + more
    elif not outcome.passed:
        why = "; nothing has run"
    click.echo(f"{verdict} {visible(f'{suite.name}: {counts}{why}')}")


def print_seen(seen: Seen, groups: Sequence[Group]) -> None:
    """What one adapter saw; findings that are alike are one line."""
    _title(f"adapter {visible(seen.name)} ({visible(seen.port_model)}, {visible(seen.engine)})")
    facts = (
        ("commands", f"{seen.commands:,}"),
        ("read", _bytes(seen.bytes_read)),
        ("written", _bytes(seen.bytes_written)),
        ("interrupts", f"{seen.interrupts:,}"),
        ("verifier findings", str(sum(seen.counts.values())) if seen.counts else "none"),
    )
    for line in aligned(facts):
        click.echo(line)
    for line in seen.storage_errors:
        click.echo("  " + click.style(visible(line), fg="red"))
    for group in groups:
        click.echo("  " + visible(group.title))
    for rule in dict.fromkeys(group.first.rule for group in groups if group.first.rule):
        click.echo(f"  `hba explain {visible(rule)}` tells the rule")


def _title(text: str) -> None:
    click.echo(click.style(text, bold=True))


def _bytes(count: int) -> str:
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"
