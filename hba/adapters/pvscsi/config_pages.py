"""CONFIG: the pages an adapter describes itself with. Each function returns a whole page with its header."""

from __future__ import annotations

from typing import Final

from hba import __version__
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.status import BTSTAT_INVPARAM, BTSTAT_SUCCESS
from hba.adapters.pvscsi.structures import (
    CONFIG_BUSTARGET_ADDRESS,
    CONFIG_CONTROLLER,
    CONFIG_CONTROLLER_ADDRESS,
    CONFIG_DEVICE,
    CONFIG_HEADER,
    CONFIG_PAGE_CONTROLLER,
    CONFIG_PAGE_DEVICE,
    CONFIG_PAGE_PHY,
    CONFIG_PHY,
    CONFIG_PHY_ADDRESS,
    SAS_DEVICE,
)
from hba.scsi.bus import ScsiBus
from hba.srb import SCSISTAT_CHECK_CONDITION, SCSISTAT_GOOD

_NODE_WWN: Final = 0x5000C29000000000  # NAA 5, the OUI VMware uses for its own virtual devices
_PHY_WWN: Final = _NODE_WWN | 0x100000


def config_page(number: int, address: int, options: PvscsiOptions, bus: ScsiBus) -> bytes:
    """The page `number` of what `address` names; a bare header with a failed status when there is none."""
    kind, low = address >> 32, address & 0xFFFFFFFF
    body: bytes | None = None
    if (number, kind) == (CONFIG_PAGE_CONTROLLER, CONFIG_CONTROLLER_ADDRESS):
        body = _controller(options)
    elif (number, kind) == (CONFIG_PAGE_PHY, CONFIG_PHY_ADDRESS) and low < options.max_targets:
        attached = _device_wwn(low) if low in bus.units else 0
        body = CONFIG_PHY.pack(_PHY_WWN + low, attached, SAS_DEVICE if attached else 0)
    elif (number, kind) == (CONFIG_PAGE_DEVICE, CONFIG_BUSTARGET_ADDRESS) and low in bus.units:  # bus 0 only
        body = CONFIG_DEVICE.pack(_device_wwn(low), _PHY_WWN + low, low, low, 0)
    if body is None:
        return CONFIG_HEADER.pack(number, CONFIG_HEADER.size // 4, BTSTAT_INVPARAM, SCSISTAT_CHECK_CONDITION)
    dwords = (CONFIG_HEADER.size + len(body)) // 4
    return CONFIG_HEADER.pack(number, dwords, BTSTAT_SUCCESS, SCSISTAT_GOOD) + body


def _device_wwn(target: int) -> int:
    return _NODE_WWN | 0x200000 | target


def _utf16(text: str, characters: int) -> bytes:
    """What fits into so many, less the zero that ends it."""
    return text.encode("utf-16-le")[: characters * 2 - 2]


def _controller(options: PvscsiOptions) -> bytes:
    return CONFIG_CONTROLLER.pack(
        _NODE_WWN,
        _utf16(options.manufacturer, 64),
        _utf16(options.serial, 64),
        b"",
        "2".encode("utf-16-le"),
        _utf16(options.firmware or __version__, 32),
        options.max_targets,
        1,
    )
