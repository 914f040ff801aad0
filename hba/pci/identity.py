"""What a PCI function says it is. Apart from the rest, for whoever wants to know it without the function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """What the function says it is. `class_code` has 24 bits: base class, subclass, programming interface."""

    vendor: int
    device: int
    class_code: int
    subsystem_vendor: int = 0
    subsystem: int = 0
    revision: int = 0
