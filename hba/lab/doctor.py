"""What of the lab's needs this machine has: for `hba doctor`. Looks, and installs or makes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hba.errors import HbaError
from hba.lab import cache, debian, image, kernel, kvm, paths, qemu
from hba.lab.progress import Progress

State = Literal["good", "limited", "missing"]
GOOD: State = "good"
LIMITED: State = "limited"  # works without, or will be made when needed
MISSING: State = "missing"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    next_step: str = ""  # what to do; empty when there is nothing to do


def examine() -> list[Check]:
    """Everything the lab needs, tried; takes a second or so."""
    return list(checks())


def checks() -> Iterator[Check]:
    """The same, one at a time."""
    try:
        paths.require_tree()
    except HbaError as error:
        yield Check("source tree", MISSING, str(paths.PROJECT), str(error))
        return
    store = cache.Cache(Progress())
    tools, missing_tools = _tools()
    yield tools
    yield _mirror()
    found, check = _qemu(store, can_unpack=not missing_tools)
    yield check
    yield _kvm(found, store)
    yield _shared_memory()
    yield _image(store, can_make=not missing_tools)


def _tools() -> tuple[Check, list[str]]:
    wanted = ["mmdebstrap", "mkfs.erofs", "depmod", "tar", "dpkg-deb"]
    if os.geteuid() != 0:
        wanted.append("newuidmap")
    missing = [name for name in wanted if debian.find_tool(name) is None]
    if not missing:
        return Check("guest image tools", GOOD, ", ".join(wanted)), []
    packages = " ".join(sorted({debian.package_of(name) for name in missing}))
    next_step = f"sudo apt-get install -y {packages}"
    if os.geteuid() == 0:
        next_step = f"scripts/launch installs them; or: apt-get install -y {packages}"
        return Check("guest image tools", LIMITED, f"missing: {', '.join(missing)}", next_step), []
    return Check("guest image tools", MISSING, f"missing: {', '.join(missing)}", next_step), missing


def _mirror() -> Check:
    try:
        return Check("Debian mirror", GOOD, debian.host_mirror().uri)
    except HbaError as error:
        return Check("Debian mirror", MISSING, "none", str(error))


def _qemu(store: cache.Cache, can_unpack: bool) -> tuple[qemu.Qemu | None, Check]:
    name = "QEMU with vfio-user"
    try:
        installed, problems = qemu.find_installed()
    except HbaError as error:
        return None, Check(name, MISSING, str(error))
    found = installed or qemu.find_private(store)
    if found is not None:
        return found, Check(name, GOOD, f"{found.version()}, {found.source}")
    why = "; ".join(problems)
    if can_unpack:
        return None, Check(name, LIMITED, why, "scripts/launch unpacks one below the cache folder")
    return None, Check(name, MISSING, why, f"{qemu.INSTALL}, or the guest image tools")


def _kvm(found: qemu.Qemu | None, store: cache.Cache) -> Check:
    """Tried anew, whatever was found earlier: this is where one looks after having mended it."""
    emulated = "guests are emulated: slower, and good enough"
    if (problem := kvm.unusable()) is not None:
        return Check("KVM", LIMITED, problem, emulated)
    if found is None:
        return Check("KVM", LIMITED, f"{kvm.DEVICE} opens; not tried: no QEMU yet", "scripts/launch tries it")
    linux = kernel.cached(image.recipe(), store)
    if linux is None:
        return Check("KVM", LIMITED, f"{kvm.DEVICE} opens; not tried: no guest kernel yet", "scripts/launch tries it")
    problem = kvm.boot(found, linux.image)
    kvm.Answers(store, found).keep(problem)
    if problem is None:
        return Check("KVM", GOOD, f"runs Linux {linux.release}")
    return Check("KVM", LIMITED, f"{kvm.DEVICE} opens, but runs no Linux kernel: {problem}", emulated)


def _shared_memory() -> Check:
    try:
        os.close(os.memfd_create("hba-doctor"))
    except OSError as error:
        return Check("memfd", MISSING, error.strerror or "refused", "the guest's memory needs memfd_create(2)")
    return Check("memfd", GOOD, "guest memory can be shared")


def _image(store: cache.Cache, can_make: bool) -> Check:
    recipe = image.recipe()
    path: Path = store.path(image.entry(recipe))
    kernels = sorted(entry.name.split("-")[1] for entry in store.root.glob("kernel-*") if entry.is_dir())
    if path.exists():
        return Check("guest image", GOOD, f"{path}, kernels: {', '.join(kernels) or 'none yet'}")
    state: State = LIMITED if can_make else MISSING
    return Check("guest image", state, f"not made yet (in {store.root})", "scripts/launch makes it, in about a minute")
