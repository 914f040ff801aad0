"""The server itself: is it there, what can it do, end it."""

from __future__ import annotations

from hba.control.method import Call, Method, NoParams


def ping(call: Call, params: NoParams) -> object:
    return {"now": call.parts.loop.clock.now()}


def methods(call: Call, params: NoParams) -> object:
    return [method.describe() for method in call.connection.server.methods.values()]


def stop(call: Call, params: NoParams) -> object:
    call.parts.loop.call_soon(call.parts.stop)
    return {"stopping": True}


METHODS = (
    Method("ping", ping, "The adapter's clock (ns); shows that its event loop turns."),
    Method("methods", methods, "Every method with its documentation and the JSON schema of its parameters."),
    Method("server.stop", stop, "End the adapter: requests end, storage is flushed, the process exits with 0."),
)
