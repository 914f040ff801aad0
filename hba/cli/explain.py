"""hba explain [RULE]"""

from __future__ import annotations

import textwrap
from dataclasses import asdict

import click

from hba.cli import output
from hba.config.check import did_you_mean
from hba.rules import RULES
from hba.rules.rule import Rule


@click.command("explain")
@click.argument("rule", required=False)
@output.json_option
def command(rule: str | None, as_json: bool) -> None:
    """Tell what RULE says (MB-05, GD-01, ...), where it comes from and how it is checked; without RULE, list all."""
    if rule is None:
        _list(as_json)
        return
    found = RULES.get(rule) or RULES.get(rule.upper())
    if found is None:
        raise click.UsageError(f"There is no rule {rule!r}{did_you_mean(rule, RULES)} (`hba explain` lists them).")
    if as_json:
        output.print_json(asdict(found))
        return
    _explain(found)


def _list(as_json: bool) -> None:
    if as_json:
        output.print_json([asdict(rule) for rule in RULES.values()])
        return
    output.table(
        ("rule", "model", "held", "title"),
        [(rule.id, rule.model, " + ".join(rule.held), rule.title) for rule in RULES.values()],
        indent=0,
    )


def _explain(rule: Rule) -> None:
    output.heading(f"{rule.id}  {rule.title}")
    facts = [
        ("Rule", rule.text),
        ("Model", rule.model),
        ("Source", rule.source),
        ("Held", " + ".join(rule.held)),
        ("Checked", rule.check),
        ("Why not", rule.why_not),
        ("Severity", rule.severity),
        ("Windows", rule.counterpart),
    ]
    for name, value in facts:
        if value:
            click.echo(textwrap.fill(value, 100, initial_indent=f"{name + ':':<10}", subsequent_indent=" " * 10))
