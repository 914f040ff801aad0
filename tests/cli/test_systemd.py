"""The systemd unit: valid, confining, and everything in it that a test can do without systemd is done to a server."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import PvscsiBenchDriver
from hba.cli.systemd import TEMPLATE, unit
from hba.control.client import ControlClient
from hba.lab.paths import PACKAGE, PROJECT
from hba.vfio_user.libvfio_user.find import find

PROGRAM = PROJECT / ".venv" / "bin" / "hba"
EXPOSURE = 2.0  # of 10, as `systemd-analyze security` counts
STRANGER = "nobody"
_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1  # what MemoryDenyWriteExecute= asks for (prctl(2), Linux 6.3)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)


def settings(text: str) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key].append(value)
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / TEMPLATE
    path.write_text(unit(Path(sys.executable), "root"))
    return path


@needs_systemd
def test_systemd_understands_all_of_it(written: Path) -> None:
    said = subprocess.run(["systemd-analyze", "verify", written], capture_output=True, text=True)
    # Machines have other units, which are not ours to judge.
    assert not [line for line in said.stderr.splitlines() if TEMPLATE in line or "hba@" in line], said.stderr
    assert said.returncode == 0


@needs_systemd
def test_it_confines(written: Path) -> None:
    limit = f"--threshold={EXPOSURE * 10:.0f}"
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", limit, written], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout + said.stderr
    text = written.read_text()
    open_one = written.with_name("open@.service")
    open_one.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("SystemCall", "Protect"))))
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", limit, open_one], capture_output=True, text=True
    )
    assert said.returncode != 0, "the threshold would let anything pass"


def test_program_and_user_are_filled_in() -> None:
    plain = (PACKAGE / "systemd" / TEMPLATE).read_text()
    made = settings(unit(Path("/opt/my hba/100%/hba"), "libvirt-qemu"))
    assert made["ExecStart"] == ['"/opt/my hba/100%%/hba" serve %E/hba/%i.toml']
    assert made["User"] == ["libvirt-qemu"]
    assert made["ProtectHome"] == ["yes"]
    assert settings(unit(Path("/home/me/.venv/bin/hba"), "me"))["ProtectHome"] == ["read-only"]
    assert set(settings(plain)) == set(made)


def test_the_command_prints_it() -> None:
    said = subprocess.run([PROGRAM, "systemd", "--user", "me"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout == unit(PROGRAM, "me")


@pytest.mark.parametrize("user", ["", "a b", "a\nExecStart=x", "%n", "1a", "x" * 40])
def test_a_user_that_cannot_be(user: str) -> None:
    said = subprocess.run([PROGRAM, "systemd", "--user", user], capture_output=True, text=True)
    assert said.returncode == 2 and not said.stdout
    assert "is no user's name" in said.stderr


# -- as the unit runs it ----------------------------------------------------------------------------------------------


class Unprivileged:
    """`hba serve` as somebody who may do nothing, with the environment, folders and limits of the unit."""

    def __init__(self, folder: Path, engine: str, *prefix: str) -> None:
        self.folder = folder
        made = settings((PACKAGE / "systemd" / TEMPLATE).read_text())
        self.state, self.run = folder / "lib", folder / "run"
        who = pwd.getpwnam(STRANGER)
        folder.chmod(0o755)
        for path, mode in ((self.state, made["StateDirectoryMode"]), (self.run, made["RuntimeDirectoryMode"])):
            path.mkdir(mode=int(mode[0], 8))
            os.chown(path, who.pw_uid, who.pw_gid)
        disk = self.state / "disk.img"
        with disk.open("wb") as file:
            file.truncate(1 << 20)
        os.chown(disk, who.pw_uid, who.pw_gid)
        config = folder / "disks.toml"
        text = f'[[adapter]]\ntype = "pvscsi"\nname = "disks"\nengine = "{engine}"\n'
        text += "" if engine == "native" else f"engine_library = '{find().file}'\n"
        text += "[[adapter.lun]]\n"
        text += f"state_file = '{self.state}/state'\nstorage = {{ kind = \"file\", path = '{disk}' }}\n"
        config.write_text(text)
        (name, _, value) = made["Environment"][0].partition("=")
        assert (name, value) == ("HBA_RUNTIME_DIR", "%t/hba/%i")
        confined = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--no-new-privs",
                    "--bounding-set=-all", "--inh-caps=-all"]  # fmt: skip
        self.log = folder / "log"

        def limited() -> None:
            os.umask(int(made["UMask"][0], 8))
            ctypes.CDLL(None).prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *confined, sys.executable, "-m", "hba", "serve", config, "--json"],
                env={"PATH": os.environ["PATH"], name: str(self.run), "HBA_PURE": "1", "PYTHONPATH": str(PROJECT)},
                cwd=self.state,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=limited,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.listening = json.loads(line)
        assert self.listening["event"] == "listening", self.listening

    def use(self) -> None:
        """A guest's life, and an operator's."""
        with PvscsiBenchDriver(self.run / "disks.sock", 1 << 20) as driver:
            driver.prepare([(False, 0, 4096), (True, 8, 4096)], 512)
            driver.run(3600.0, 8, most=200)
        with ControlClient(self.run / "disks.ctl") as control:
            control.call("lun.add", unit={"target": 3, "storage": {"kind": "memory", "size": "1M"}})
            control.call("show.counters")

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others may look into, unlike pytest's."""
    if os.geteuid() != 0:
        pytest.skip("to become another user needs root")
    path = Path(tempfile.mkdtemp(prefix="hba-unit-"))
    yield path
    shutil.rmtree(path)


