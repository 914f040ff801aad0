"""What `launch` prints at the end: the suite's results, what the device saw, and one word with the reason for it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hba.lab.case import Case
from hba.lab.findings import FailOn, Group, failing
from hba.lab.observe import Seen
from hba.lab.suite import Outcome, Suite
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


def print_outcome(console: Console, suite: Suite, outcome: Outcome, seconds: float) -> None:
    """Every test with its result."""
    table = Table(title=f"suite {suite.name}: {suite.title}", title_justify="left", show_edge=False)
    table.add_column("result")
    table.add_column("test")
    table.add_column("s", justify="right")
    for case in outcome.cases:
        colour = _COLOURS[case.outcome]
        text = escape(visible(case.name))
        if case.message and case.outcome != "passed":
            message = "\n".join(map(visible, case.message.strip()[:600].expandtabs().split("\n")))
            text += f"\n[dim]{escape(message)}[/dim]"
        table.add_row(f"[{colour}]{case.outcome}[/{colour}]", text, f"{case.seconds:.1f}")
    console.print(table)
    console.print(f"{len(outcome.cases)} in {seconds:.1f} s")


def print_last(console: Console, suite: Suite, outcome: Outcome) -> None:
    """PASS or FAIL, and why: the last line."""
    counts = ", ".join(f"{outcome.count(name)} {name}" for name in _COLOURS)
    verdict = "[green]PASS[/green]" if outcome.passed else "[red]FAIL[/red]"
    why = ""
    if failed := [case.name for case in outcome.cases if case.outcome == "failed"]:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        why = "; failed: " + ", ".join(failed[:_NAMED]) + more
    elif not outcome.passed:
        why = "; nothing has run"
    console.print(f"{verdict} {escape(visible(f'{suite.name}: {counts}{why}'))}", soft_wrap=True)


def print_seen(console: Console, seen: Seen, groups: Sequence[Group]) -> None:
    """What one adapter saw; findings that are alike are one line."""
    table = Table(
        title=f"adapter {seen.name} ({seen.port_model})", title_justify="left", show_edge=False, show_header=False
    )
    table.add_column("what", style="bold")
    table.add_column("how much", justify="right")
    table.add_row("commands", f"{seen.commands:,}")
    table.add_row("read", _bytes(seen.bytes_read))
    table.add_row("written", _bytes(seen.bytes_written))
    table.add_row("interrupts", f"{seen.interrupts:,}")
    table.add_row("verifier findings", str(sum(seen.counts.values())) if seen.counts else "none")
    console.print(table)
    for line in seen.storage_errors:
        console.print(f"  [red]{escape(visible(line))}[/red]", soft_wrap=True)
    for group in groups:
        console.print(f"  {escape(visible(group.title))}", soft_wrap=True)
    for rule in dict.fromkeys(group.first.rule for group in groups if group.first.rule):
        console.print(f"  `hba explain {escape(visible(rule))}` tells the rule")


def _bytes(count: int) -> str:
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"
