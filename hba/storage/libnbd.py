"""Finding libnbd's Python binding.

Debian has it as the package python3-libnbd, which installs for Debian's own Python only: a virtual environment does
not look there. Its extension module works in any CPython of the same version and ABI, so it is loaded from there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hba.errors import StorageError

DEBIAN = Path("/usr/lib/python3/dist-packages")


def load(directory: Path = DEBIAN) -> Any:
    """The module `nbd`. Raises `StorageError` that names the package to install, or what does not match."""
    try:
        return importlib.import_module("nbd")
    except ImportError:
        pass
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    extension = directory / f"libnbdmod{suffix}"
    others = sorted(path.name for path in directory.glob("libnbdmod.*.so"))
    if not extension.exists():
        if others:
            raise StorageError(
                f"NBD needs libnbd's Python binding, and {directory} has it only for another Python ({others[0]}; "
                f"this one needs libnbdmod{suffix}); run hba with the system's Python (/usr/bin/python3)"
            )
        raise StorageError(
            "NBD needs libnbd's Python binding; install it with `apt-get install python3-libnbd` (Debian, Ubuntu)"
        )
    try:
        _load("libnbdmod", extension)
        return _load("nbd", directory / "nbd.py")
    except (ImportError, OSError) as problem:
        raise StorageError(
            f"libnbd's Python binding in {directory} cannot be loaded ({problem}); "
            "reinstall it with `apt-get install --reinstall python3-libnbd`"
        ) from None


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
