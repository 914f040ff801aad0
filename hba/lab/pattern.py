"""Bytes that host and guest can both make from a seed, to compare what each finds on the disk.

Copied into the guest as it is, so: standard library only, any Python 3.9 or later.
"""

from __future__ import annotations

import random

BLOCK = 4096


def block(seed: str, number: int) -> bytes:
    """Block `number` (4096 bytes) of the pattern `seed`; no two blocks of a run are alike."""
    return random.Random(f"{seed}/{number}").randbytes(BLOCK)


def data(seed: str, first_block: int, count: int) -> bytes:
    """`count` blocks from `first_block` on."""
    return b"".join(block(seed, first_block + index) for index in range(count))


def first_difference(found: bytes, seed: str, first_block: int) -> int | None:
    """Offset in `found` of the first byte that is not the pattern's, or None."""
    for start in range(0, len(found), BLOCK):
        expected = block(seed, first_block + start // BLOCK)
        piece = found[start : start + BLOCK]
        if piece != expected[: len(piece)]:
            return start + next(i for i, (a, b) in enumerate(zip(piece, expected, strict=False)) if a != b)
    return None
