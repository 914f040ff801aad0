"""PVSCSI's registers: BAR 0, 32 KiB of memory, 32-bit little-endian accesses.

Source: VMware's PVSCSI interface definition (enum PVSCSIRegOffset).
"""

from __future__ import annotations

from typing import Final

from hba.pci.registers import RO, RW, RW1C, WO, Field, Register

BAR_SIZE: Final = 0x8000
MSIX_TABLE_OFFSET: Final = 0x6000
MSIX_PBA_OFFSET: Final = 0x7000
MAX_VECTORS: Final = 24

INTR_CMPL_0: Final = 1 << 0
INTR_CMPL_1: Final = 1 << 1
INTR_MSG_0: Final = 1 << 2
INTR_MSG_1: Final = 1 << 3
INTR_ALL_SUPPORTED: Final = 0xF

CMD_ADAPTER_RESET: Final = 1
CMD_ISSUE_SCSI: Final = 2
CMD_SETUP_RINGS: Final = 3
CMD_RESET_BUS: Final = 4
CMD_RESET_DEVICE: Final = 5
CMD_ABORT_CMD: Final = 6
CMD_CONFIG: Final = 7
CMD_SETUP_MSG_RING: Final = 8
CMD_DEVICE_UNPLUG: Final = 9
CMD_SETUP_REQCALLTHRESHOLD: Final = 10

STATUS_FAILED: Final = 0xFFFFFFFF

COMMAND_NAMES = {
    CMD_ADAPTER_RESET: "ADAPTER_RESET",
    CMD_ISSUE_SCSI: "ISSUE_SCSI",
    CMD_SETUP_RINGS: "SETUP_RINGS",
    CMD_RESET_BUS: "RESET_BUS",
    CMD_RESET_DEVICE: "RESET_DEVICE",
    CMD_ABORT_CMD: "ABORT_CMD",
    CMD_CONFIG: "CONFIG",
    CMD_SETUP_MSG_RING: "SETUP_MSG_RING",
    CMD_DEVICE_UNPLUG: "DEVICE_UNPLUG",
    CMD_SETUP_REQCALLTHRESHOLD: "SETUP_REQCALLTHRESHOLD",
}

_CAUSES = {
    "CMPL_0": Field(0, doc="completions were posted"),
    "CMPL_1": Field(1, doc="never raised by this device"),
    "MSG_0": Field(2, doc="a message was posted"),
    "MSG_1": Field(3, doc="never raised by this device"),
}

REGISTERS = (
    Register(
        "COMMAND",
        0x0000,
        access=WO,
        values=COMMAND_NAMES,
        doc="latches a command and drops descriptor words of an earlier one; a command without descriptor runs at once",
    ),
    Register("COMMAND_DATA", 0x0004, access=WO, doc="next descriptor word; the last one runs the command"),
    Register(
        "COMMAND_STATUS",
        0x0008,
        access=RO,
        doc="result of the last command; all ones: unsupported or failed; words wanted while the descriptor is short",
    ),
    Register("LAST_STS_0", 0x0100, access=RO, doc="declared by the interface, always zero here"),
    Register("LAST_STS_1", 0x0104, access=RO, doc="declared by the interface, always zero here"),
    Register("LAST_STS_2", 0x0108, access=RO, doc="declared by the interface, always zero here"),
    Register("LAST_STS_3", 0x010C, access=RO, doc="declared by the interface, always zero here"),
    Register("INTR_STATUS", 0x100C, access=RW1C, fields=_CAUSES, local=True, doc="interrupt causes"),
    Register("INTR_MASK", 0x2010, access=RW, fields=_CAUSES, local=True, doc="1: the cause interrupts"),
    Register(
        "KICK_NON_RW_IO",
        0x3014,
        access=WO,
        doc="look at the request ring (commands that are no reads or writes)",
        doorbell=True,
        local=True,
    ),
    Register("DEBUG", 0x3018, access=WO, doc="ignored"),
    Register(
        "KICK_RW_IO",
        0x4018,
        access=WO,
        doc="look at the request ring (reads and writes)",
        doorbell=True,
        local=True,
    ),
)
