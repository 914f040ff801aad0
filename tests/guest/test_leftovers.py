"""However an experiment ends, nothing of it stays, and the error names the cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hba.lab.rundir import RunDir
from tests.guest.launching import Launch
from tests.guest.scratch import scratch
from tests.guest.units import needs_root

pytestmark = pytest.mark.qemu

QEMU = "hba-lab"  # the -name of the lab's guests
SERVER = "hba serve"


@pytest.fixture(params=["hba", "builtin-pvscsi"])
def launch(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Launch]:
    started = Launch(tmp_path, "--suite", "smoke", "--device", request.param)
    yield started
    started.close()


@pytest.fixture
def with_server(tmp_path: Path) -> Iterator[Launch]:
    started = Launch(tmp_path, "--suite", "smoke")
    yield started
    started.close()


def is_booting(launch: Launch) -> bool:
    return "booting Linux" in launch.said() and bool(launch.processes(QEMU))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_booting(with_server: Launch, number: signal.Signals) -> None:
    with_server.wait_for(lambda: is_booting(with_server), "the boot")
    with_server.process.send_signal(number)
    assert with_server.wait(60) == 128 + number
    assert with_server.left_behind() == []
    last = with_server.said().splitlines()[-1]
    assert last.startswith(f"interrupted by {number.name} while booting Linux") and last.endswith("cleaned up")


def test_a_signal_while_the_suite_runs(launch: Launch, tmp_path: Path) -> None:
    launch.wait_for(lambda: "test_3_patterns" in launch.said(), "the third test")
    launch.process.send_signal(signal.SIGINT)
    assert launch.wait(60) == 130
    assert launch.left_behind() == []
    lines = launch.said().splitlines()
    assert lines[-1] == "interrupted by SIGINT while running suite smoke in the guest; everything is cleaned up"
    assert any(line.startswith("running suite smoke in the guest: interrupted (") for line in lines)
    (kept,) = (tmp_path / "state" / "hba" / "runs").iterdir()
    assert {"console.log", "commands.txt"} <= {path.name for path in kept.iterdir()}
    assert any(str(kept) in line for line in lines)


def test_an_impatient_user(with_server: Launch) -> None:
    with_server.wait_for(lambda: is_booting(with_server), "the boot")
    with_server.process.send_signal(signal.SIGINT)
    with_server.process.send_signal(signal.SIGINT)
    with_server.process.send_signal(signal.SIGTERM)
    assert with_server.wait(60) in (130, 143)
    assert with_server.left_behind() == []


def test_launch_itself_is_killed(tmp_path: Path, launch: Launch) -> None:
    """Nobody is left to clean up: the processes go all the same, and the next start removes the folder."""
    launch.wait_for(lambda: is_booting(launch), "the boot")
    launch.process.kill()
    launch.wait(10)
    left = launch.left_behind()
    assert [item for item in left if "hba-lab-" in item] and not [item for item in left if item.startswith("process")]
    RunDir(launch.temporary).close()
    assert launch.left_behind() == []


def test_qemu_dies(launch: Launch) -> None:
    launch.wait_for(lambda: is_booting(launch), "the boot")
    for process in launch.processes("-name " + QEMU):
        os.kill(process.pid, signal.SIGKILL)
    assert launch.wait(60) == 8
    assert "QEMU has ended (signal SIGKILL)" in launch.said()
    assert launch.left_behind() == []


def test_the_server_dies(with_server: Launch) -> None:
    with_server.wait_for(lambda: is_booting(with_server), "the boot")
    for process in with_server.processes(SERVER):
        os.kill(process.pid, signal.SIGKILL)
    assert with_server.wait(60) == 10
    assert "the HBA server has ended (signal SIGKILL)" in with_server.said()
    assert with_server.left_behind() == []


def test_an_adapter_dies_and_is_started_again(with_server: Launch) -> None:
    """It is back at once, but the guest's disk is not: no verdict may be green after that."""
    with_server.wait_for(lambda: is_booting(with_server), "the boot")
    supervisor, adapter = sorted(process.pid for process in with_server.processes(SERVER))
    os.kill(adapter, signal.SIGKILL)
    assert with_server.wait(60) == 10
    assert "of the HBA server died: ended by SIGKILL" in with_server.said()
    assert not psutil.pid_exists(supervisor)
    assert with_server.left_behind() == []


def test_a_guest_that_never_answers(tmp_path: Path) -> None:
    launch = Launch(
        tmp_path, "--suite", "smoke", "--device", "builtin-pvscsi", "--append", "rdinit=/bin/sh", "--boot-timeout", "15"
    )
    try:
        assert launch.wait(120) == 8
        assert "the guest's agent has not answered within 15 s" in launch.said()
        assert "The guest's console ends:" in launch.said()
        assert launch.left_behind() == []
    finally:
        launch.close()


def test_a_guest_that_panics(tmp_path: Path) -> None:
    launch = Launch(
        tmp_path, "--suite", "smoke", "--device", "builtin-pvscsi", "--append", "rdinit=/nowhere root=/dev/none"
    )
    try:
        assert launch.wait(240) == 8
        assert "QEMU has ended" in launch.said()
        assert "Kernel panic" in launch.said()
        assert launch.left_behind() == []
    finally:
        launch.close()


def test_a_full_disk() -> None:
    needs_root()
    small = scratch("hbas-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "hba.lab.launch", "--suite", "smoke"],
            env={**os.environ, "TMPDIR": os.fspath(small)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 5, ended.stderr
        assert f"error: a disk is full: {small} has " in ended.stderr
        assert "internal error" not in ended.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()
