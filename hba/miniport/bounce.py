"""Memory of the host for one transfer: of requests that are not the guest's own, and aligned copies of its buffers.

Each such buffer has bus addresses of its own, far above any guest's, at which the chip finds it as long as it lives.
"""

from __future__ import annotations

from itertools import count
from typing import Final
from weakref import WeakValueDictionary

from hba.dma import DmaBuffer

BOUNCE_BASE: Final = 1 << 61
_SPAN: Final = 1 << 32  # bus addresses each buffer may have
_SLOTS: Final = 1 << 28  # until they are used again
_numbers = count()
_live: WeakValueDictionary[int, memoryview] = WeakValueDictionary()  # the views are the buffers'


def bounce_buffer(size: int) -> DmaBuffer:
    """Aligned memory for one transfer of `size` bytes."""
    slot = next(_numbers) % _SLOTS
    buffer = DmaBuffer.of(bytearray(size), base=BOUNCE_BASE + slot * _SPAN)
    _live[slot] = buffer.views[0]
    return buffer


def bounced(address: int, length: int) -> memoryview | None:
    """The bytes at a bus address; None: no buffer lives there, or none so long."""
    slot, offset = divmod(address - BOUNCE_BASE, _SPAN)
    memory = _live.get(slot)
    return None if memory is None or offset + length > len(memory) else memory[offset : offset + length]
