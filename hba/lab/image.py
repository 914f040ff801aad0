"""The guest's root file system: a small Debian tree in a read-only image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tomli

from hba.lab import debian, kernel, paths
from hba.lab.cache import Cache, key_of
from hba.lab.progress import Step


def recipe() -> dict[str, Any]:
    """The guest's recipe, `qemu/guest.toml`."""
    return tomli.loads((paths.QEMU / "guest.toml").read_text())


def entry(recipe: dict[str, Any]) -> str:
    """Name of the image's cache entry."""
    return f"guest-{recipe['root']['suite']}-{key_of(repr(recipe['root']))}"


def find(recipe: dict[str, Any], cache: Cache) -> Path:
    """The cache entry with `root.erofs` and `busybox`; made when it is not there (about a minute)."""
    root = recipe["root"]
    name = entry(recipe)
    if cache.path(name).exists():
        return cache.path(name)
    debian.ensure_tools(["mmdebstrap", "mkfs.erofs", "tar"])
    mirror = debian.host_mirror()

    def build(folder: Path, step: Step) -> None:
        tree = folder / "root"
        debian.unpack_tree(
            tree,
            mirror=mirror,
            suites=[root["suite"]],
            packages=root["packages"],
            variant="minbase",
            exclude=root["exclude"],
            keep=root["keep"],
            step=step,
        )
        for mount_point in ("dev", "proc", "sys", "run", "tmp", "usr/lib/modules"):
            (tree / mount_point).mkdir(exist_ok=True)
        shutil.copy(tree / "usr/bin/busybox", folder / "busybox")
        step.update("making the image")
        kernel.make_erofs(tree, folder / "root.erofs")
        shutil.rmtree(tree)

    return cache.entry(name, "making the guest image", build)
