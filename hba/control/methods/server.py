"""The server itself: is it there, what can it do, end it."""

from __future__ import annotations

import msgspec

from hba.control.method import Call, Method, NoParams, Refused
from hba.control.results.server import MethodEntry, MethodSchema, Pong, Stopping
from hba.control.schema import schema_of
from hba.terminal.suggest import did_you_mean


class MethodName(msgspec.Struct, forbid_unknown_fields=True):
    """A method by its name."""

    name: str


def ping(call: Call, params: NoParams) -> object:
    return {"now": call.parts.loop.clock.now()}


def methods(call: Call, params: NoParams) -> object:
    return [method.describe() for method in call.connection.server.methods.values()]


def schema(call: Call, params: MethodName) -> object:
    """One at a time: all of them together would hold up the guest."""
    known = call.connection.server.methods
    method = known.get(params.name)
    if method is None:
        raise Refused(
            f"there is no method {params.name[:100]!r}{did_you_mean(params.name, known)}",
            'call "methods" for the list',
        )
    return {"params": msgspec.json.schema(method.params), "result": schema_of(method.result)}


def stop(call: Call, params: NoParams) -> object:
    call.parts.loop.call_soon(call.parts.stop)
    return {"stopping": True}


METHODS = (
    Method("ping", ping, "The adapter's clock (ns); shows that its event loop turns.", result=Pong),
    Method(
        "methods",
        methods,
        "Every method with its documentation and the JSON schema of its parameters.",
        result=list[MethodEntry],
    ),
    Method("schema", schema, "The JSON schemas of a method's parameters and of its result.", MethodName, MethodSchema),
    Method(
        "server.stop",
        stop,
        "End the adapter: requests end, storage is flushed, the process exits with 0.",
        result=Stopping,
    ),
)
