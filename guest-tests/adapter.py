"""Our adapter and its disks as the guest's kernel shows them (pyudev)."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pyudev

BLOCK = 4096  # what O_DIRECT transfers are made of here


def settle() -> None:
    """Wait until udev has handled every event so far."""
    subprocess.run(["udevadm", "settle", "--timeout=60"], check=True)


class Adapter:
    """One PCI function of the kind under test."""

    def __init__(self, device: pyudev.Device, about: dict) -> None:
        self._device = device
        self.about = about  # what the host says of its type: driver, resets, ...
        self.address = device.sys_name  # 0000:00:05.0

    @property
    def driver(self) -> str | None:
        """Name of the driver that is bound, or None."""
        link = Path(self._device.sys_path, "driver")
        return link.resolve().name if link.exists() else None

    @property
    def path(self) -> Path:
        return Path(self._device.sys_path)

    @property
    def interrupts(self) -> set[str]:
        """The numbers of its interrupts, as /proc/interrupts has them."""
        messages = self.path / "msi_irqs"
        return {entry.name for entry in messages.iterdir()} if messages.is_dir() else {self.read("irq")}

    def read(self, name: str) -> str:
        """An attribute of it in sysfs."""
        return (self.path / name).read_text().strip()

    def disks(self) -> list[Disk]:
        """The disks below this function, by target and lun."""
        context = pyudev.Context()
        blocks = context.list_devices(subsystem="block", DEVTYPE="disk")
        mine = [block for block in blocks if block.sys_path.startswith(self._device.sys_path + "/")]
        # To udev a CD drive is a disk, too; here it is what INQUIRY calls a direct access device (SPC-4, type 0).
        return sorted(
            (disk for disk in map(Disk, mine) if disk.device_type == 0), key=lambda disk: (disk.target, disk.lun)
        )

    def wait_for_disks(self, count: int, timeout: float = 60.0) -> list[Disk]:
        """The disks, once there are `count` of them and udev is done with them."""
        deadline = time.monotonic() + timeout
        while True:
            settle()
            disks = self.disks()
            if len(disks) == count:
                return disks
            assert time.monotonic() < deadline, f"{len(disks)} disks after {timeout} s instead of {count}"
            time.sleep(0.2)  # the kernel scans in its own time; nothing tells when it is done


def find_adapters(expected: list[dict]) -> list[Adapter]:
    """The PCI functions of the kinds that the host says there are, by address."""
    context = pyudev.Context()
    kinds = {about["pci_id"]: about for about in expected}
    found = [
        Adapter(device, about)
        for pci_id, about in kinds.items()
        for device in context.list_devices(subsystem="pci", PCI_ID=pci_id)
    ]
    return sorted(found, key=lambda adapter: adapter.address)


class Disk:
    """One disk of the adapter."""

    def __init__(self, block: pyudev.Device) -> None:
        self.expected: dict = {}
        self.node = block.device_node  # /dev/sda
        self.udev = block
        unit = block.find_parent("scsi", "scsi_device")
        _, _, target, lun = unit.sys_name.split(":")
        self.target, self.lun = int(target), int(lun)
        self._unit = unit

    def __repr__(self) -> str:
        return f"{self.node} (target {self.target} lun {self.lun})"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.udev.attributes.asint("size") * 512  # sysfs counts in 512 bytes, whatever the disk does

    @property
    def device_type(self) -> int:
        """Peripheral device type, as INQUIRY says it."""
        return self._unit.attributes.asint("type")

    @property
    def block_size(self) -> int:
        return int(Path(self.udev.sys_path, "queue/logical_block_size").read_text())

    @property
    def read_only(self) -> bool:
        return self.udev.attributes.asint("ro") == 1

    @property
    def removable(self) -> bool:
        return self.udev.attributes.asint("removable") == 1

    @property
    def generic(self) -> str:
        """The SCSI generic node (/dev/sg0)."""
        (name,) = (path.name for path in Path(self._unit.sys_path, "scsi_generic").iterdir())
        return f"/dev/{name}"

    def inquiry(self, name: str) -> str:
        """`vendor`, `model` or `rev` as the kernel keeps it."""
        return self._unit.attributes.asstring(name).strip()

    def read(self, offset: int, size: int) -> bytes:
        """Read past the page cache."""
        with _direct(self.node, os.O_RDONLY) as fd:
            return read_at(fd, offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Write past the page cache, then flush the disk's own cache."""
        with _direct(self.node, os.O_WRONLY) as fd:
            write_at(fd, offset, data)
            os.fsync(fd)


class _direct:
    """An O_DIRECT file descriptor of a block device."""

    def __init__(self, node: str, flags: int) -> None:
        self._node, self._flags = node, flags

    def __enter__(self) -> int:
        self._fd = os.open(self._node, self._flags | os.O_DIRECT | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def open_direct(node: str, flags: int) -> _direct:
    """`with open_direct("/dev/sda", os.O_RDWR) as fd`."""
    return _direct(node, flags)


def read_at(fd: int, offset: int, size: int, chunk: int = 1 << 20) -> bytes:
    """`size` bytes from `offset`, in transfers of at most `chunk`; O_DIRECT wants page-aligned memory."""
    import mmap

    parts = []
    with mmap.mmap(-1, min(size, chunk)) as memory:
        while size:
            view = memoryview(memory)[: min(size, chunk)]
            count = os.preadv(fd, [view], offset)
            assert count > 0, f"read at {offset} gives nothing"
            parts.append(bytes(view[:count]))
            view.release()
            offset += count
            size -= count
    return b"".join(parts)


def write_at(fd: int, offset: int, data: bytes, chunk: int = 1 << 20) -> None:
    """Write `data` at `offset`, in transfers of at most `chunk` bytes."""
    import mmap

    with mmap.mmap(-1, min(len(data), chunk)) as memory:
        for start in range(0, len(data), chunk):
            piece = data[start : start + chunk]
            memory[: len(piece)] = piece
            view = memoryview(memory)[: len(piece)]
            count = os.pwritev(fd, [view], offset + start)
            view.release()
            assert count == len(piece), f"write at {offset + start}: {count} of {len(piece)} bytes"
