"""INQUIRY: the standard data and the way to the vital product data pages (SPC-4 "INQUIRY command")."""

from __future__ import annotations

from hba.scsi.command import CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.task import Task

commands = CommandTable()

VERSION_SPC4 = 0x06

# Version descriptors (SPC-4 "Version descriptor values")
SAM5 = 0x00A0
SPC4 = 0x0460
SBC3 = 0x04C0
MMC6 = 0x04E0
SES3 = 0x0580


def text(value: str, length: int) -> bytes:
    """ASCII, left-aligned, cut or padded with blanks; what is not printable becomes a dot."""
    clean = "".join(char if " " <= char <= "~" else "." for char in value)
    return clean[:length].ljust(length).encode("ascii")


def standard_data(
    device_type: int,
    removable: bool,
    identity: Identity,
    versions: tuple[int, ...],
    *,
    protect: bool = False,
    third_party_copy: bool = False,
    enclosure: bool = False,
) -> bytes:
    """96 bytes of standard INQUIRY data."""
    data = bytearray(96)
    data[0] = device_type
    data[1] = 0x80 if removable else 0x00
    data[2] = VERSION_SPC4
    data[3] = 0x10 | 0x02  # HISUP: addresses as REPORT LUNS gives them; response data format 2
    data[4] = len(data) - 5
    data[5] = 0x10 | (0x08 if third_party_copy else 0) | (0x01 if protect else 0)  # TPGS 01b: implicit ALUA
    data[6] = 0x40 if enclosure else 0x00
    data[7] = 0x02  # CMDQUE
    data[8:16] = text(identity.vendor, 8)
    data[16:32] = text(identity.product, 16)
    data[32:36] = text(identity.revision, 4)
    for index, version in enumerate(versions[:8]):
        data[58 + 2 * index : 60 + 2 * index] = version.to_bytes(2, "big")
    return bytes(data)


@commands.add("12 01 ff ffff 00", "INQUIRY", allocation=(3, 2), attention=False)
def inquiry(unit: DeviceServer, task: Task) -> bytes:
    cdb = task.cdb
    page = cdb[2]
    if not cdb[1] & 0x01:
        if page:
            raise invalid_cdb(2)
        return unit.inquiry_data()
    pages = unit.vpd_pages()
    if page == 0x00:
        body = bytes(sorted({0x00, *pages}))
    elif page in pages:
        body = pages[page]()
    else:
        raise invalid_cdb(2)
    return bytes((unit.device_type, page)) + len(body).to_bytes(2, "big") + body
