"""Data compared: pytest's own comparison of long byte strings takes minutes."""

from __future__ import annotations


def same(found: bytes, wanted: bytes) -> bool:
    """True, or a failure that says where the first difference is."""
    assert len(found) == len(wanted), f"{len(found)} bytes instead of {len(wanted)}"
    if found != wanted:
        at = next(index for index, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
        raise AssertionError(
            f"byte {at} of {len(wanted)}: {found[at : at + 16].hex()}, not {wanted[at : at + 16].hex()}"
        )
    return True
