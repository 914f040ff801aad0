"""Which QEMU is taken, and why another is not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hba.errors import EXIT_NO_QEMU, HbaError, QemuNotFound
from hba.lab import launch, qemu
from hba.lab.cache import Cache
from hba.lab.progress import Progress

GOOD = """#!/bin/sh
case "$1" in
--version) echo "QEMU emulator version 11.1.3 (Debian)" ;;
*) echo "  socket=<SocketAddress>" ;;
esac
"""
WITHOUT = """#!/bin/sh
case "$1" in
--version) echo "QEMU emulator version {version} (Debian 1:{version}+ds-1)" ;;
*) echo "qemu: -device vfio-user-pci,help: 'vfio-user-pci' is not a valid device model name" >&2; exit 1 ;;
esac
"""
OLD = WITHOUT.format(version="9.2.1")
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OLD, "QEMU 9.2.1 has no vfio-user-pci (QEMU has it since 10.1)"),
        (WITHOUT.format(version="10.1.0"), "QEMU 10.1.0 has no vfio-user-pci (it was built without vfio-user)"),
        (BROKEN, "shared libraries"),
        ("#!/bin/sh\nexit 3\n", "failed: exit code 3"),
    ],
)
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


def test_what_is_said_when_none_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, OLD)

    def no_mirror() -> None:
        raise HbaError("no Debian mirror is configured")

    monkeypatch.setattr(qemu.debian, "ensure_tools", lambda tools: None)
    monkeypatch.setattr(qemu.debian, "host_mirror", no_mirror)
    said = io.StringIO()
    with pytest.raises(QemuNotFound) as caught:
        qemu.find(Cache(Progress(said), tmp_path / "cache"))
    message = str(caught.value)
    assert "\n" not in message and "QEMU 9.2.1 has no vfio-user-pci" in message and "no Debian mirror" in message
    assert message.endswith("install QEMU 10.1 or later built with vfio-user, or set HBA_QEMU to one")
    assert "QEMU 9.2.1" in said.getvalue()


def test_launch_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = program(tmp_path, OLD, "mine")
    monkeypatch.setenv("HBA_QEMU", str(path))
    monkeypatch.setenv("HBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert launch.run(["--suite", "smoke"]) == EXIT_NO_QEMU
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        f"error: HBA_QEMU={path}: QEMU 9.2.1 has no vfio-user-pci (QEMU has it since 10.1); "
        "install QEMU 10.1 or later built with vfio-user, or unset HBA_QEMU"
    )
