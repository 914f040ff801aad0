"""[adapter.class_driver]: whether a class driver stands between the guest and the port, and how it is set up."""

from __future__ import annotations

from msgspec import Struct

from hba.port.config import Count, Positive


class ClassDriverOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """[adapter.class_driver]: do to the guest's requests what disk.sys and classpnp.sys do to an application's."""

    enabled: bool = False
    # Seconds of TimeOutValue for reads and writes; other commands have multiples of it. 60 is what Windows sets up
    # (HKLM\System\CurrentControlSet\Services\disk, TimeOutValue); without that value disk.sys takes 10. A miniport's
    # IoTimeoutValue (storport.io_timeout_value) goes before it.
    time_out_value: Positive = 60
    # How often a read or write is tried again (4 from Windows 8.1 on, 8 before). Other commands have their own counts.
    retries: Count = 4
    # Look for units with INQUIRY and REPORT LUNS at the start, and after each BusChangeDetected.
    enumerate: bool = True
    # A unit that is not ready until somebody starts it (NOT READY, INITIALIZING COMMAND REQUIRED) is started.
    start_units: bool = True
