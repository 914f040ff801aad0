"""Write your own miniport: the callbacks a port driver calls, under their documented names.

A miniport programs the emulated host adapter's chip (`hba.miniport.chip`) and talks to the port only through
`self.port` (`hba.miniport.services`). Everything runs in one thread; "interrupts", "DPCs" and "IRQL" are the port's
bookkeeping of what Windows would allow at that moment, which the verifier checks.

Sources: HwScsi* routines of SCSI miniport drivers; HwStor* routines of Storport (storport.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hba.miniport.config import PortConfigurationInformation
from hba.srb import Srb

if TYPE_CHECKING:
    from hba.miniport.chip import Chip
    from hba.miniport.services import PortServices

# HwFindAdapter's return values
SP_RETURN_NOT_FOUND = 0
SP_RETURN_FOUND = 1
SP_RETURN_ERROR = 2
SP_RETURN_BAD_CONFIG = 3

# HwAdapterControl's control types
SCSI_QUERY_SUPPORTED_CONTROL_TYPES = 0
SCSI_STOP_ADAPTER = 1
SCSI_RESTART_ADAPTER = 2
SCSI_SET_BOOT_CONFIG = 3
SCSI_SET_RUNNING_CONFIG = 4


class Miniport:
    """Base of all miniports. Override what your adapter needs; a callback left alone does nothing.

    `port` and `chip` are set before `hw_find_adapter`. Attributes set on `self.extension` are the device extension:
    the port clears it as the model prescribes (CF-11: SCSI Port before each find-adapter; MB-17: Storport only once).
    """

    port: PortServices
    chip: Chip
    extension: Any
    options: dict[str, Any]  # [adapter.miniport_options] of the configuration

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        """Describe the adapter in `config`; SP_RETURN_*. HwScsiFindAdapter / HwStorFindAdapter."""
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        """Make the adapter ready; False: it does not work. HwScsiInitialize / HwStorInitialize."""
        return True

    def hw_build_io(self, srb: Srb) -> bool:
        """Storport only: prepare, without locks. False: will never be started, the miniport completes it (ST-05)."""
        return True

    def hw_start_io(self, srb: Srb) -> bool:
        """Start one request. SCSI Port: always True (SP-06). HwScsiStartIo / HwStorStartIo."""
        raise NotImplementedError(f"{type(self).__name__} has no hw_start_io")

    def hw_interrupt(self) -> bool:
        """True when this adapter interrupted (and it was dismissed). HwScsiInterrupt / HwStorInterrupt."""
        return False

    def hw_timer(self) -> None:
        """The timer asked for with RequestTimerCall has expired. HwScsiTimer / HwStorTimer."""

    def hw_reset_bus(self, path_id: int) -> bool:
        """Reset the bus and complete everything outstanding on it (ER-11, RS-03). HwScsiResetBus / HwStorResetBus."""
        raise NotImplementedError(f"{type(self).__name__} has no hw_reset_bus")

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        """HwScsiAdapterControl / HwStorAdapterControl. Returns 0 for success, 1 for failure."""
        return 1

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        """HwStorUnitControl. Returns 0 for success, 1 for failure."""
        return 1
