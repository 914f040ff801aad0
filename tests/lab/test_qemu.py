"""Which QEMU is taken, and why another is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.errors import QemuNotFound
from hba.lab import qemu

GOOD = """#!/bin/sh
case "$1" in
--version) echo "QEMU emulator version 11.1.3 (Debian)" ;;
*) echo "  socket=<SocketAddress>" ;;
esac
"""
OLD = "#!/bin/sh\necho \"'vfio-user-pci' is not a valid device model name\" >&2; exit 1\n"
BROKEN = "#!/bin/sh\necho 'error while loading shared libraries: libx.so' >&2; exit 127\n"


def program(folder: Path, text: str, name: str = qemu.BINARY) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HBA_QEMU", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_one_on_path_that_can(tmp_path: Path) -> None:
    path = program(tmp_path, GOOD)
    found, problems = qemu.find_installed()
    assert found is not None and found.argv == (str(path),) and problems == []
    assert found.version() == "11.1.3"


@pytest.mark.parametrize(("text", "why"), [(OLD, "has no vfio-user-pci"), (BROKEN, "shared libraries")])
def test_one_on_path_that_cannot(tmp_path: Path, text: str, why: str) -> None:
    program(tmp_path, text)
    found, problems = qemu.find_installed()
    assert found is None
    assert why in problems[0]


def test_the_users_choice_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, OLD)
    mine = program(tmp_path, GOOD, "mine")
    monkeypatch.setenv("HBA_QEMU", str(mine))
    found, _ = qemu.find_installed()
    assert found is not None and found.argv == (str(mine),)


@pytest.mark.parametrize(("text", "why"), [(None, "no such program"), (OLD, "10.1 or later")])
def test_the_users_choice_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, why: str
) -> None:
    program(tmp_path, GOOD)
    if text is not None:
        program(tmp_path, text, "mine")
    monkeypatch.setenv("HBA_QEMU", str(tmp_path / "mine"))
    with pytest.raises(QemuNotFound, match=why):
        qemu.find_installed()
