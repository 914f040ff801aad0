"""The disks of an experiment, as the host knows them: what the guest must find, and where the bytes lie."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hba.control.client import ControlClient
from hba.errors import StorageError
from hba.lab import pattern

BUILTIN_SERIAL = "LABDISK01"


@dataclass(frozen=True)
class Disk:
    """One logical unit of the adapter."""

    target: int
    lun: int
    size: int  # bytes
    block_size: int
    read_only: bool
    vendor: str  # as INQUIRY says it, without padding; empty where not known
    product: str
    serial: str  # as VPD page 80h says it; empty where not known
    file: Path | None  # where the bytes lie, when that is a raw file of the host

    def for_guest(self) -> dict[str, Any]:
        """What the guest's tests are told."""
        return {
            "target": self.target,
            "lun": self.lun,
            "size": self.size,
            "block_size": self.block_size,
            "read_only": self.read_only,
            "vendor": self.vendor,
            "product": self.product,
            "serial": self.serial,
            "host_file": self.file is not None,
        }


def make_file(path: Path, size: int) -> None:
    """A new sparse disk of `size` bytes."""
    try:
        with path.open("xb") as file:
            file.truncate(size)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", error.errno or 0) from error


def write_pattern(path: Path, seed: str, offset: int, size: int) -> None:
    """Write the pattern `seed` to `size` bytes of the file from `offset` on (multiples of 4096)."""
    with path.open("r+b") as file:
        file.seek(offset)
        for number in range(size // pattern.BLOCK):
            file.write(pattern.block(seed, number))
        file.flush()
        os.fsync(file.fileno())


def check_pattern(path: Path, seed: str, offset: int, size: int) -> str | None:
    """What is wrong with the pattern `seed` in the file, or None."""
    with path.open("rb") as file:
        file.seek(offset)
        found = file.read(size)
    if len(found) < size:
        return f"{path} ends at byte {offset + len(found)}, {size} bytes were expected from {offset} on"
    wrong = pattern.first_difference(found, seed, 0)
    if wrong is None:
        return None
    state = "zeroes" if not any(found[wrong : wrong + 512]) else "other data"
    return f"{path}: byte {offset + wrong} is not what the guest wrote ({state} there)"


def allocated(path: Path, offset: int, size: int) -> int:
    """How many bytes of this stretch of the (sparse) file take up space."""
    total, position, end = 0, offset, offset + size
    with path.open("rb") as file:
        while position < end:
            try:
                first = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    break
                raise
            position = os.lseek(file.fileno(), first, os.SEEK_HOLE)
            total += max(0, min(position, end) - min(first, end))
    return total


def check_discarded(path: Path, offset: int, size: int, keeps: int) -> str | None:
    """What is wrong when more than `keeps` bytes of a stretch take up space in the file, or None."""
    found = allocated(path, offset, size)
    if found <= keeps:
        return None
    return f"{path}: {found} of the {size} bytes from {offset} on still take up space, at most {keeps} were expected"


def holds_data(path: Path) -> bool:
    """Whether anything was ever written to the (sparse) file."""
    with path.open("rb") as file:
        try:
            os.lseek(file.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                return False
            raise
        return True


def of_builtin(path: Path) -> Disk:
    """The disk of QEMU's own device."""
    return Disk(0, 0, path.stat().st_size, 512, False, "QEMU", "QEMU HARDDISK", BUILTIN_SERIAL, path)


def of_adapter(control: Path) -> list[Disk]:
    """The disks of a running adapter, as it describes them itself."""
    with ControlClient(control) as client:
        units = client.call("show.luns")
    return [_from_description(unit) for unit in units if unit["type"] == "disk"]


def _from_description(unit: dict[str, Any]) -> Disk:
    storage = unit.get("storage") or {}
    return Disk(
        target=unit["target"],
        lun=unit["lun"],
        size=unit["blocks"] * unit["block_size"],
        block_size=unit["block_size"],
        read_only=unit["read_only"],
        vendor=unit["vendor"].strip(),
        product=unit["product"].strip(),
        serial=unit["serial"].strip(),
        file=Path(storage["path"]) if storage.get("kind") == "file" else None,
    )
