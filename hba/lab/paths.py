"""Where the lab's own material lies in the source tree."""

from __future__ import annotations

from pathlib import Path

from hba.errors import HbaError

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "hba"
QEMU = PROJECT / "qemu"
SCRIPTS = PROJECT / "scripts"
GUEST_TESTS = PROJECT / "guest-tests"


def require_tree() -> None:
    """Raise `HbaError` unless the folders `qemu/` and `guest-tests/` lie beside the package."""
    if not (QEMU / "guest.toml").is_file():
        raise HbaError(
            f"the lab needs the project's source tree: {QEMU} is not there; "
            "clone the repository and run scripts/launch from it"
        )
