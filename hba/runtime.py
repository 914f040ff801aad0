"""Where running adapters leave their sockets: one private folder per user.

`$HBA_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/hba`, else `/tmp/hba-<uid>`. For an adapter NAME it holds `NAME.sock`
(vfio-user, unless the configuration says another path) and `NAME.ctl` (the control socket).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hba.errors import PermissionDenied


def runtime_dir() -> Path:
    """The folder by environment; not created, not checked."""
    if explicit := os.environ.get("HBA_RUNTIME_DIR"):
        return Path(explicit).absolute()
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(xdg).absolute() / "hba"
    return Path(f"/tmp/hba-{os.getuid()}")


def ensure_runtime_dir() -> Path:
    """The folder, made with mode 0700 when missing.

    Raises `PermissionDenied` unless it is ours alone: others could otherwise put their sockets in place of ours.
    """
    path = runtime_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise PermissionDenied(
            f"the runtime folder {path} cannot be made ({error.strerror}); set HBA_RUNTIME_DIR to one that can"
        ) from error
    _check(path, status)
    return path


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionDenied(f"the runtime folder {path} is not a folder; remove it, or set HBA_RUNTIME_DIR")
    if status.st_uid != os.getuid():
        raise PermissionDenied(
            f"the runtime folder {path} belongs to user {status.st_uid}; set HBA_RUNTIME_DIR to one of your own"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise PermissionDenied(f"the runtime folder {path} is open to others (mode {mode:o}); run: chmod 700 {path}")


def control_path(name: str) -> Path:
    """The control socket of the adapter `name`."""
    return runtime_dir() / f"{name}.ctl"


def control_sockets() -> list[Path]:
    """The control sockets there are, by name; those of dead servers included. None when the folder is missing.

    Raises `PermissionDenied` for a folder that a server would refuse: what is in there may be anybody's.
    """
    path = runtime_dir()
    try:
        _check(path, path.lstat())
        return sorted(entry for entry in path.iterdir() if entry.suffix == ".ctl" and entry.is_socket())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PermissionDenied(
            f"the runtime folder {path} cannot be read ({error.strerror}); set HBA_RUNTIME_DIR to one that can"
        ) from error
