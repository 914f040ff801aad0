"""Options of the SCSI Port model: what Windows keeps in the registry or decides by itself."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hba.port.config import Count, PortConfig, Positive


class ScsiPortConfig(PortConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[adapter.scsiport]: what Windows keeps in the registry, or decides by itself."""

    # CF-01, CF-02. None: what the miniport says in hw_find_adapter; else the port's word is final.
    map_buffers: bool | None = None
    # Registry NumberOfRequests: size of the pool tags come from; the internal pool is twice that.
    number_of_requests: Annotated[int, msgspec.Meta(ge=16, le=512)] = 16
    # Requests per logical unit with tagged queuing or MultipleRequestPerLu (256 as in ReactOS); without, 1 (SP-13).
    requests_per_unit: Positive = 256
    # Registry MaximumSGList: presets NumberOfPhysicalBreaks (CF-06; ReactOS presets 17). None: the miniport decides.
    maximum_sg_list: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    # Registry DisableTaggedQueuing, DisableMultipleRequests, DisableDisconnects, DisableSynchronousTransfers (CF-13).
    disable_tagged_queuing: bool = False
    disable_multiple_requests: bool = False
    disable_disconnects: bool = False
    disable_synchronous_transfers: bool = False
    # Seconds without start-I/O after a bus reset (ER-12; 4 in ReactOS).
    bus_reset_hold_time: Count = 4
    # A timed-out request is aborted first, and only when that times out too the bus is reset (ER-10). False: ReactOS,
    # straight to the bus reset.
    abort_first: bool = True
    # Seconds for the port's own ABORT_COMMAND.
    abort_timeout: Positive = 10
    # Busy requests are retried on the one-second tick, this often (ER-06; 20 in ReactOS).
    busy_retries: Count = 20
    # Any error freezes the queue, as in ReactOS; False: the documented ones only.
    freeze_on_any_error: bool = False
    # ABORT_COMMAND for a request that has completed already: "success" as the SRB page says, "abort_failed" as in
    # ReactOS (ER-08).
    abort_of_completed: Literal["success", "abort_failed"] = "success"
    # A reset asked for from above also ends what waits in the queues it is about: a guest that resets has given up on
    # it. False: it is started after the reset, as below a Windows class driver.
    reset_flushes_queue: bool = True
    # A request that bypasses a frozen queue also flushes it, as one sentence of the documentation has it.
    bypass_flushes: bool = False
    # FLUSH_QUEUE on a queue that is not frozen: refused, as in ReactOS and as the page of ReleaseQueue wants it, or
    # carried out, as "Flushing Port Driver's Internal Queue" reads.
    flush_unfrozen: Literal["refuse", "flush"] = "refuse"
    # Seconds for the port's own REQUEST SENSE (ER-03; 2 in ReactOS).
    sense_timeout: Positive = 2
    # A sense buffer above the 18 bytes of fixed sense data switches auto-sense off, as in ReactOS (ER-05).
    small_sense_only: bool = False
    # Resolution of RequestTimerCall in milliseconds (IN-05).
    timer_resolution: Positive = 10
