"""The lines a server writes on its control socket (hba/control/protocol.py)."""

from __future__ import annotations

from typing import Any, Literal

from hba.shapes import Count, Result


class Greeting(Result):
    """The first line."""

    hba: str
    protocol: Count
    schema_version: Count
    adapter: str
    pid: Count


class Reply(Result):
    """The answer to a request, with its id; what `result` is depends on the method."""

    id: int | str | None
    schema_version: Count
    result: Any


class Refusal(Result):
    """Why there is no result."""

    code: Literal["bad-json", "bad-request", "no-such-method", "bad-params", "refused", "internal"]
    message: str
    next_step: str


class ErrorReply(Result):
    """The answer to a request that failed; `id` is null where it could not be read."""

    id: int | str | None
    schema_version: Count
    error: Refusal


class EventLine(Result):
    """Something happened; what `data` is depends on the topic in `event`."""

    event: Literal["verifier", "trace", "storage", "hotplug", "inject", "client"]
    data: Any
