"""What `launch` prints at the end: the suite's results, and what the device saw."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hba.lab.observe import Seen
from hba.lab.suite import Outcome, Suite
from hba.visible import visible

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def print_outcome(console: Console, suite: Suite, outcome: Outcome, seconds: float) -> None:
    """Every test with its result, then one line that counts them."""
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
    counts = ", ".join(f"{outcome.count(name)} {name}" for name in _COLOURS)
    verdict = "[green]PASS[/green]" if outcome.passed else "[red]FAIL[/red]"
    console.print(f"{verdict} {suite.name}: {counts} in {seconds:.1f} s")


def print_seen(console: Console, seen: Seen) -> None:
    """What one adapter saw."""
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
    for rule, count in seen.counts.items():
        console.print(f"  {escape(visible(rule))}: {count} x (`hba explain {escape(visible(rule))}` tells the rule)")
    for finding in seen.findings[-5:]:
        said = f"{finding['severity']} {finding['rule']}: {finding['message']}"
        console.print(f"  {escape(visible(said))}")


def _bytes(count: int) -> str:
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB"
