"""An enclosure: the device of this target that is not a disk (SES-3).

Its array device slots are the targets of the bus, so they show what is plugged in; one temperature sensor and the
enclosure itself come besides. A slot's and the enclosure's identify and fault lamps can be switched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hba.clock import Clock
from hba.scsi.enclosure import pages
from hba.scsi.sense import invalid_parameter
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.spc import COMMON, vpd
from hba.scsi.spc.inquiry import SAM5, SES3, SPC4, standard_data
from hba.scsi.spc.log import LogPages
from hba.scsi.spc.mode import ModePage, ModePages
from hba.scsi.state import SavedState
from hba.scsi.unit_state import EnclosureState, UnitState


class Enclosure(DeviceServer):
    """An enclosure services device without a medium."""

    device_type = 0x0D
    state_type = EnclosureState
    versions: ClassVar[tuple[int, ...]] = (SAM5, SPC4, SES3)

    def __init__(self, identity: Identity, clock: Clock, state: SavedState | None = None) -> None:
        super().__init__(identity, clock, state)
        self.commands = COMMON
        self.mode = ModePages([ModePage(0x0A, bytes((0x02, 0x10)) + bytes(8))], self.state)
        self.logs = LogPages({})
        self.identify: set[int] = set()  # slots whose lamp is on
        self.fault: set[int] = set()
        self.identify_enclosure = False
        self.refresh()

    def inquiry_data(self) -> bytes:
        return standard_data(self.device_type, False, self.identity, self.versions, enclosure=True)

    def vpd_pages(self) -> dict[int, Callable[[], bytes]]:
        return {
            0x80: lambda: vpd.unit_serial_number(self.identity),
            0x83: lambda: vpd.device_identification(self.identity),
            0x86: lambda: vpd.extended_inquiry(volatile_cache=False),
        }

    def occupied(self, slot: int) -> bool:
        """Whether a target is plugged into the slot."""
        return self.bus is not None and slot in self.bus.units

    def diagnostic_page(self, code: int) -> bytes | None:
        return pages.diagnostic_page(self, code)

    def diagnostic_control(self, data: bytes) -> None:
        if data[0] == pages.STATUS:
            pages.control(self, data)
        elif data[0] != pages.SUPPORTED:
            raise invalid_parameter(0)

    def on_reset(self, kind: str) -> None:
        self.mode.restore()
        if kind == "power-on":
            self.identify.clear()
            self.fault.clear()

    def saved(self) -> dict[str, Any]:
        return {
            **super().saved(),
            "identify": sorted(self.identify),
            "fault": sorted(self.fault),
            "identify_enclosure": self.identify_enclosure,
        }

    def restore(self, state: UnitState) -> None:
        assert isinstance(state, EnclosureState)
        self.identify, self.fault = set(state.identify), set(state.fault)
        self.identify_enclosure = state.identify_enclosure
        super().restore(state)

    def describe(self) -> dict[str, object]:
        return {
            "type": "enclosure",
            **super().describe(),
            "slots": pages.SLOTS,
            "occupied": [slot for slot in range(pages.SLOTS) if self.occupied(slot)],
            "identify": sorted(self.identify),
            "fault": sorted(self.fault),
        }
