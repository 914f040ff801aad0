"""hba check CONFIG"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from hba.cli import output
from hba.config.lines import place
from hba.config.load import load
from hba.config.schema import text
from hba.errors import ConfigError


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of configurations, for editors; checks nothing.")
@output.json_option
def command(config: Path | None, schema: bool, as_json: bool) -> None:
    """Check the configuration file CONFIG: every key, and that miniports can be imported. Starts nothing.

    Exit code 0 when it is good, 3 with every error named when it is not.
    """
    if schema:
        if config is not None:
            raise click.UsageError("--schema checks nothing: it takes no CONFIG")
        click.echo(text(), nl=False)
        return
    if config is None:
        raise click.UsageError("missing argument 'CONFIG'")
    from hba.miniport.load import miniport_class

    checked = load(config)
    problems = []
    for number, adapter in enumerate(checked.adapters):
        try:
            miniport_class(adapter.miniport)
        except ConfigError as error:
            problems.append(f"{place(config, ('adapter', number, 'miniport'))}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    if as_json:
        output.print_json({"file": str(config), "adapters": msgspec.to_builtins(checked.adapters)})
        return
    click.echo(f"{config}: good")
    output.table(
        ("adapter", "type", "port", "miniport", "units", "socket"),
        [(a.name, a.type, a.port, a.miniport, len(a.lun), a.socket) for a in checked.adapters],
    )
