"""The form of a saved adapter: a header, and JSON with everything.

    hba state, NUL padded   16 bytes
    version                 u32, little-endian
    CRC-32 of what follows  u32
    length of what follows  u64

What comes back is from anybody: it is taken for what it says only after its length, its sum and the type of every
field were checked here, and every value by whom it belongs to.
"""

from __future__ import annotations

import struct
import zlib
from typing import TypeVar

import msgspec

from hba.pci.state import FunctionState
from hba.scsi.unit_state import AnyUnitState
from hba.vfio_user.migration import MAX_STATE

MAGIC = b"hba state"
VERSION = 1
T = TypeVar("T")

_HEADER = struct.Struct("<16sIIQ")


class AdapterState(msgspec.Struct, forbid_unknown_fields=True):
    """`program`: what wrote it, for people. `options`: `[adapter.TYPE]`, which the guest's driver may have asked for.
    `adapter`: its own state, of the type's `state_type`."""

    program: str
    type: str
    options: msgspec.Raw
    function: FunctionState
    units: list[AnyUnitState]
    adapter: msgspec.Raw


def encode(state: AdapterState) -> bytes:
    """Raises ValueError when it is larger than anybody would take it."""
    body = msgspec.json.encode(state)
    if len(body) > MAX_STATE - _HEADER.size:
        raise ValueError(f"the state has {len(body)} bytes, at most {MAX_STATE - _HEADER.size} can be moved")
    return _HEADER.pack(MAGIC, VERSION, zlib.crc32(body), len(body)) + body


def decode(data: bytes) -> AdapterState:
    """Raises ValueError with what is wrong."""
    if len(data) < _HEADER.size:
        raise ValueError(f"{len(data)} bytes are no state of an adapter; its header has {_HEADER.size}")
    magic, version, crc, length = _HEADER.unpack_from(data)
    if magic.rstrip(b"\0") != MAGIC:
        raise ValueError("this is no state of an adapter: it does not begin with 'hba state'")
    if version != VERSION:
        raise ValueError(f"the state is of version {version}; this program knows {VERSION}: use the one that wrote it")
    body = data[_HEADER.size :]
    if len(body) != length:
        raise ValueError(f"the state has {len(body)} of its {length} bytes: it was cut, or more was added")
    if zlib.crc32(body) != crc:
        raise ValueError("the state is damaged: its check sum is another")
    return converted(body, AdapterState, "the state")


def converted(text: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """JSON as a type. Raises ValueError."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"{what}: {error}") from None
