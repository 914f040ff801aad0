"""What serving an adapter needs of this machine, for `hba doctor`. What guests need is in `hba.lab.doctor`."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import shutil
import sys

from hba.errors import HbaError
from hba.lab.cache import default_root
from hba.lab.doctor import GOOD, LIMITED, MISSING, Check
from hba.runtime import ensure_runtime_dir

SPACE_NEEDED = 3 << 30  # bytes: a private QEMU, a guest image, kernels, and room to make them
_KVM_CREATE_VM = 0xAE01  # _IO(KVMIO, 0x01), linux/kvm.h


def examine() -> list[Check]:
    """Everything tried; nothing raises."""
    return [_python(), _runtime_folder(), _kvm_device(), _space(), _libnbd(), _udev()]


def _python() -> Check:
    return Check("python", GOOD, f"{platform.python_version()} ({sys.executable})")


def _runtime_folder() -> Check:
    try:
        return Check("runtime folder", GOOD, str(ensure_runtime_dir()))
    except HbaError as error:
        return Check("runtime folder", MISSING, str(error))


def _kvm_device() -> Check:
    """Make a virtual machine. That it also runs code is for the lab to try, with a QEMU."""
    name = "/dev/kvm"
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Check(name, LIMITED, "not there: no virtualisation, or no kvm module", "go on without, or enable it")
    except OSError as error:
        return Check(name, LIMITED, error.strerror or "cannot be opened", "join the group kvm, or go on without")
    try:
        os.close(fcntl.ioctl(fd, _KVM_CREATE_VM, 0))
    except OSError as error:
        return Check(name, LIMITED, f"there, but makes no machine: {error.strerror}", "guests are emulated")
    finally:
        os.close(fd)
    return Check(name, GOOD, "makes a machine")


def _space() -> Check:
    folder = default_root()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free >= SPACE_NEEDED:
        return Check("disk space", GOOD, found)
    step = f"about {SPACE_NEEDED >> 30} GiB are needed for QEMU and guest images; set HBA_CACHE to another disk"
    return Check("disk space", LIMITED, found, step)


def _libnbd() -> Check:
    if importlib.util.find_spec("nbd") is not None:
        return Check("libnbd", GOOD, 'storage with kind = "nbd" works')
    step = "apt-get install python3-libnbd, and a virtual environment with --system-site-packages"
    return Check("libnbd", LIMITED, 'no Python binding: storage with kind = "nbd" does not work', step)


def _udev() -> Check:
    try:
        import pyudev

        pyudev.Context()  # loads libudev
    except (ImportError, OSError) as error:
        return Check("udev", LIMITED, str(error), 'apt-get install libudev1, for storage with kind = "host"')
    return Check("udev", GOOD, "host devices can be watched")
