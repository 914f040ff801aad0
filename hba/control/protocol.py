"""The shape of a line, and the limits. One JSON object per line, UTF-8, both ways.

server -> client, once:   {"hba": "0.1.0", "protocol": 1, "schema_version": 1, "adapter": "disks", "pid": 4711}
client -> server:         {"id": 1, "method": "show.regs", "params": {}}
server -> client:         {"id": 1, "schema_version": 1, "result": ...}, or for `result`
                          "error": {"code", "message", "next_step"}
server -> client:         {"event": "verifier", "data": {...}}     after `events.subscribe`
"""

from __future__ import annotations

from typing import Any

import msgspec

from hba.contract import SCHEMA_VERSION

PROTOCOL = 1
MAX_LINE = 1 << 20  # bytes of one request line, newline included
MAX_CLIENTS = 32
MAX_BACKLOG = 8 << 20  # bytes waiting for a slow reader before it is dropped
PAUSE_BACKLOG = 1 << 20  # bytes waiting before no more of its requests are taken

# error codes
BAD_JSON = "bad-json"  # the line is no JSON object
BAD_REQUEST = "bad-request"  # it is, but no request
NO_SUCH_METHOD = "no-such-method"
BAD_PARAMS = "bad-params"
REFUSED = "refused"  # understood, and cannot be done now
INTERNAL = "internal"  # a defect of ours


class Request(msgspec.Struct):
    """One line from the client. `id` comes back in the reply, whatever it is."""

    method: str
    id: int | str | None = None
    params: dict[str, Any] = {}


def _other(value: object) -> object:
    """What JSON has no word for."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)


_encoder = msgspec.json.Encoder(enc_hook=_other)


def encode(message: object) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


def greeting(version: str, adapter: str, pid: int) -> bytes:
    known = {"hba": version, "protocol": PROTOCOL, "schema_version": SCHEMA_VERSION}
    return encode({**known, "adapter": adapter, "pid": pid})


def reply(request_id: object, result: object) -> bytes:
    return encode({"id": request_id, "schema_version": SCHEMA_VERSION, "result": result})


def error(request_id: object, code: str, message: str, next_step: str = "") -> bytes:
    refusal = {"code": code, "message": message, "next_step": next_step}
    return encode({"id": request_id, "schema_version": SCHEMA_VERSION, "error": refusal})
