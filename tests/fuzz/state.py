"""The state of an adapter that comes from anybody (migration): it is refused, or the adapter goes on with it.

As with any other that a guest could have brought it into: no defect is met, whatever the guest and the host ask then.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.state import MAGIC, VERSION, AdapterState, encode
from hba.clock import S
from hba.dma import DmaBuffer
from hba.scsi.sense import INTERNAL_TARGET_FAILURE, condition_of
from hba.scsi.task import DATA_IN, Task
from hba.vfio_user.device import RequestError
from tests.fuzz.machine import EDGES, RAM, Machine, life
from tests.fuzz.reader import Reader
from tests.fuzz.rings import COMPLETIONS, KICK, MESSAGES, REQUESTS, RING_PAGES, STATE
from tests.fuzz.target import Target

HEADER = struct.Struct("<16sIIQ")
MOST_EDITS = 12
PLACES = 360  # of a state, about
ASKED = (
    "000000000000", "000000000000", "030000006000", "12000000ff00", "12018300ff00", "5a003fff00000001ff00",
    "28000000000000000100", "5e000000000000020000", "5e030000000000020000", "3c0a0000000000020000",
    "3c020000000000020000", "1c0102020000", "25000000000000000000", "4a010000100000000800",
    "a30f00000000000000200000", "4d005000000000020000",
)  # fmt: skip
WORDS = ("", "pvscsi", "disk", "cdrom", "enclosure", "0+0", "7", "a" * 300, "AAAA", "////", "-1", "é\x00")


def run(data: bytes) -> None:
    reader = Reader(data, EDGES)
    model = reader.u8()
    with life(model) as guest:
        _driven(guest)
        saved = _saved(guest)
        if reader.u8() == 0:
            state = reader.bytes(1 << 16)  # anything at all
        else:
            body = msgspec.json.decode(saved[HEADER.size :])
            for _ in reader.steps(MOST_EDITS):
                _edit(body, reader)
            state = _wrapped(msgspec.json.encode(body))
        _moved(guest, state)
        _used(guest)


def _driven(guest: Machine) -> None:
    """Rings, messages, units that have been asked something: there is a state."""
    guest.command_register(6)
    pages = [(RAM.iova + start >> 12) + page for start in (REQUESTS, COMPLETIONS) for page in range(32)]
    guest.command(r.CMD_SETUP_RINGS, st.SETUP_RINGS.pack(RING_PAGES, RING_PAGES, RAM.iova + STATE >> 12, *pages))
    messages = [(RAM.iova + MESSAGES >> 12) + page for page in range(16)]
    guest.command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(1, 0, *messages))
    guest.write(0x2010, 0xF)


def _saved(guest: Machine) -> bytes:
    """As `AdapterKeeper.save`, which has no state of disks in memory: they go on here."""
    guest.function.stop(lambda error: None)
    adapter, options = guest.parts.adapter, guest.parts.config.options
    state = AdapterState(
        program="fuzz",
        type=adapter.type,
        options=msgspec.Raw(msgspec.json.encode(options)),
        function=guest.function.capture(),
        units=[unit.save() for unit in guest.parts.bus],
        adapter=msgspec.Raw(msgspec.json.encode(adapter.save())),
    )
    return encode(state)


def _wrapped(body: bytes) -> bytes:
    return HEADER.pack(MAGIC, VERSION, zlib.crc32(body), len(body)) + body


def _moved(guest: Machine, state: bytes) -> None:
    """Taken over, or not: then it is as after a reset."""
    try:
        guest.function.restore(state)
    except RequestError:
        pass
    guest.function.resume()


def _used(guest: Machine) -> None:
    """The guest goes on, and the host looks."""
    guest.parts.adapter.snapshot()
    guest.function.snapshot()
    guest.parts.port.snapshot()
    for unit in guest.parts.bus:
        unit.describe()
        for text in ASKED:
            task = Task(bytes.fromhex(text), DATA_IN, DmaBuffer.of(bytearray(512)))
            guest.parts.bus.execute(*unit.address, [task])
            assert condition_of(task.sense) != INTERNAL_TARGET_FAILURE, text
    guest.write(KICK, 0)
    for _ in range(4):
        guest.turn()
    for offset in (0x8, 0x100C, 0x2010):
        guest.function.region_read(0, offset, 4)
    guest.function.region_read(7, 0, 4096)
    guest.command(r.CMD_RESET_BUS, b"")
    guest.clock.advance(S)
    guest.command(r.CMD_ADAPTER_RESET, b"")
    _driven(guest)
    guest.turn()


# -- changing a state -------------------------------------------------------------------------------------------------


def _edit(body: Any, reader: Reader) -> None:
    """Replace, remove or double a value, anywhere below."""
    places = list(_places(body))
    at = reader.u16()
    kind = reader.u8() % 12
    if kind >= 9:
        places = [(holder, key) for holder, key in places if not isinstance(holder[key], dict | list)]
    holder, key = places[at % len(places)]
    value = holder[key]
    if kind >= 9:  # of the same type, which is what comes furthest
        holder[key] = _alike(value, reader)
    elif kind == 0:
        holder[key] = reader.number() - (reader.u8() & 1) * 5
    elif kind == 1 and isinstance(value, int):
        holder[key] = value + (reader.u8() - 128)
    elif kind == 2:
        holder[key] = reader.choose(WORDS)
    elif kind == 3:
        holder[key] = reader.choose((None, True, False, [], {}, 0, -1, 1.5))
    elif kind == 4:
        del holder[key]
    elif kind == 5 and isinstance(holder, list):
        holder.append(value)
    elif kind == 6:
        other, there = places[reader.u16() % len(places)]
        holder[key] = other[there] if not isinstance(other[there], list | dict) else reader.u8()
    elif kind == 7 and isinstance(holder, dict):
        holder[reader.choose(WORDS)] = value
    else:
        holder[key] = reader.piece().hex()


def _alike(value: Any, reader: Reader) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return reader.number()
    if isinstance(value, str):
        return base64.b64encode(reader.piece()).decode()  # what bytes are in JSON
    return reader.number()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of everything in a body of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _seeds() -> Iterator[bytes]:
    yield bytes((0, 0))
    yield bytes((1, 0)) + HEADER.pack(MAGIC, VERSION, 0, 0)
    for place in range(0, PLACES, 4):
        yield bytes((place % 4, 1, place & 255, place >> 8, 0, 0xA2, 34, 0))
        yield bytes((place % 4, 1, place & 255, place >> 8, 9, 4, 1, 2, 3, 4))
        yield bytes((place % 4, 1, place & 255, place >> 8, 1, 129))
        yield bytes((place % 4, 1, place & 255, place >> 8, 3 + place % 2, 3))


TARGET = Target("state", run, tuple(_seeds()))
