"""A Linux kernel for the guest: downloaded from Debian or the user's own, with the modules the lab needs.

Nothing is installed: packages are downloaded with a private apt, unpacked, and a subset of the modules, without
compression, goes into a read-only image that the guest mounts over /usr/lib/modules.
"""

from __future__ import annotations

import fnmatch
import lzma
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hba.errors import HbaError, WrongUsage
from hba.lab import debian, process
from hba.lab.cache import Cache, key_of
from hba.lab.progress import Step
from hba.terminal.files import is_file

_FLAVOUR = re.compile(r"-(rt|cloud|unsigned|dbg)\b")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Kernel:
    """What QEMU loads and the guest mounts."""

    release: str  # `uname -r`
    image: Path  # vmlinuz
    modules: Path  # an erofs image with the tree of /usr/lib/modules
    boot_modules: Path  # a folder with the modules stage 0 loads, in the order of the file `order` in it


def find(wanted: str, recipe: dict[str, Any], cache: Cache, modules_dir: Path | None = None) -> Kernel:
    """The kernel for `--kernel wanted`.

    `wanted` is a path to a vmlinuz (its modules are in `modules_dir`, or, failing that, in
    `/lib/modules/RELEASE` of the host), a release such as `6.12.107+deb13-amd64`, or the beginning of one such
    as `6.12`, of which the newest is taken. A release that is in the cache is not looked for elsewhere.
    """
    if "/" in wanted or is_file(wanted):
        return _users_own(Path(wanted), modules_dir, recipe, cache)
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+~-]*", wanted):
        raise WrongUsage(f"--kernel {wanted}: neither a file nor a kernel version such as 6.12 or 6.12.107+deb13-amd64")
    key = key_of(repr(recipe["modules"]))
    if not (matching := matching_releases(wanted, _cached_releases(cache, key))):
        return _from_debian(wanted, recipe, cache, key)
    return _load(cache.path(f"kernel-{matching[-1]}-{key}"))


def cached(recipe: dict[str, Any], cache: Cache) -> Kernel | None:
    """A kernel that is in the cache, one of the recipe's default version before others; None when there is none."""
    releases = sorted(_cached_releases(cache, key := key_of(repr(recipe["modules"]))), key=_version_key)
    preferred = matching_releases(recipe["kernel"]["default"], releases)
    found = preferred or releases
    return _load(cache.path(f"kernel-{found[-1]}-{key}")) if found else None


def _cached_releases(cache: Cache, key: str) -> list[str]:
    names = [path.name for path in cache.root.glob(f"kernel-*-{key}") if path.is_dir()]
    return [name.removeprefix("kernel-").removesuffix(f"-{key}") for name in names]


def matching_releases(wanted: str, releases: Iterable[str]) -> list[str]:
    """Those of `releases` that are `wanted` or begin with it at a version boundary, the newest last.

    >>> matching_releases("6.1", ["6.12.9-amd64", "6.1.0-50-amd64", "6.1.0-9-amd64"])
    ['6.1.0-9-amd64', '6.1.0-50-amd64']
    """
    boundary = re.compile(re.escape(wanted) + r"(?![0-9])")
    chosen = [release for release in releases if boundary.match(release)]
    if not _FLAVOUR.search(wanted):
        chosen = [release for release in chosen if not _FLAVOUR.search(release)]
    return sorted(chosen, key=_version_key)


def _version_key(release: str) -> list[tuple[int, str]]:
    return [(int(number or 0), text) for number, text in re.findall(r"([0-9]+)|([^0-9]+)", release)]


def _from_debian(wanted: str, recipe: dict[str, Any], cache: Cache, key: str) -> Kernel:
    debian.ensure_tools(["depmod", "mkfs.erofs", "dpkg-deb"])
    mirror = debian.host_mirror()
    # The package lists are big and soon old: they go when the kernel is there.
    with tempfile.TemporaryDirectory(dir=cache.root, prefix=".packages-") as folder:
        index = debian.PackageIndex(Path(folder), mirror, recipe["kernel"]["suites"])
        with cache.progress.step(f"looking for kernel {wanted} in Debian") as step:
            index.refresh(step)
            names = index.names(r"^linux-image-[0-9].*-amd64$")
        return _download(wanted, names, index, recipe, cache, key)


