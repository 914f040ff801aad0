"""What is around every command: whatever goes wrong becomes one line and an exit code, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

import click

from hba.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_PIPE, EXIT_STORAGE, EXIT_USAGE, EXITS, HbaError
from hba.terminal.screen import Stream
from hba.terminal.suggest import did_you_mean
from hba.terminal.telling import tell

# Turns an error of the system into one for the user; None for those that it does not know.
Explain = Callable[[Exception], HbaError | None]


def exit_codes() -> str:
    """The table of exit codes, for the end of a command's help."""
    lines = (f"  {known.code:>3}  {known.meaning}" for known in EXITS)
    return "\b\n" + "\n".join(["Exit codes:", *lines])


def run(command: click.Command, name: str, arguments: Sequence[str], explain: Explain) -> int:
    """Run a command line of the program `name`; its exit code. Raises nothing but what ends a process on purpose."""
    as_json = "--json" in takewhile(lambda word: word != "--", arguments)
    try:
        result: Any = command.main(args=list(arguments), prog_name=name, standalone_mode=False)
        return _ended(result)
    except click.ClickException as error:
        tell(_usage(error, name), EXIT_USAGE, as_json=as_json)
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except SystemExit:  # how click and rich answer a broken pipe, and nothing else
        _give_up_output()
        return EXIT_PIPE
    except HbaError as error:
        _debug()
        tell(str(error), error.exit_code, as_json=as_json)
        return error.exit_code
    except Exception as error:
        _debug()
        if isinstance(error, OSError) and (refused := _output_refused()) is not None:
            return _no_output(refused, as_json)
        if (known := explain(error)) is not None:
            tell(str(known), known.exit_code, as_json=as_json)
            return known.exit_code
        tell(
            f"internal error: {type(error).__name__}: {error}; this is a defect of hba; "
            "run the same with HBA_DEBUG=1 for the traceback, and report it with that",
            EXIT_INTERNAL,
            as_json=as_json,
        )
        return EXIT_INTERNAL


def _ended(result: object) -> int:
    """What a command's result means. One that says a code of its own has ended so, whoever heard it."""
    try:
        sys.stdout.flush()
    except OSError:
        if not isinstance(result, int):
            raise
        _give_up_output()
    return result if isinstance(result, int) else EXIT_OK


# -- standard output --------------------------------------------------------------------------------------------------


def _output_refused() -> OSError | None:
    """Why standard output takes nothing; None when it does."""
    return sys.stdout.refused if isinstance(sys.stdout, Stream) else None


def _no_output(error: OSError, as_json: bool) -> int:
    _give_up_output()
    if isinstance(error, BrokenPipeError):
        return EXIT_PIPE
    why = error.strerror or str(error)
    tell(f"standard output: {why}; make room there, or send it elsewhere", EXIT_STORAGE, as_json=as_json)
    return EXIT_STORAGE


def _give_up_output() -> None:
    """What is still to be written goes nowhere: the interpreter shall not complain about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _debug() -> None:
    if os.environ.get("HBA_DEBUG"):
        with contextlib.suppress(OSError):
            traceback.print_exc(file=sys.stderr)


# -- usage ------------------------------------------------------------------------------------------------------------


def _usage(error: click.ClickException, name: str) -> str:
    """click's own errors in our shape, with a suggestion and where to look."""
    context = getattr(error, "ctx", None)
    where = name if context is None else context.command_path
    what = _what(error, context).strip().rstrip(".")
    if what[:1].isupper() and what[1:2].islower():
        what = what[0].lower() + what[1:]
    return f"{' '.join(what.split())}; see `{where} --help`"


def _what(error: click.ClickException, context: click.Context | None) -> str:
    if isinstance(error, click.NoSuchOption):
        return f"there is no option {error.option_name}{did_you_mean(error.option_name, _options(context))}"
    hint = ""
    if isinstance(error, click.BadParameter) and error.param is not None:
        kind = error.param.type
        given = re.match(r"'(.*?)' is not one of", error.message)
        if isinstance(kind, click.Choice) and given is not None:
            hint = did_you_mean(given[1], map(str, kind.choices))
    return error.format_message().strip().rstrip(".") + hint


def _options(context: click.Context | None) -> Iterable[str]:
    """The long options that are known where an unknown one was found."""
    parameters = [] if context is None else context.command.get_params(context)
    return [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
