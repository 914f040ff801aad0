"""What `ping`, `methods`, `schema` and `server.stop` answer."""

from __future__ import annotations

from typing import Any, Literal

from hba.shapes import Nanoseconds, Result


class Pong(Result):
    """The adapter's clock."""

    now: Nanoseconds


class MethodEntry(Result):
    """A method: its name, what it does, and the JSON schema of its parameters."""

    name: str
    doc: str
    params: dict[str, Any]


class MethodSchema(Result):
    """JSON schemas of a method's parameters and of its result."""

    params: dict[str, Any]
    result: dict[str, Any]


class Stopping(Result):
    """It ends as soon as its requests have."""

    stopping: Literal[True]