def _download(
    wanted: str, names: list[str], index: debian.PackageIndex, recipe: dict[str, Any], cache: Cache, key: str
) -> Kernel:
    releases = [name.removeprefix("linux-image-") for name in names]
    matching = matching_releases(wanted, releases)
    if not matching:
        newest = sorted((r for r in releases if not _FLAVOUR.search(r)), key=_version_key)
        raise WrongUsage(
            f"--kernel {wanted}: the mirror has no such kernel in {', '.join(recipe['kernel']['suites'])}; "
            f"it has: {', '.join(newest) or 'none'}"
        )
    release = matching[-1]

    def build(folder: Path, step: Step) -> None:
        packages = [f"linux-image-{release}"]
        # From 6.19 on the kernel is several packages: the image depends on linux-binary-* and linux-modules-*.
        packages += [
            name for name in index.depends(packages[0]) if re.match(r"linux-(binary|modules|base)-[0-9]", name)
        ]
        step.update(f"downloading {' '.join(packages)}")
        files = index.download(packages, folder / "packages", step)
        unpacked = folder / "unpacked"
        for file in files:
            step.update(f"unpacking {file.name}")
            process.run([debian.tool("dpkg-deb"), "-x", file, unpacked])
        images = [*unpacked.glob("boot/vmlinuz-*"), *unpacked.glob("usr/lib/modules/*/vmlinuz")]
        if not images:
            raise HbaError(f"the packages {' '.join(packages)} hold no vmlinuz")
        tree = next(
            (p / release for p in (unpacked / "usr/lib/modules", unpacked / "lib/modules") if (p / release).is_dir()),
            None,
        )
        if tree is None:
            raise HbaError(f"the packages {' '.join(packages)} hold no modules for {release}")
        _finish(folder, release, images[0], tree, recipe["modules"], step)
        shutil.rmtree(folder / "packages")
        shutil.rmtree(unpacked)

    return _load(cache.entry(f"kernel-{release}-{key}", f"preparing kernel {release}", build))


def _users_own(image: Path, modules_dir: Path | None, recipe: dict[str, Any], cache: Cache) -> Kernel:
    if not is_file(image):
        raise WrongUsage(f"--kernel {image}: no such file; name a vmlinuz, or a version such as 6.12")
    release = release_of(image)
    tree = modules_dir or Path("/lib/modules") / release
    if (tree / release).is_dir():
        tree = tree / release
    if not (tree / "kernel").is_dir():
        raise WrongUsage(
            f"--kernel {image}: its release is {release}, and {tree} has no modules of it; "
            "name the folder that holds `kernel/` with --modules"
        )
    debian.ensure_tools(["depmod", "mkfs.erofs"])
    stamps = [f"{path}:{path.stat().st_mtime_ns}:{path.stat().st_size}" for path in (image, tree, tree / "kernel")]
    key = key_of(repr(recipe["modules"]), *stamps)

    def build(folder: Path, step: Step) -> None:
        _finish(folder, release, image, tree, recipe["modules"], step)

    return _load(cache.entry(f"own-kernel-{release}-{key}", f"preparing kernel {release}", build))


def release_of(image: Path) -> str:
    """The release string inside an x86 bzImage (Linux boot protocol: pointer at 0x20e, from 0x200)."""
    with image.open("rb") as file:
        head = file.read(0x10000)
    if len(head) < 0x210 or head[0x202:0x206] != b"HdrS":
        raise WrongUsage(f"--kernel {image}: no x86 Linux kernel; name a bzImage, as /boot/vmlinuz-* are")
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    text = head[start:].split(b"\0", 1)[0].split(b" ", 1)[0]
    if not re.fullmatch(rb"[0-9][0-9A-Za-z.+~_-]*", text):
        raise WrongUsage(f"--kernel {image}: it does not say its release; name a bzImage, as /boot/vmlinuz-* are")
    return text.decode()


