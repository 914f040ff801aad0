"""[adapter.pvscsi] of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec


class PvscsiOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a PVSCSI adapter can be made to look like."""

    max_targets: Annotated[int, msgspec.Meta(ge=1, le=255)] = (
        64  # numPhys of the controller page: Linux's max_id; over 16 it uses the largest rings
    )
    message_ring: bool = True  # SETUP_MSG_RING is supported (hot-plug)
    request_call_threshold: bool = True  # SETUP_REQCALLTHRESHOLD is supported
    config_page: bool = True  # CONFIG is supported
    manufacturer: str = "hba"  # controller page, up to 64 characters
    serial: str = ""
    firmware: str = ""  # default: the program's version
