"""The hot modules as machine code, made by `scripts/compile` from the very same source, and used where they are there.

They lie in the cache, in a folder whose name is made from their source and the interpreter: what has changed since is
run as source until it is compiled again. `HBA_PURE=1` runs the source in any case.
There is no other implementation of anything.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from hba.places import cache_root

PURE = "HBA_PURE"
GROUP = "hba_native"  # the shared part of all compiled modules, a module beside them
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
_PACKAGE = Path(__file__).parent.parent
# What is compiled: these packages, but for modules that declare data (msgspec structures lose their keywords) and
# classes whose members are made at run time (an extended SRB).
PACKAGES = ("port", "port/scsiport", "port/storport", "instruments/trace", "instruments/verifier")
MODULES = (
    "dma.py",
    "srb.py",
    "pci/memory.py",
    "miniport/chip.py",
    "miniport/proxy.py",
    "miniport/windows.py",
    "miniport/dma.py",
    "port/library/common.py",
    "scsi/plan.py",
    "adapters/adapter.py",
    "adapters/traffic.py",
    "trace/recorder.py",
    "trace/words.py",
    "loop.py",
    "pci/bars.py",
    "pci/registers.py",
    "scsi/bus.py",
    "scsi/task.py",
    "storage/transfer.py",
    "vfio_user/framing.py",
)
OF_ADAPTERS = (  # in the folder of each, and of what those with rings share
    "access.py",
    "adapter.py",
    "announce.py",
    "commands.py",
    "completions.py",
    "hotplug.py",
    "inflight.py",
    "look.py",
    "messages.py",
    "moderation.py",
    "pages.py",
    "rings.py",
    "scatter.py",
    "turn.py",
    "verifier.py",
    "watch.py",
    "watcher.py",
)
LEFT_OUT = frozenset({"__init__.py", "config.py", "extended.py", "extension.py"})


def sources() -> list[Path]:
    """The source of all modules that are compiled."""
    whole = [path for package in PACKAGES for path in (_PACKAGE / package).glob("*.py") if path.name not in LEFT_OUT]
    adapters = [path for path in (_PACKAGE / "adapters").glob("*/*.py") if path.name in OF_ADAPTERS]
    return sorted([*whole, *adapters, *(_PACKAGE / module for module in MODULES)])


def module_name(source: Path) -> str:
    return ".".join(("hba", *source.relative_to(_PACKAGE).with_suffix("").parts))


def folder() -> Path:
    """Where the modules made from this source by this interpreter are, or would be."""
    digest = hashlib.sha256(f"{SUFFIX} {sys.version}".encode())
    for source in sources():
        digest.update(module_name(source).encode() + source.read_bytes())
    return cache_root() / "compiled" / digest.hexdigest()[:16]


class _Finder(MetaPathFinder):
    """Finds the compiled form of a module before its source is looked for."""

    def __init__(self, where: Path, names: frozenset[str]) -> None:
        self._where = where
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        file = self._where.joinpath(*fullname.split(".")).with_name(fullname.rpartition(".")[2] + SUFFIX)
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def _ours(where: Path) -> bool:
    """Code is only taken from folders nobody else can write to."""
    try:
        found = where.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def source_wanted() -> bool:
    return os.environ.get(PURE, "") not in ("", "0")


def use() -> bool:
    """Have the compiled modules imported from now on, if they are there and nobody asked for the source."""
    if source_wanted():
        return False
    try:
        where = folder()
    except OSError:
        return False  # no source: a package that was built somewhere else
    if not _ours(where):
        return False
    names = {module_name(source) for source in sources()} | {f"{GROUP}__mypyc"}
    sys.meta_path.insert(0, _Finder(where, frozenset(names)))
    return True


def in_use() -> bool:
    """Whether the port's way is machine code in this process."""
    found = find_spec("hba.port.ledger")
    return found is not None and not str(found.origin).endswith(".py")