def _load(folder: Path) -> Kernel:
    release = (folder / "release").read_text().strip()
    return Kernel(release, folder / "vmlinuz", folder / "modules.erofs", folder / "boot-modules")


def _finish(folder: Path, release: str, image: Path, tree: Path, recipe: dict[str, Any], step: Step) -> None:
    """Fill a cache entry from a vmlinuz and a module tree."""
    step.update("choosing modules")
    available = ModuleTree(tree)
    chosen = available.closure(available.matching(recipe["include"], recipe["exclude"]) + recipe["boot"])
    subset = folder / "modules" / release
    for path in chosen:
        target = subset / "kernel" / _uncompressed_name(path.relative_to(tree / "kernel"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(available.content(path))
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (tree / name).is_file():
            shutil.copyfile(tree / name, subset / name)
    step.update(f"indexing {len(chosen)} modules")
    # depmod looks below lib/modules of the folder it is given.
    (folder / "lib").mkdir()
    (folder / "lib" / "modules").symlink_to("../modules")
    process.run([debian.tool("depmod"), "-b", folder, release])
    shutil.rmtree(folder / "lib")
    step.update("making the module image")
    make_erofs(folder / "modules", folder / "modules.erofs")
    shutil.rmtree(folder / "modules")
    _write_boot_modules(folder / "boot-modules", available, recipe["boot"])
    shutil.copyfile(image, folder / "vmlinuz")
    (folder / "release").write_text(release + "\n")


def _write_boot_modules(folder: Path, available: ModuleTree, names: Sequence[str]) -> None:
    folder.mkdir()
    order = []
    for path in available.closure(names):
        name = _uncompressed_name(Path(path.name)).name
        (folder / name).write_bytes(available.content(path))
        order.append(name)
    (folder / "order").write_text("".join(name + "\n" for name in order))


class ModuleTree:
    """The modules below one `/lib/modules/RELEASE`, by name, with what each depends on."""

    def __init__(self, tree: Path) -> None:
        self._base = tree / "kernel"
        self._by_name = {_module_name(path): path for path in sorted(self._base.rglob("*.ko*")) if ".ko" in path.name}
        self._content: dict[Path, bytes] = {}

    def matching(self, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
        """Names of the modules whose path below kernel/ matches an include pattern and no exclude pattern."""
        names = []
        for name, path in self._by_name.items():
            relative = str(path.relative_to(self._base))
            wanted = any(fnmatch.fnmatch(relative, p) for p in include)
            if wanted and not any(fnmatch.fnmatch(relative, p) for p in exclude):
                names.append(name)
        return names

    def closure(self, names: Iterable[str]) -> list[Path]:
        """Files of `names` and all they depend on, each after its dependencies. Unknown names are built in."""
        ordered: dict[str, Path] = {}

        def add(name: str) -> None:
            name = name.replace("-", "_")
            path = self._by_name.get(name)
            if path is None or name in ordered:
                return
            for dependency in self._depends(path):
                add(dependency)
            ordered[name] = path

        for name in names:
            add(name)
        return list(ordered.values())

    def content(self, path: Path) -> bytes:
        """The module without its compression."""
        if path not in self._content:
            self._content[path] = _decompress(path)
        return self._content[path]

    def _depends(self, path: Path) -> Iterator[str]:
        match = _DEPENDS.search(self.content(path))
        if match is not None:
            yield from (name for name in match[1].decode().split(",") if name)


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _uncompressed_name(path: Path) -> Path:
    return path.with_name(path.name.split(".ko")[0] + ".ko")


def _decompress(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(raw)
    if path.suffix == ".gz":
        return zlib.decompress(raw, 31)
    if path.suffix == ".zst":
        return subprocess.run([debian.tool("zstd"), "-dcq", path], stdout=subprocess.PIPE, check=True).stdout
    return raw


def make_erofs(tree: Path, image: Path) -> None:
    """A read-only image of a folder, everything owned by root.

    File times stay: Python takes its compiled modules for stale when they change, and starts ten times slower.
    """
    process.run([debian.tool("mkfs.erofs"), "--quiet", "-x-1", "--preserve-mtime", "--all-root", image, tree])
    image.chmod(0o644)
