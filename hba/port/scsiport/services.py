"""What a miniport under SCSI Port gets as `self.port`: the ScsiPort* routines (hba.miniport.services)."""

from __future__ import annotations

from hba.miniport.config import PortConfigurationInformation
from hba.miniport.seen import SeenSrb
from hba.port.context import CALLBACK_NAMES, FIND_ADAPTER
from hba.port.library.common import Library
from hba.port.library.make import scsiport_routines
from hba.port.request import ISSUED, owned
from hba.port.scsiport.driver import ScsiPort
from hba.srb import SP_UNTAGGED


class ScsiPortLibrary(Library):
    model = "scsiport"

    def __init__(self, port: ScsiPort) -> None:
        super().__init__(port, "CF-04", scsiport_routines(port, port.slot.options.timer_resolution))
        self._port = port
        self.notification = port.notification
        self.stall_execution = port.stall_execution

    def get_srb(self, path_id: int, target_id: int, lun: int, queue_tag: int) -> SeenSrb | None:
        """ScsiPortGetSrb: what is active with this address and tag."""
        unit = self._port.units.get(path_id << 16 | target_id << 8 | lun)
        if unit is None:
            return None
        if queue_tag == SP_UNTAGGED:
            request = unit.untagged
        else:
            request = next((active for active in unit.active if active.tag == queue_tag), None)
        if request is None or request.state != ISSUED:
            return None
        return request.handed

    def complete_request(self, path_id: int, target_id: int, lun: int, srb_status: int) -> None:
        """ScsiPortCompleteRequest (ER-15): all that match, the one being processed included."""
        port = self._port
        for request in owned(port.units.values(), path_id, target_id, lun):
            port.note(request, "notification", f"CompleteRequest {srb_status:#04x}")
            port.ledger.take_back(request, srb_status)
        port.run_later()

    def get_uncached_extension(self, config: PortConfigurationInformation, number_of_bytes: int) -> memoryview | None:
        """ScsiPortGetUncachedExtension: only in hw_find_adapter; what CF-09 lists must be final by now."""
        port = self._port
        if port.callback != FIND_ADAPTER or number_of_bytes <= 0:
            port.offence("CF-09", f"get_uncached_extension({number_of_bytes}) in {CALLBACK_NAMES[port.callback]}")
            return None
        port.slot.fixed_by_extension = (
            config.auto_request_sense,
            config.dma64_bit_addresses,
            config.srb_extension_size,
        )
        made = port.memory.uncached(number_of_bytes, bool(config.dma64_bit_addresses))
        if made is None:
            return None
        if port.dump is not None:
            port.dump.allocated(port, "ScsiPortGetUncachedExtension", number_of_bytes)
        memory, bus = made
        for watcher in port.watchers:
            watcher.device_memory(bus, number_of_bytes)
        return memory
