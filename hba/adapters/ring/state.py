"""What is saved of an adapter with rings, beside where these are: that is each type's own.

The rings themselves are in the guest's memory, with all that is on them: requests nobody has taken, completions nobody
has looked at. Only how far the device has come, and what found no room there, is known here alone.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

MOST_NUMBERS: Final = 1 << 17  # of completions that wait: of more than the largest rings have
MOST_MESSAGES: Final = 1024

Number = Annotated[int, Meta(ge=0)]
Target = Annotated[int, Meta(ge=0, le=0xFF)]
Change = tuple[str, Target, Target]  # "added" or "removed", target, LUN


class Waiting(Struct, forbid_unknown_fields=True):
    """`fault`: why nothing is taken from the request ring. `completions`: those that found no room on theirs, one after
    the other. `units`: changes the driver was not told of yet."""

    fault: Annotated[str, Meta(max_length=1000)]
    completions: Annotated[list[Number], Meta(max_length=MOST_NUMBERS)]
    units: Annotated[list[Change], Meta(max_length=MOST_MESSAGES)]

    def __post_init__(self) -> None:
        if other := {change for change, _, _ in self.units} - {"added", "removed"}:
            raise ValueError(f"a unit that was {other.pop()!r}")
