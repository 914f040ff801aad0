"""The guest's real disks, and how to pull one out and put it back: by sysfs, as `scsi-rescan` and people do."""

from __future__ import annotations

from pathlib import Path

from adapter import settle
from server import wait_for

DEVICES = Path("/sys/class/scsi_device")


class RealDisk:
    """A disk by its SCSI address: its nodes may have other names when it comes back."""

    def __init__(self, address: str, expected: dict) -> None:
        self.address = address  # 2:0:1:0
        self.expected = expected  # what the host says about it

    @property
    def _device(self) -> Path:
        return DEVICES / self.address / "device"

    @property
    def there(self) -> bool:
        return any(self._device.glob("block/sd*")) and any(self._device.glob("scsi_generic/sg*"))

    @property
    def node(self) -> str:
        """/dev/sda"""
        (found,) = self._device.glob("block/sd*")
        return f"/dev/{found.name}"

    @property
    def generic(self) -> str:
        """/dev/sg0"""
        (found,) = self._device.glob("scsi_generic/sg*")
        return f"/dev/{found.name}"

    @property
    def by_id(self) -> str:
        """The name that udev gives to this disk and to no other."""
        node = Path(self.node)
        return str(next(path for path in Path("/dev/disk/by-id").glob("wwn-*") if path.resolve() == node))

    @property
    def block_size(self) -> int:
        return int(self.expected["block_size"])

    @property
    def blocks(self) -> int:
        return int(self.expected["size"]) // self.block_size

    def count(self, what: str) -> int:
        """A counter of /sys/block/*/stat (Documentation/block/stat.rst): "writes" or "flushes" so far."""
        (block,) = self._device.glob("block/sd*")
        return int((block / "stat").read_text().split()[{"writes": 4, "flushes": 15}[what]])

    def pull(self) -> None:
        """Have the kernel delete the device, whoever uses it."""
        (self._device / "delete").write_text("1")

    def put_back(self, name: str = "", udev: bool = True) -> None:
        """Have the kernel look for a device there; returns when it has its nodes, and with `udev` its other names.

        `name`: one of its nodes is to be that one. The kernel frees a name a moment after the last one who had the
        device open has closed it, and udev may be looking into it; who keeps it open does so for ever.
        """
        host, channel, target, lun = self.address.split(":")
        for _ in range(5):
            Path(f"/sys/class/scsi_host/host{host}/scan").write_text(f"{channel} {target} {lun}")
            wait_for(lambda: self.there, f"{self.address} is found again")
            if udev:
                settle()
            if name in ("", self.node, self.generic):
                return
            self.pull()
            wait_for(lambda: not self.there, f"{self.address} is gone")
        raise AssertionError(f"{self.address} does not come back as {name}: somebody has the old one open")
