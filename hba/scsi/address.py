"""What a logical unit is called wherever people or programs read it: bus:target:lun, "0:1:0".

An adapter has one bus, 0, so who types an address may leave it out, and LUN 0 with it.
"""

from __future__ import annotations

from typing import Final

FORMS: Final = "BUS:TARGET:LUN, TARGET:LUN or TARGET"


def unit_name(target: int, lun: int) -> str:
    """`0:TARGET:LUN`."""
    return f"0:{target}:{lun}"


def placed(target: int, lun: int) -> dict[str, object]:
    """A unit's address in what becomes JSON: its name, and the numbers it is made of."""
    return {"unit": unit_name(target, lun), "target": target, "lun": lun}


def parse_unit(text: str) -> tuple[int, int]:
    """(target, lun) of an address in any of `FORMS`. Raises ValueError, which says what was expected."""
    parts = text.split(":")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError(f"{text!r} is no unit: expected {FORMS}, such as 0:1:0")
    if len(parts) == 3 and int(parts.pop(0)):
        raise ValueError(f"{text!r}: an adapter has one bus, 0")
    target, lun = int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
    if max(target, lun) > 255:
        raise ValueError(f"{text!r}: target and LUN are from 0 to 255")
    return target, lun
