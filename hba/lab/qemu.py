"""A QEMU that can be a vfio-user client: the user's, the system's, or one unpacked privately.

QEMU has `vfio-user-pci` since 10.1. A distribution that ships an older one keeps it: the newer one is unpacked
below the cache folder with its own libraries and started through its own dynamic loader, so nothing is
installed and nothing is mixed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli

from hba.errors import HbaError, QemuNotFound, StorageError
from hba.lab import debian, paths
from hba.lab.cache import Cache, key_of
from hba.terminal.telling import tell

BINARY = "qemu-system-x86_64"
DEVICE = "vfio-user-pci"
SINCE = (10, 1)
INSTALL = "install QEMU 10.1 or later built with vfio-user"


@dataclass(frozen=True)
class Qemu:
    """How to start a QEMU: `argv` before any argument of ours, `env` beside our own environment."""

    argv: tuple[str, ...]
    source: str  # where it came from, for people
    env: Mapping[str, str] = field(default_factory=dict)

    def version(self) -> str:
        """What `--version` says, e.g. `11.1.3`."""
        answer = self._ask("--version")
        words = answer.stdout.split()
        return words[words.index("version") + 1] if "version" in words else "unknown"

    def lacks(self) -> str | None:
        """Why this QEMU cannot serve, or None when it can."""
        try:
            answer = self._ask("-device", f"{DEVICE},help")
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it does not start: {error}"
        if answer.returncode == 0 and "socket=" in answer.stdout:
            return None
        if "not a valid device model name" in answer.stderr:
            version = self.version()
            return f"QEMU {version} has no {DEVICE} ({_why_not(version)})"
        said = " ".join((answer.stderr or answer.stdout).split())[-300:] or f"exit code {answer.returncode}"
        return f"`-device {DEVICE},help` failed: {said}"

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *arguments],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def _why_not(version: str) -> str:
    """Why a QEMU of this version has no such device."""
    numbers = version.split(".")[:2]
    if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) >= SINCE:
        return "it was built without vfio-user"
    return "QEMU has it since 10.1"


def find_installed() -> tuple[Qemu | None, list[str]]:
    """`$HBA_QEMU`, else the one on PATH, when it can serve; and what was wrong with those that cannot.

    Raises `QemuNotFound` when `$HBA_QEMU` is set but cannot serve: then the user meant that one and no other.
    """
    if chosen := os.environ.get("HBA_QEMU"):
        path = shutil.which(chosen)
        if path is None:
            raise QemuNotFound(f"HBA_QEMU={chosen}: no such program; {INSTALL}, or unset HBA_QEMU")
        qemu = Qemu((path,), f"{path} (HBA_QEMU)")
        if why := qemu.lacks():
            raise QemuNotFound(f"HBA_QEMU={chosen}: {why}; {INSTALL}, or unset HBA_QEMU")
        return qemu, []
    path = shutil.which(BINARY)
    if path is None:
        return None, [f"{BINARY} is not on PATH"]
    qemu = Qemu((path,), path)
    if why := qemu.lacks():
        return None, [f"{path}: {why}"]
    return qemu, []


def private_entry() -> str:
    """Name of the private QEMU's cache entry, by its recipe."""
    return f"qemu-{key_of((paths.QEMU / 'qemu.toml').read_bytes())}"


def find_private(cache: Cache) -> Qemu | None:
    """The QEMU unpacked earlier, or None."""
    folder = cache.path(private_entry())
    return _in_tree(folder / "root") if folder.exists() else None


def find(cache: Cache) -> Qemu:
    """A QEMU with vfio-user, unpacked below the cache folder when the host has none.

    Raises `QemuNotFound` when none can be had.
    """
    qemu, problems = find_installed()
    if qemu is None:
        qemu = find_private(cache)
    if qemu is None:
        for problem in problems:
            cache.progress.say(problem)
        qemu = _unpack(cache, problems)
    return qemu


def _unpack(cache: Cache, problems: list[str]) -> Qemu:
    try:
        recipe = tomli.loads((paths.QEMU / "qemu.toml").read_text())
        debian.ensure_tools(["mmdebstrap", "tar"])
        mirror = debian.host_mirror()

        def build(folder: Path, step: object) -> None:
            debian.unpack_tree(
                folder / "root",
                mirror=mirror,
                suites=recipe["suites"],
                packages=recipe["packages"],
                variant="extract",
                default_release=recipe["default_release"],
                exclude=recipe["exclude"],
                step=step,  # type: ignore[arg-type]
            )
            if why := _in_tree(folder / "root").lacks():
                raise QemuNotFound(f"the QEMU unpacked from {mirror.uri} cannot serve: {why}")

        folder = cache.entry(private_entry(), "unpacking a private QEMU with vfio-user", build)
    except (QemuNotFound, StorageError):
        raise
    except HbaError as error:
        reasons = "; ".join(problems)
        raise QemuNotFound(
            f"no QEMU with {DEVICE}: {reasons}; and a private one cannot be unpacked: {error}; {INSTALL}, or set "
            "HBA_QEMU to one"
        ) from error
    return _in_tree(folder / "root")


def _in_tree(root: Path) -> Qemu:
    machine = "x86_64-linux-gnu"
    libraries = [
        root / "usr/lib" / machine,
        *sorted(p for p in (root / "usr/lib" / machine).glob("*") if _has_libraries(p)),
    ]
    return Qemu(
        (
            str(root / "usr/lib" / machine / "ld-linux-x86-64.so.2"),
            "--library-path",
            ":".join(map(str, libraries)),
            str(root / "usr/bin" / BINARY),
            *(word for share in ("qemu", "seabios") for word in ("-L", str(root / "usr/share" / share))),
            "-L",
            str(root / "usr/lib/ipxe/qemu"),
        ),
        f"{root}/usr/bin/{BINARY} (private)",
        {"QEMU_MODULE_DIR": str(root / "usr/lib" / machine / "qemu")},
    )


def _has_libraries(folder: Path) -> bool:
    """Folders such as pulseaudio/ or blas/ that hold libraries; QEMU's own modules are found another way."""
    return folder.is_dir() and folder.name not in ("qemu", "gconv") and any(folder.glob("lib*.so.*"))


def main() -> None:
    """Print how to start the QEMU the lab uses (for scripts and for people)."""
    from hba.lab import interruption
    from hba.lab.progress import Progress

    interruption.listen()
    try:
        qemu = find(Cache(Progress()))
    except interruption.Interrupted as interrupted:
        sys.exit(interruption.told(interrupted))
    except HbaError as error:
        tell(str(error), error.exit_code)
        sys.exit(error.exit_code)
    print(" ".join([*(f"{name}={value}" for name, value in qemu.env.items()), *qemu.argv]))


if __name__ == "__main__":
    main()
