"""The `hba` command: finds the subcommand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from hba import __version__
from hba.errors import HbaError
from hba.terminal import entry, screen
from hba.terminal.groups import SuggestingGroup

# name -> one line for `hba --help`; the command itself is `command` in hba/cli/<name>.py
COMMANDS = {
    "serve": "Run the adapters of a configuration until stopped.",
    "check": "Check a configuration file.",
    "ls": "List the running adapters.",
    "show": "Show the inside of a running adapter.",
    "lun": "List, add, remove and change the logical units of a running adapter.",
    "inject": "Send to the port what a Windows machine sends: requests, power, PnP.",
    "events": "Follow what happens in a running adapter.",
    "trace": "Print the recorded trace of an adapter.",
    "explain": "Explain a rule of the port drivers by its ID.",
    "doctor": "Say what this machine has and lacks for guests.",
    "bench": "Measure an adapter beside a plain loop on the same file.",
    "systemd": "Print a systemd unit that serves configurations, confined.",
    "version": "Print the version.",
}
ALIASES = {"watch": "events"}


class LazyGroup(SuggestingGroup):
    """Imports a subcommand's module only when it is called, so that `serve` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, name)
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"hba.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,  # it would be an error of another shape
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=entry.exit_codes(),
)
@click.version_option(__version__, prog_name="hba")
@screen.color_option
def cli() -> None:
    """A PCI storage controller in Python, served to QEMU over vfio-user."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own); its exit code. Never raises."""
    return entry.run(cli, "hba", sys.argv[1:] if arguments is None else arguments, _full_disk)


def _full_disk(error: Exception) -> HbaError | None:
    from hba.lab.space import full_disk  # here: starting a server must not wait for what it never needs

    return full_disk(error)


def main() -> None:
    screen.prepare_streams()
    sys.exit(run())
