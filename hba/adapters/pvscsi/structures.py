"""Structures PVSCSI keeps in guest memory, each declared once.

Source: VMware's PVSCSI interface definition (pvscsi_defs.h, also in Linux drivers/scsi/vmw_pvscsi.h). Little-endian.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT

# -- rings state page: byte offsets; 32-bit indices are free-running -------------------------------------------------
REQ_PROD_IDX: Final = 0  # guest
REQ_CONS_IDX: Final = 4  # device
REQ_NUM_ENTRIES_LOG2: Final = 8  # device
CMP_PROD_IDX: Final = 12  # device
CMP_CONS_IDX: Final = 16  # guest
CMP_NUM_ENTRIES_LOG2: Final = 20  # device
REQ_CALL_THRESHOLD: Final = 24  # device
MSG_PROD_IDX: Final = 128  # device
MSG_CONS_IDX: Final = 132  # guest
MSG_NUM_ENTRIES_LOG2: Final = 136  # device

# -- request descriptor ----------------------------------------------------------------------------------------------
# context, dataAddr, dataLen, senseAddr, senseLen, flags, cdb, cdbLen, lun (as a little-endian u64), tag, bus, target,
# vcpuHint
REQUEST = Struct("<QQQQII16sBQBBBB59x")
REQUEST_SIZE: Final = 128
REQUEST_FLAGS = Struct("<36xI88x")  # of it the flags alone
assert REQUEST.size == REQUEST_FLAGS.size == REQUEST_SIZE

FLAG_WITH_SG_LIST: Final = 1 << 0
FLAG_OUT_OF_BAND_CDB: Final = 1 << 1  # reserved for CDBs over 16 bytes, never specified
FLAG_DIR_NONE: Final = 1 << 2
FLAG_DIR_TOHOST: Final = 1 << 3
FLAG_DIR_TODEVICE: Final = 1 << 4
FLAG_RESERVED: Final = 0xFFFFFFE0

# -- scatter/gather list: segments that each lie in one page ---------------------------------------------------------
SG_ELEMENT = Struct("<QII")  # addr, length, flags
SG_ELEMENT_SIZE: Final = 16
SG_FLAG_CHAIN_ELEMENT: Final = 1 << 0  # addr is the next segment's address, length is undefined
SG_MAX_ENTRIES_PER_SEGMENT: Final = 128
SG_MAX_SEGMENTS: Final = 128

# -- completion descriptor -------------------------------------------------------------------------------------------
COMPLETION = Struct("<QQIHH8x")  # context, dataLen, senseLen, hostStatus, scsiStatus
COMPLETION_SIZE: Final = 32
COMPLETION_FIELDS: Final = 5
assert COMPLETION.size == COMPLETION_SIZE


@cache
def completions(count: int) -> Struct:
    """So many completion descriptors in a row, at most a page of them."""
    return Struct("<" + count * "QQIHH8x")


# -- message descriptor ----------------------------------------------------------------------------------------------
MESSAGE = Struct("<III8s108x")  # type, bus, target, lun
MESSAGE_SIZE: Final = 128
assert MESSAGE.size == MESSAGE_SIZE
MSG_DEV_ADDED: Final = 0
MSG_DEV_REMOVED: Final = 1

# -- command descriptors ---------------------------------------------------------------------------------------------
SETUP_RINGS = Struct("<IIQ32Q32Q")  # reqRingNumPages, cmpRingNumPages, ringsStatePPN, reqRingPPNs, cmpRingPPNs
SETUP_RINGS_MAX_PAGES: Final = 32
SETUP_MSG_RING = Struct("<II16Q")  # numPages, pad, ringPPNs
SETUP_MSG_RING_MAX_PAGES: Final = 16
RESET_DEVICE = Struct("<I8s")  # target, lun
ABORT_CMD = Struct("<QII")  # context, target, pad
CONFIG = Struct("<QQII")  # cmpAddr, configPageAddress, configPageNum, pad
SETUP_REQCALLTHRESHOLD = Struct("<I")  # enable

# -- configuration pages ---------------------------------------------------------------------------------------------
CONFIG_PAGE_CONTROLLER: Final = 0x1958
CONFIG_PAGE_PHY: Final = 0x1959
CONFIG_PAGE_DEVICE: Final = 0x195A
CONFIG_CONTROLLER_ADDRESS: Final = 0x2120  # upper half of configPageAddress
CONFIG_BUSTARGET_ADDRESS: Final = 0x2121  # lower half: bus << 16 | target
CONFIG_PHY_ADDRESS: Final = 0x2122  # lower half: phy number
CONFIG_HEADER = Struct("<IHHH6x")  # pageNum, numDwords with the header, hostStatus, scsiStatus
# nodeWWN, manufacturer, serialNumber, opromVersion, hwVersion, firmwareVersion (UTF-16), numPhys,
# useConsecutivePhyWWNs
CONFIG_CONTROLLER = Struct("<Q128s128s64s64s64sIB3x")
CONFIG_PHY = Struct("<QQB7x")  # phyWWN, attachedDeviceWWN (0: none), attachedDeviceType
CONFIG_DEVICE = Struct("<QQIBB2x")  # deviceWWN, phyWWN, phyNum, target, bus
SAS_DEVICE: Final = 1
