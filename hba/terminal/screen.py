"""What a stream can show: how many columns, colours, which characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable
from typing import IO, Any, TextIO, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

COLOURS = ("auto", "always", "never")
DEFAULT_WIDTH = 80  # columns of a terminal that does not say

# What we print ourselves that ASCII has not. Other characters become escapes.
_ASCII = {
    "µ": "u",
    "μ": "u",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "²": "2",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "·": "-",
}
_HANDLER = "hba.ascii"


def color_option(command: F) -> F:
    """--color, which holds for all that is printed after it was read."""

    def chosen(context: click.Context, _parameter: click.Parameter, choice: str) -> None:
        context.color = _forced(choice)

    return click.option(
        "--color",
        type=click.Choice(COLOURS),
        default="auto",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=chosen,
        help="Colours; auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
    )(command)


def _forced(choice: str) -> bool | None:
    """click's word for it: True or False whatever the stream is, None by what it is."""
    if choice != "auto":
        return choice == "always"
    return None if _obeys_escapes() else False


def _obeys_escapes() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def animated(stream: IO[str]) -> bool:
    """Whether a line there can be overwritten: for spinners and progress."""
    return stream.isatty() and _obeys_escapes()


def width(stream: TextIO) -> int | None:
    """The columns of a terminal (`COLUMNS`, else what it says); None for anything else, which takes any line."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH


def prepare_streams() -> None:
    """Standard streams that take whatever is written; those that are closed are opened on nothing.

    A closed one's number would else be given to the next file or socket.
    """
    codecs.register_error(_HANDLER, _in_ascii)
    sys.stdout = _prepared(sys.stdout)
    sys.stderr = _prepared(sys.stderr)


def has_unicode(stream: IO[str]) -> bool:
    charset = stream.charset if isinstance(stream, Stream) else getattr(stream, "encoding", None)
    return (charset or "").lower().replace("-", "").startswith("utf")


class Stream(io.TextIOWrapper):
    """A standard stream. A character that its character set has not becomes its form in ASCII.

    `refused`: why it did not take what was written to it, if so: who catches the error cannot tell whose it is.
    """

    refused: OSError | None = None

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.charset = stream.encoding
        self._ascii = codecs.lookup(stream.encoding).name == "ascii"
        self._before = stream  # it closes what both write to when it goes
        super().__init__(
            stream.buffer,
            # click believes no stream that says it is ASCII, and writes UTF-8 to it.
            encoding="utf-8" if self._ascii else self.charset,
            errors=_HANDLER,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str, /) -> int:
        try:
            return super().write(text.encode("ascii", _HANDLER).decode() if self._ascii else text)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.refused = error
            raise


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it stays open until the end
    return Stream(stream) if isinstance(stream, io.TextIOWrapper) else stream


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    plain = (_ASCII.get(item) or item.encode("ascii", "backslashreplace").decode() for item in wrong)
    return "".join(plain), error.end
