"""What `launch` prints at the end: the suite's results, and what the device saw."""

from __future__ import annotations

import sys

import click

from hba.lab.observe import Seen
from hba.lab.suite import Outcome, Suite
from hba.terminal import screen
from hba.terminal.tables import aligned, lay_out
from hba.visible import visible

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def print_outcome(suite: Suite, outcome: Outcome, seconds: float) -> None:
    """Every test with its result, what those say that did not pass, then one line that counts them."""
    _title(f"suite {suite.name}: {suite.title}")
    rows = [(case.outcome, f"{case.seconds:.1f}", visible(case.name)) for case in outcome.cases]
    for line in lay_out(("result", "s", "test"), rows, indent=0, width=screen.width(sys.stdout)):
        word, space, rest = line.partition(" ")
        click.echo(click.style(word, fg=_COLOURS.get(word)) + space + rest)
    for case in outcome.cases:
        if case.message and case.outcome != "passed":
            click.echo(f"{case.outcome}: {visible(case.name)}")
            for line in case.message.strip()[:600].expandtabs().split("\n"):
                click.echo(f"  {visible(line)}")
    counts = ", ".join(f"{outcome.count(name)} {name}" for name in _COLOURS)
    verdict = click.style("PASS", fg="green") if outcome.passed else click.style("FAIL", fg="red")
    click.echo(f"{verdict} {suite.name}: {counts} in {seconds:.1f} s")


def print_seen(seen: Seen) -> None:
    """What one adapter saw."""
    _title(f"adapter {visible(seen.name)} ({visible(seen.port_model)})")
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
    for rule, count in seen.counts.items():
        click.echo(f"  {visible(rule)}: {count} x (`hba explain {visible(rule)}` tells the rule)")
    for finding in seen.findings[-5:]:
        click.echo("  " + visible(f"{finding['severity']} {finding['rule']}: {finding['message']}"))


def _title(text: str) -> None:
    click.echo(click.style(text, bold=True))


def _bytes(count: int) -> str:
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"