def test_an_ordinary_user_without_privileges_serves(folder: Path, engine: str) -> None:
    server = Unprivileged(folder, engine)
    try:
        status = Path(f"/proc/{server.listening['pid']}/status").read_text()
        uids = re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)
        assert uids is not None and set(uids[1].split()) == {str(pwd.getpwnam(STRANGER).pw_uid)}
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE) and re.search(
            r"^NoNewPrivs:\s+1$", status, re.MULTILINE
        )
        for name in ("disks.sock", "disks.ctl"):
            assert stat.S_IMODE((server.run / name).stat().st_mode) == 0o600
        server.use()
    finally:
        code = server.close()
    assert code == 0, server.log.read_text()
    assert list(server.run.iterdir()) == []


@needs_systemd
def test_it_makes_no_system_call_that_the_unit_forbids(folder: Path, engine: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    made = settings((PACKAGE / "systemd" / TEMPLATE).read_text())
    allowed = calls_of(made["SystemCallFilter"])
    counted = folder / "calls"
    server = Unprivileged(folder, engine, "strace", "-f", "-qq", "-c", "-o", str(counted))
    try:
        server.use()
    finally:
        # strace forwards nothing: the signal goes to whom it watches.
        os.kill(supervisor(server.listening["pid"]), signal.SIGTERM)
        server.process.wait(60)
        assert server.process.stdout is not None
        server.process.stdout.close()
    rows = [line.split() for line in counted.read_text().splitlines()]
    used = {row[-1] for row in rows if len(row) >= 5 and row[-1].isidentifier() and row[-1] not in ("syscall", "total")}
    assert {"recvmsg", "epoll_wait", "sendmsg"} <= used
    # Of setpriv, before the unit's rules would hold.
    assert used - allowed <= {"setresuid", "setresgid", "setgroups", "capset", "setreuid", "setregid"}, used - allowed


def supervisor(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def calls_of(filters: list[str]) -> set[str]:
    """The system calls that SystemCallFilter= lets through."""
    allowed: set[str] = set()
    for text in filters:
        for name in text.removeprefix("~").split():
            found = expanded(name)
            allowed = allowed - found if text.startswith("~") else allowed | found
    return allowed


def expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
    )
    names = [line.strip() for line in said.stdout.splitlines()[1:]]
    return set().union(*(expanded(item) for item in names if item and not item.startswith("#")))
