"""[adapter.poll] and [adapter.interrupts] of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class PollOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long requests are looked for without having been asked to."""

    window: Annotated[int, Meta(ge=0, le=10_000)] = 1000  # µs after work, at most; 0: never
    share: Annotated[float, Meta(ge=0, le=1)] = 0.75  # of the time, at most, that may go into looks that find nothing


class InterruptOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How completions are announced together."""

    count: Annotated[int, Meta(ge=1, le=1024)] = 8  # completions that are enough for an interrupt; 1: each batch
    bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 512 << 10  # transferred by them: enough, too
    delay: Annotated[int, Meta(ge=0, le=10_000)] = 100  # µs without a new request, more for a slow driver; 0: at once
