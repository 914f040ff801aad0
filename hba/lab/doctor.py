"""What this machine has for serving adapters and running guests: each thing tried, with what to do if it is not there."""

from __future__ import annotations

import fcntl
import importlib.util
import mmap
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hba.errors import HbaError
from hba.lab import accelerator, debian
from hba.lab import qemu as qemus
from hba.lab.cache import Cache, default_root
from hba.lab.progress import Progress
from hba.lab.qemu import Qemu
from hba.runtime import ensure_runtime_dir

GOOD = "good"
LIMITED = "limited"  # goes on without, slower or with less
MISSING = "missing"  # needed

SPACE_NEEDED = 3 << 30  # bytes: a private QEMU, a guest image, kernels, and room to make them
_KVM_CREATE_VM = 0xAE01  # _IO(KVMIO, 0x01), linux/kvm.h


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    state: str
    found: str
    next_step: str = ""


def examine() -> list[Finding]:
    """All checks. One that breaks is reported as missing with its error, and the others go on."""
    qemu, found = _qemu()
    checks: list[Callable[[], Finding]] = [
        _python,
        _memfd,
        _runtime_folder,
        lambda: found,
        lambda: _kvm(qemu),
        lambda: _tool("mmdebstrap", "unpacks guest images and a private QEMU"),
        lambda: _tool("mkfs.erofs", "makes guest images"),
        lambda: _tool("depmod", "prepares a guest's kernel modules"),
        _space,
        _libnbd,
        _pyudev,
    ]
    return [_guarded(check) for check in checks]


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except (OSError, HbaError) as error:
        return Finding(getattr(check, "__name__", "check").strip("_"), MISSING, str(error))


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= (3, 11):
        return Finding("python", GOOD, f"{version} ({sys.executable})")
    return Finding("python", MISSING, version, "use Python 3.11 or later")


def _memfd() -> Finding:
    """Guest RAM is shared with us as a memfd: make one and map it."""
    fd = os.memfd_create("hba-doctor", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as page:
            page[0] = 1
    except OSError as error:
        return Finding("memfd", MISSING, str(error), "guest RAM cannot be shared here: check the sandbox's limits")
    finally:
        os.close(fd)
    return Finding("memfd", GOOD, "guest RAM can be shared")


def _runtime_folder() -> Finding:
    return Finding("runtime folder", GOOD, str(ensure_runtime_dir()))


def _qemu() -> tuple[Qemu | None, Finding]:
    name = "qemu"
    try:
        qemu, problems = qemus.find_installed()
        if qemu is None and default_root().is_dir():
            qemu = qemus.find_private(Cache(Progress()))
    except HbaError as error:
        return None, Finding(name, MISSING, str(error), "correct or unset HBA_QEMU")
    if qemu is not None:
        return qemu, Finding(name, GOOD, f"{qemu.version()} with {qemus.DEVICE}: {qemu.source}")
    why = "; ".join(problems)
    if debian.find_tool("apt-get") is not None:
        step = "the first scripts/launch unpacks a private one; nothing is installed"
        return None, Finding(name, LIMITED, f"none with {qemus.DEVICE} ({why})", step)
    return None, Finding(name, MISSING, why, "install QEMU 10.1 or later, or set HBA_QEMU to one")


def _kvm(qemu: Qemu | None) -> Finding:
    """Make a virtual machine, and run code in it if there is a QEMU: the device may be there and run nothing."""
    slower = "guests run emulated, about ten times slower"
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Finding("kvm", LIMITED, "there is no /dev/kvm", f"{slower}; enable virtualisation, or go on without")
    except OSError as error:
        return Finding("kvm", LIMITED, f"/dev/kvm: {error.strerror}", f"{slower}; join the group kvm")
    try:
        os.close(fcntl.ioctl(fd, _KVM_CREATE_VM, 0))
    except OSError as error:
        return Finding("kvm", LIMITED, f"/dev/kvm is there but makes no machine: {error.strerror}", slower)
    finally:
        os.close(fd)
    if qemu is None:
        return Finding("kvm", GOOD, "makes a machine (running code in it was not tried: no QEMU)")
    problem = accelerator.kvm_problem(qemu)
    if problem is not None:
        return Finding("kvm", LIMITED, f"makes a machine, but {problem}", slower)
    return Finding("kvm", GOOD, "runs code")


def _tool(name: str, what_for: str) -> Finding:
    if (path := debian.find_tool(name)) is not None:
        return Finding(name, GOOD, path)
    package = debian.PACKAGE_OF.get(name, name)
    command = f"apt-get install {package}"
    if os.geteuid() == 0:
        return Finding(name, LIMITED, f"not installed; {what_for}", f"scripts/launch installs it, or run: {command}")
    return Finding(name, MISSING, f"not installed; {what_for}", f"run: sudo {command}")


def _space() -> Finding:
    folder = default_root()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free >= SPACE_NEEDED:
        return Finding("disk space", GOOD, found)
    step = f"about {SPACE_NEEDED >> 30} GiB are needed for QEMU and guest images; set HBA_CACHE to another disk"
    return Finding("disk space", MISSING, found, step)


def _libnbd() -> Finding:
    if importlib.util.find_spec("nbd") is not None:
        return Finding("libnbd", GOOD, "storage by NBD works")
    step = "apt-get install python3-libnbd, and a virtual environment with --system-site-packages"
    return Finding("libnbd", LIMITED, 'no Python binding; storage with kind = "nbd" does not work', step)


def _pyudev() -> Finding:
    """libudev is loaded when pyudev is first used."""
    try:
        import pyudev

        pyudev.Context()
    except (ImportError, OSError) as error:
        step = 'apt-get install libudev1; host devices (kind = "host") are not watched without'
        return Finding("udev", LIMITED, str(error), step)
    return Finding("udev", GOOD, "host devices can be watched")
