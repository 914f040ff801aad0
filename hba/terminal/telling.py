"""The one shape of an error: `error: what; why; next step` in one line, or one JSON object with code and kind.

Both go to standard error. A message of several lines is several errors (of a configuration): a line each, one object.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TextIO

from hba.contract import versioned
from hba.errors import exit_kind
from hba.visible import visible


def as_text(message: str, subject: str = "") -> str:
    """The lines for people, without the end of the last one; `subject` goes before each message."""
    return "\n".join(f"error: {subject}{visible(line)}" for line in message.split("\n"))


def as_object(message: str, code: int) -> str:
    """One line of JSON, all in ASCII. `code` is the exit code, `kind` its name."""
    return json.dumps(versioned({"error": {"code": code, "kind": exit_kind(code), "message": message}}))


def tell(message: str, code: int, *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Write an error to standard error, or to `stream`. That nobody reads there is no further error."""
    with contextlib.suppress(OSError, ValueError):
        err = sys.stderr if stream is None else stream
        err.write((as_object(message, code) if as_json else as_text(message)) + "\n")
        err.flush()
