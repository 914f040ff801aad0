"""hba doctor"""

from __future__ import annotations

import click

from hba.cli import output
from hba.errors import EXIT_FAILED, EXIT_OK

_MARKS = {"good": ("ok", "green"), "limited": ("--", "yellow"), "missing": ("!!", "red")}


@click.command("doctor")
@output.json_option
def command(as_json: bool) -> int:
    """Say what this machine has for serving adapters and running guests, what it lacks, and what to do about it.

    Things are tried, not looked at. Exit code 0 when nothing needed is missing, else 1.
    """
    from hba.cli import machine
    from hba.lab import doctor as lab
    from hba.lab.doctor import MISSING

    findings = [*machine.examine(), *lab.examine()]
    missing = [finding for finding in findings if finding.state == MISSING]
    if as_json:
        output.print_json(
            {
                "good": not missing,
                "checks": [
                    {"name": item.name, "state": item.state, "found": item.found, "next_step": item.next_step}
                    for item in findings
                ],
            }
        )
        return EXIT_FAILED if missing else EXIT_OK
    width = max(len(item.name) for item in findings)
    for item in findings:
        mark, colour = _MARKS[item.state]
        click.echo(f"{click.style(mark, fg=colour)}  {item.name:<{width}}  {item.found}")
        if item.next_step:
            click.echo(f"{'':<{width + 6}}-> {item.next_step}")
    if missing:
        click.echo(f"missing: {', '.join(item.name for item in missing)}")
        return EXIT_FAILED
    click.echo("everything that is needed is here")
    return EXIT_OK
