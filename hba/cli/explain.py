"""hba explain [RULE]"""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from hba.adapters.registry import ADAPTERS
from hba.cli import output
from hba.errors import HbaError
from hba.rules.explain import explain, find_rule
from hba.terminal import screen

PAGE = 100  # columns of a text at most


@click.command("explain")
@click.argument("rule", required=False)
@output.json_option
def command(rule: str | None, as_json: bool) -> None:
    """Tell what RULE says (MB-05, GD-01, ...), where it comes from and how it is checked; without RULE, list all."""
    if rule is None:
        _list(as_json)
        return
    try:
        found = find_rule(ADAPTERS.rules, rule)
    except HbaError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json(asdict(found))
    else:
        click.echo(explain(found, min(PAGE, screen.width(sys.stdout) or PAGE)))


def _list(as_json: bool) -> None:
    if as_json:
        output.print_json({"rules": [asdict(rule) for rule in ADAPTERS.rules.values()]})
        return
    output.table(
        ("rule", "model", "held", "title"),
        [(rule.id, rule.model, " + ".join(rule.held), rule.title) for rule in ADAPTERS.rules.values()],
        indent=0,
    )
