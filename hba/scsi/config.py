"""How the configuration spells a logical unit: one `[[adapter.lun]]` table.

[[adapter.lun]]
target = 0
storage = { kind = "file", path = "disk.img", size = "1G", create = true }
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from hba.storage.config import HostStorage, ScsiStorage, StorageConfig

DISK, CDROM, ENCLOSURE = "disk", "cdrom", "enclosure"

_Ascii = r"^[ -~]*$"
Vendor = Annotated[str, Meta(max_length=8, pattern=_Ascii)]
Product = Annotated[str, Meta(max_length=16, pattern=_Ascii)]
Revision = Annotated[str, Meta(max_length=4, pattern=_Ascii)]
Serial = Annotated[str, Meta(max_length=32, pattern=_Ascii)]
Naa = Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9a-fA-F]{16})?$"})]  # checked below


_OF_DISKS = (
    "block_size", "physical_block_size", "removable", "read_only", "thin", "write_cache", "rotation_rate", "protection",
    "protection_file",
)  # fmt: skip


def in_force(unit: dict[str, Any]) -> dict[str, Any]:
    """A unit's table, defaults filled in, without what says nothing for its type."""
    return {key: value for key, value in unit.items() if unit["type"] == DISK or key not in _OF_DISKS}


class LunConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """A logical unit. Without `storage` a removable one starts without a medium; an enclosure has none."""

    type: Literal["disk", "cdrom", "enclosure"] = "disk"
    target: Annotated[int, Meta(ge=0, le=255)] = 0
    lun: Annotated[int, Meta(ge=0, le=255)] = 0
    storage: StorageConfig | None = None

    # who it is; empty: as the device type has it, the serial number from target and LUN
    vendor: Vendor = ""
    product: Product = ""
    revision: Revision = ""
    serial: Serial = ""
    naa: Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9a-fA-F]{16})?$"})] = (
        ""  # 16 hex digits of the NAA designator; empty: derived
    )

    # disks (`_OF_DISKS`)
    block_size: Annotated[int, Meta(ge=512, le=4096)] = 512  # bytes: 512 or 4096
    physical_block_size: Annotated[int, Meta(ge=512, le=1 << 20)] | None = None  # bytes; None: as block_size
    removable: bool = False
    read_only: bool = False
    thin: bool = True  # UNMAP and what goes with it
    write_cache: bool = True  # WCE after a power on; the guest may change it
    rotation_rate: Annotated[int, Meta(ge=0, le=65534)] = 1  # revolutions per minute; 1: solid state, 0: not said
    protection: Annotated[int, Meta(ge=0, le=1)] = 0  # T10 protection information: none, or type 1
    protection_file: str | None = None  # where it is kept; None: in memory, gone at the end

    # when the store disappears: "keep" answers NOT READY until it is back, "remove" tells the guest that the unit was
    # unplugged, and plugs it in again when the store is back. None: "remove" for devices of the host, else "keep"
    on_gone: Literal["keep", "remove"] | None = None

    state_file: str | None = None  # saved mode pages and persistent reservations (APTPL); None: nothing is kept

    @property
    def leaves_with_store(self) -> bool:
        if self.on_gone is not None:
            return self.on_gone == "remove"
        return isinstance(self.storage, HostStorage | ScsiStorage)

    def __post_init__(self) -> None:
        if self.type == DISK and self.block_size not in (512, 4096):
            raise ValueError(f"block_size: expected 512 or 4096, got {self.block_size}")
        physical = self.physical_block_size
        if physical is not None and (physical < self.block_size or physical & (physical - 1)):
            raise ValueError(
                f"physical_block_size: expected a power of two from block_size ({self.block_size}) to 1 MiB, "
                f"got {physical}"
            )
        if self.type == DISK and self.storage is None and not self.removable:
            raise ValueError(
                'storage: a disk needs one (or removable = true), such as { kind = "memory", size = "64M" }'
            )
        if self.type == ENCLOSURE and self.storage is not None:
            raise ValueError("storage: an enclosure has none")
        if self.rotation_rate not in (0, 1) and self.rotation_rate < 0x401:
            raise ValueError(f"rotation_rate: expected 0, 1, or 1025 to 65534, got {self.rotation_rate}")
        if self.protection_file is not None and not self.protection:
            raise ValueError("protection_file: needs protection = 1")
        if self.naa and (len(self.naa) != 16 or not all(char in "0123456789abcdefABCDEF" for char in self.naa)):
            raise ValueError(f'naa: expected 16 hex digits, got "{self.naa}"')
