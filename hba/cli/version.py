"""hba version"""

from __future__ import annotations

import platform

import click

from hba import __version__, compiled
from hba.cli.output import json_option, print_json
from hba.control.protocol import PROTOCOL


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Print the version of hba and of the protocols it speaks."""
    facts = {
        "hba": __version__,
        "python": platform.python_version(),
        "compiled": compiled.in_use(),
        "vfio_user_protocol": "0.0",
        "control_protocol": PROTOCOL,
    }
    if as_json:
        print_json(facts)
    else:
        way = "compiled" if facts["compiled"] else "not compiled"
        python = facts["python"]
        click.echo(f"hba {__version__} ({way}; Python {python}, vfio-user 0.0, control protocol {PROTOCOL})")
