"""What is saved of a PVSCSI adapter besides its registers: where its rings are, the command that is being written."""

from __future__ import annotations

import struct
from typing import Annotated

from msgspec import Meta, Struct

from hba.adapters.pvscsi.messages import MessageRing
from hba.adapters.pvscsi.rings import Rings
from hba.adapters.pvscsi.structures import (
    COMPLETION,
    COMPLETION_FIELDS,
    PAGE_SHIFT,
    SETUP_MSG_RING_MAX_PAGES,
    SETUP_RINGS_MAX_PAGES,
)
from hba.adapters.ring.state import Waiting
from hba.pci.memory import GuestMemory

_U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
_Page = Annotated[int, Meta(ge=0, le=(1 << 52) - 1)]  # number of a page of 4096 bytes: a bus address has 64 bits
_Pages = Annotated[list[_Page], Meta(min_length=1, max_length=SETUP_RINGS_MAX_PAGES)]
_MessagePages = Annotated[list[_Page], Meta(min_length=1, max_length=SETUP_MSG_RING_MAX_PAGES)]


class RingsState(Struct, forbid_unknown_fields=True):
    """Pages by number; the indices that are the device's to move."""

    state: _Page
    requests: _Pages
    completions: _Pages
    messages: _MessagePages | None
    request_cons: _U32
    completion_prod: _U32
    message_prod: _U32

    def __post_init__(self) -> None:
        for pages in (self.requests, self.completions, self.messages or []):
            if len(pages) & (len(pages) - 1):
                raise ValueError(f"a ring of {len(pages)} pages, which is no power of two")


class PvscsiState(Struct, forbid_unknown_fields=True):
    """`command`, `descriptor`: the command whose descriptor is being written."""

    rings: RingsState | None
    waiting: Waiting
    command: _U32
    descriptor: Annotated[bytes, Meta(max_length=512)]
    threshold: bool
    last_command: Annotated[str, Meta(max_length=1000)]

    def __post_init__(self) -> None:
        fields = self.waiting.completions
        try:
            for at in range(0, len(fields), COMPLETION_FIELDS):
                COMPLETION.pack(*fields[at : at + COMPLETION_FIELDS])
        except struct.error as error:
            raise ValueError(f"a completion that waits: {error}") from None


def saved(rings: Rings) -> RingsState:
    messages = rings.messages
    return RingsState(
        rings.state.address >> PAGE_SHIFT,
        _numbers(rings.requests.addresses),
        _numbers(rings.completions.addresses),
        None if messages is None else _numbers(messages.ring.addresses),
        rings.request_cons,
        rings.completion_prod,
        0 if messages is None else messages.prod,
    )


def _numbers(addresses: list[int]) -> list[int]:
    return [address >> PAGE_SHIFT for address in addresses]


def restored(memory: GuestMemory, state: RingsState) -> Rings:
    """Rings that are looked up when they are used first."""
    rings = Rings(memory, state.state, state.requests, state.completions)
    rings.request_cons, rings.completion_prod = state.request_cons, state.completion_prod
    if state.messages is not None:
        rings.mailbox = rings.messages = MessageRing(memory, rings.state, state.messages)
        rings.messages.prod = state.message_prod
    return rings
