"""What all shapes that programs read have in common: no field that is not named, and the words for units and forms."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Result(Struct, forbid_unknown_fields=True):
    """An object of a reply."""


Count = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0, description="bytes")]
Nanoseconds = Annotated[int, Meta(ge=0, description="nanoseconds on the adapter's clock")]
Milliseconds = Annotated[int, Meta(ge=0, description="milliseconds")]
Rate = Annotated[float, Meta(ge=0)]
CpuSeconds = Annotated[float, Meta(ge=0, description="seconds of CPU time")]
BusAddress = Annotated[int, Meta(ge=0, description="address in the guest's memory, as the device sees it")]
HexText = Annotated[str, Meta(pattern="^[0-9a-f]*$", description="bytes in hexadecimal")]
UnitName = Annotated[str, Meta(pattern="^0:[0-9]+:[0-9]+$", description="a unit, as BUS:TARGET:LUN")]
CountByName = dict[str, Count]
