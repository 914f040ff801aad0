"""[adapter.minimal] of the configuration."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class MinimalOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What a minimal adapter can be made to look like."""

    entries: Annotated[int, Meta(ge=1, le=256)] = 64  # of the largest ring
