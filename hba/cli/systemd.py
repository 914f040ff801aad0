"""hba systemd"""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

import click

from hba.cli.output import json_option, print_json

TEMPLATE = "hba@.service"
_USER = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,30}|[0-9]{1,10}")  # systemd(1), "User/Group Name Syntax"; or a number


@click.command("systemd")
@click.option("--user", default="hba", show_default=True, help="Who runs it; QEMU has to be the same user.")
@json_option
def command(user: str, as_json: bool) -> None:
    """Print a systemd unit that serves /etc/hba/NAME.toml as hba@NAME.service: unprivileged, confined, started again.

    As root: hba systemd > /etc/systemd/system/hba@.service. docs/systemd.md has the other steps.
    """
    if not _USER.fullmatch(user):
        raise click.BadParameter(f"{user!r} is no user's name", param_hint="--user")
    program = Path(sys.argv[0])
    text = unit(program, user)
    if as_json:
        print_json({"file": TEMPLATE, "user": user, "program": str(program.absolute()), "text": text})
    else:
        click.echo(text, nl=False)


def unit(program: Path, user: str) -> str:
    """The unit, with the program and the user filled in."""
    text = resources.files("hba").joinpath("systemd", TEMPLATE).read_text("utf-8")
    start = program.absolute()
    text = text.replace("\nExecStart=hba ", f"\nExecStart={_quoted(start)} ")
    text = text.replace("\nUser=hba\n", f"\nUser={user}\n")
    if any(start.is_relative_to(home) for home in ("/home", "/root", "/run/user")):
        text = text.replace("\nProtectHome=yes\n", "\nProtectHome=read-only\n")  # the program itself lies there
    return text


def _quoted(path: Path) -> str:
    """As systemd.service(5) reads a word of a command line: `%` and `$` mean something, as do spaces."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if text != str(path) or " " in text else text
