"""Machine profiles (`qemu/machines/*.toml`) and the QEMU command line made from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from hba.adapters.types import QemuDevice
from hba.errors import ConfigError, WrongUsage
from hba.lab import paths
from hba.lab.agent import PORT_NAME
from hba.lab.qemu import Qemu
from hba.terminal.suggest import did_you_mean


@dataclass(frozen=True)
class Profile:
    """One kind of machine."""

    name: str
    title: str
    machine: str  # QEMU's -machine type
    cpu: str
    bus: str  # the bus the HBA goes on
    shared_memory: bool = True  # false: QEMU keeps the RAM to itself, and every DMA is a message


def profiles() -> list[str]:
    """Names of the machine profiles there are."""
    return sorted(path.stem for path in (paths.QEMU / "machines").glob("*.toml"))


def load(name: str) -> Profile:
    """The profile `name`; `WrongUsage` when there is none, `ConfigError` when it is not complete."""
    path = paths.QEMU / "machines" / f"{name}.toml"
    known = profiles()
    if name not in known:
        raise WrongUsage(
            f"--machine {name}: there is no such profile{did_you_mean(name, known)}; there are: {', '.join(known)}"
        )
    try:
        return Profile(name, **tomli.loads(path.read_text()))
    except (tomli.TOMLDecodeError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Boot:
    """What a guest of ours is started with; see `image`, `kernel`, `initramfs`."""

    kernel: Path
    initrd: Path
    root: Path  # erofs images
    modules: Path
    append: str = ""


@dataclass(frozen=True)
class Sockets:
    """The sockets and files QEMU makes, all below one private folder."""

    folder: Path

    @property
    def monitor(self) -> Path:
        return self.folder / "qmp.sock"

    @property
    def serial(self) -> Path:
        return self.folder / "serial.sock"

    @property
    def agent(self) -> Path:
        return self.folder / "agent.sock"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    @property
    def firmware_log(self) -> Path:
        return self.folder / "firmware.log"

    def remove(self) -> None:
        """Take away what an earlier QEMU left, so that what is there is the next one's."""
        for path in (self.monitor, self.serial, self.agent, self.console_log, self.firmware_log):
            path.unlink(missing_ok=True)


def command_line(
    qemu: Qemu,
    profile: Profile,
    sockets: Sockets,
    *,
    boot: Boot | None,
    memory_mib: int,
    cpus: int,
    accelerator: str,
    devices: Sequence[str],
) -> list[str]:
    """QEMU's whole command line.

    Guest memory is a shared memfd, which a vfio-user server can map, unless the profile keeps it private. Without
    `boot` the firmware starts whatever the devices offer.
    """
    # Only KVM can run the host's own CPU model.
    cpu = "host" if accelerator == "kvm" else profile.cpu
    # Never memfd with share=off: QEMU hands its descriptor out, but keeps the guest's pages in a private copy.
    memory = "memory-backend-memfd,share=on" if profile.shared_memory else "memory-backend-ram"
    line = [
        *qemu.argv,
        # Its process is called so: one that is started through a dynamic loader would be called as that is.
        *(
            "-name",
            "hba-lab,process=qemu-system-x86",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-accel", accelerator, "-cpu", cpu, "-smp", str(cpus), "-m", f"{memory_mib}M"),
        *("-object", f"{memory},id=mem,size={memory_mib}M"),
        *("-machine", f"{profile.machine},memory-backend=mem"),
        *("-chardev", f"socket,id=qmp,path={_escaped(sockets.monitor)},server=on,wait=off"),
        *("-qmp", "chardev:qmp"),
        "-chardev",
        f"socket,id=serial,path={_escaped(sockets.serial)},server=on,wait=off,logfile={_escaped(sockets.console_log)}",
        *("-serial", "chardev:serial"),
        *("-chardev", f"file,id=firmware,path={_escaped(sockets.firmware_log)}"),
        *("-device", "isa-debugcon,iobase=0x402,chardev=firmware"),
    ]
    if boot is not None:
        words = f"console=ttyS0 panic=-1 {boot.append}".strip()
        line += ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", words]
        for name, image in (("root", boot.root), ("modules", boot.modules)):
            line += ["-blockdev", _read_only_file(name, image)]
            line += ["-device", f"virtio-blk-pci,drive={name},serial=lab-{name}"]
        line += [
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={_escaped(sockets.agent)},server=on,wait=off"),
            *("-device", f"virtserialport,chardev=agent,name={PORT_NAME}"),
            *("-device", "virtio-rng-pci"),
        ]
    for device in devices:
        line += device.split(" ", 1) if device.startswith("-") else ["-device", device]
    return line


def _escaped(path: Path) -> str:
    """A path inside a comma-separated option."""
    return str(path).replace(",", ",,")


def _read_only_file(node: str, path: Path) -> str:
    return json.dumps(
        {"driver": "raw", "node-name": node, "read-only": True, "file": {"driver": "file", "filename": str(path)}}
    )


def vfio_user_device(
    profile: Profile, socket: Path, *, number: int, boot_index: int | None, posted_writes: bool
) -> str:
    """The `-device` argument that attaches a vfio-user server."""
    device: dict[str, Any] = {
        "driver": "vfio-user-pci",
        "id": f"hba{number}",
        "bus": profile.bus,
        "socket": {"type": "unix", "path": str(socket)},
    }
    if boot_index is not None:
        device["bootindex"] = boot_index
    if not posted_writes:
        device["x-no-posted-writes"] = True
    return json.dumps(device)


def builtin(
    profile: Profile, device: QemuDevice, disk: Path, serial: str, *, boot_index: int | None, name: str = "hba0"
) -> list[str]:
    """The arguments that attach QEMU's own model of an HBA with one disk: the peer to hold our device against. `name`:
    of the device, where the machine has ours besides.
    """
    node = {
        "driver": "raw",
        "node-name": f"disk-{name}",
        "file": {"driver": "file", "filename": str(disk), "cache": {"direct": False}},
    }
    disk_device: dict[str, Any] = {"driver": "scsi-hd", "bus": f"{name}.0", "drive": f"disk-{name}", "serial": serial}
    if boot_index is not None:
        disk_device["bootindex"] = boot_index
    return [
        "-blockdev " + json.dumps(node),
        json.dumps({"driver": device.driver, "id": name, "bus": profile.bus}),
        json.dumps(disk_device),
    ]


def arguments(given: Sequence[str]) -> tuple[str, ...]:
    """The user's own QEMU arguments, as `command_line` takes devices: an option and its value in one string."""
    found: list[str] = []
    for word in given:
        if word.startswith("-") or not found:
            found.append(word)
        else:
            found[-1] += f" {word}"
    return tuple(found)
