"""The adapter types that can be configured. A new one is a package beside this module, and a name here."""

from __future__ import annotations

from hba.adapters.pvscsi.type import PVSCSI
from hba.adapters.types import Registry

ADAPTERS = Registry(
    PVSCSI,
)
