"""The `hba` command: finds the subcommand, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from hba import __version__
from hba.errors import EXIT_INTERNAL, EXIT_OK, EXIT_USAGE, HbaError
from hba.visible import visible

EXIT_INTERRUPTED = 130

# name -> one line for `hba --help`; the command itself is `command` in hba/cli/<name>.py
COMMANDS = {
    "serve": "Run the adapters of a configuration until stopped.",
    "check": "Check a configuration file.",
    "ls": "List the running adapters.",
    "show": "Show the inside of a running adapter.",
    "lun": "List, add, remove and change the logical units of a running adapter.",
    "events": "Follow what happens in a running adapter.",
    "trace": "Print the recorded trace of an adapter.",
    "explain": "Explain a rule of the port drivers by its ID.",
    "doctor": "Say what this machine has and lacks for guests.",
    "bench": "Measure an adapter beside a plain loop on the same file.",
    "version": "Print the version.",
}
ALIASES = {"watch": "events"}


class LazyGroup(click.Group):
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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hba")
def cli() -> None:
    """A PCI storage controller in Python, served to QEMU over vfio-user.

    Exit codes: 0 good, 1 the verdict is red, 2 wrong usage, 3 configuration, 4 socket, 5 storage, 6 permission,
    7 no QEMU, 8 guest, 9 control, 10 the server of an experiment died, 70 a defect of hba itself, 130 interrupted.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own); its exit code. Never raises."""
    try:
        result: Any = cli.main(
            args=None if arguments is None else list(arguments), prog_name="hba", standalone_mode=False
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click answers a broken pipe by SystemExit, and nothing else that way
        return _nobody_reads()
    except HbaError as error:
        _debug()
        for line in str(error).split("\n"):
            click.echo(f"error: {visible(line)}", err=True)
        return error.exit_code
    except Exception as error:
        _debug()
        from hba.lab.space import full_disk  # here: starting a server must not wait for what it never needs

        if (full := full_disk(error)) is not None:
            click.echo(f"error: {full}", err=True)
            return full.exit_code
        click.echo(
            f"internal error: {visible(f'{type(error).__name__}: {error}')}\n"
            "This is a defect of hba. Run the same with HBA_DEBUG=1 for the traceback, and report it with that.",
            err=True,
        )
        return EXIT_INTERNAL


def _nobody_reads() -> int:
    """Whoever read our output has seen enough. The interpreter shall not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_OK


def _debug() -> None:
    if os.environ.get("HBA_DEBUG"):
        traceback.print_exc(file=sys.stderr)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's character set has not is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run())
