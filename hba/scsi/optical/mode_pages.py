"""A CD drive's mode pages (MMC-6; 2Ah as MMC-3 had it, because drivers still ask)."""

from __future__ import annotations

from hba.scsi.spc.mode import ModePage

READ_ERROR_RECOVERY = 0x01
AUDIO_CONTROL = 0x0E
POWER_CONDITION = 0x1A
TIMEOUT_AND_PROTECT = 0x1D
CAPABILITIES = 0x2A

SPEED = 7056  # kB/s: 40 times CD speed


def cd_pages() -> list[ModePage]:
    capabilities = bytearray(20)
    capabilities[0] = 0x01 | 0x02 | 0x08  # reads CD-R, CD-RW, DVD-ROM
    capabilities[2] = 0x10 | 0x20 | 0x40  # reads mode 2 forms 1 and 2, multi-session
    capabilities[4] = 1 << 5 | 0x08 | 0x01  # a tray, ejects, locks
    capabilities[6:8] = SPEED.to_bytes(2, "big")
    capabilities[10:12] = (2048).to_bytes(2, "big")  # buffer, in KiB
    capabilities[12:14] = SPEED.to_bytes(2, "big")
    return [
        ModePage(READ_ERROR_RECOVERY, bytes((0, 5)) + bytes(8)),
        ModePage(AUDIO_CONTROL, bytes((0x04, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF)) + bytes(4)),
        ModePage(POWER_CONDITION, bytes(10)),
        ModePage(TIMEOUT_AND_PROTECT, bytes(8)),
        ModePage(CAPABILITIES, bytes(capabilities)),
    ]
