"""What serving an adapter needs of this machine, for `hba doctor`. What guests need is in `hba.lab.doctor`."""

from __future__ import annotations

import platform
import shutil
import sys

from hba import compiled
from hba.cli.adapters import running, understood
from hba.control.client import NobodyThere
from hba.errors import ControlError, EngineMissing, HbaError, StorageError
from hba.lab.doctor import GOOD, LIMITED, MISSING, Check
from hba.places import cache_root
from hba.runtime import ensure_runtime_dir
from hba.storage import libnbd
from hba.vfio_user.libvfio_user.find import find
from hba.visible import visible

CLEAN = "`hba ls --clean` removes the sockets of adapters that have ended"
SPACE_NEEDED = 3 << 30  # bytes: a private QEMU, a guest image, kernels, and room to make them


def examine() -> list[Check]:
    """Everything tried; nothing raises."""
    return [_python(), _compiled(), _runtime_folder(), *_adapters(), _space(), _libvfio_user(), _libnbd(), _udev()]


def _python() -> Check:
    return Check("python", GOOD, f"{platform.python_version()} ({sys.executable})")


def _compiled() -> Check:
    if compiled.in_use():
        return Check("compiled", GOOD, "the hot modules run as machine code")
    asked = " (HBA_PURE is set)" if compiled.source_wanted() else ""
    return Check("compiled", LIMITED, f"every module runs as Python source{asked}", "" if asked else "scripts/compile")


def _runtime_folder() -> Check:
    try:
        return Check("runtime folder", GOOD, str(ensure_runtime_dir()))
    except HbaError as error:
        return Check("runtime folder", MISSING, str(error))


def _adapters() -> list[Check]:
    """Those that run, and who has their sockets: a socket is one client's."""
    found: list[Check] = []
    try:
        clients, silent = running()
    except HbaError:
        return []  # the runtime folder's line says it
    for client in clients:
        with client:
            try:
                summary = client.call("show.summary")
                with understood(client):
                    taken = f"in use by {summary['client']}" if summary["client"] else "free"
                    name = f"{summary['name']} (pid {summary['pid']})"
                found.append(Check("adapter", GOOD, visible(f"{name}: its socket is {taken}")))
            except ControlError as error:
                silent.append((client.path, error))
    for _, why in silent:
        found.append(Check("adapter", LIMITED, visible(str(why)), CLEAN if isinstance(why, NobodyThere) else ""))
    return found


def _space() -> Check:
    folder = cache_root()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free >= SPACE_NEEDED:
        return Check("disk space", GOOD, found)
    step = f"about {SPACE_NEEDED >> 30} GiB are needed for QEMU and guest images; set HBA_CACHE to another disk"
    return Check("disk space", LIMITED, found, step)


def _libvfio_user() -> Check:
    try:
        found = find()
    except EngineMissing as error:
        return Check("libvfio-user", LIMITED, 'engine = "libvfio-user" does not work; "native" does', str(error))
    return Check("libvfio-user", GOOD, found.told)


def _libnbd() -> Check:
    try:
        libnbd.load()
    except StorageError as error:
        return Check("libnbd", LIMITED, 'storage with kind = "nbd" does not work', str(error))
    return Check("libnbd", GOOD, 'storage with kind = "nbd" works')


def _udev() -> Check:
    try:
        import pyudev

        pyudev.Context()  # loads libudev
    except (ImportError, OSError) as error:
        return Check("udev", LIMITED, str(error), 'apt-get install libudev1, for storage with kind = "host"')
    return Check("udev", GOOD, "host devices can be watched")
