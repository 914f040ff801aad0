"""A guest in front of units whose stores the test can break: what the modules about units share."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hba.cli.main import run
from hba.control.client import ControlClient
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress


class NbdServer:
    """nbdkit on a UNIX socket; may be ended and started again."""

    def __init__(self, socket: Path, *arguments: str) -> None:
        self.socket = socket
        self.uri = f"nbd+unix:///?socket={socket}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            ["nbdkit", "-f", "-U", str(self.socket), *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self.socket.exists, "nbdkit listens")

    def stop(self) -> None:
        """Without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def leave(self) -> None:
        """As nbdkit does when it is told to: it answers ESHUTDOWN until its clients have gone."""
        assert self._process is not None
        self._process.terminate()


class SmallFileSystem:
    """An ext4 of its own, so that it can be full or fail without anybody else noticing. Needs root."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder
        self._image = folder.with_suffix(".img")
        sparse(self._image, size)
        folder.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal,^resize_inode", str(self._image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(self._image), str(folder)], check=True)

    def turn_read_only(self) -> None:
        """As ext4 does by itself after an error (`mount -o remount,ro` is refused while files are written)."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.path)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)


class Units:
    """A server with `luns` (tables of the configuration) and a guest. `hba` runs the command line on the host.

    `pvscsi` is the table of that name.
    """

    def __init__(
        self,
        luns: list[dict[str, Any]],
        folder: Path,
        port_model: str = "storport",
        pvscsi: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        config = folder / "units.toml"
        # Inline tables of TOML differ from JSON in the equals sign only, as far as these go.
        table = {"type": "pvscsi", "name": "units", "port": port_model, "socket": str(folder / "units.sock")}
        lines = ["[[adapter]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        lines.append(f"pvscsi = {_toml(pvscsi or {})}")
        for lun in luns:
            lines += ["[[adapter.lun]]", *(f"{key} = {_toml(value)}" for key, value in lun.items())]
        config.write_text("\n".join(lines) + "\n")
        self.experiment = Experiment(Options(config=config), Progress())

    def start(self) -> None:
        self.experiment.start()
        self.sh("dmesg -n 1")

    def close(self) -> None:
        self.experiment.close(orderly=False)

    # -- the host's side ---------------------------------------------------------------------------------------

    def hba(self, *arguments: str, code: int = 0) -> str:
        """`hba ARGUMENTS --adapter units`, its output."""
        result = subprocess.run(
            [sys.executable, "-m", "hba", *arguments, "--adapter", str(self.experiment.adapters[0].control)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def hba_at_once(self, commands: list[list[str]]) -> list[Any]:
        """Many commands in this process, one after the other without a pause; what each answered, as JSON."""
        answers = []
        for arguments in commands:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                code = run([*arguments, "--json", "--adapter", str(self.experiment.adapters[0].control)])
            assert code == 0, arguments
            answers.append(json.loads(said.getvalue()))
        return answers

    def luns(self) -> dict[int, dict[str, Any]]:
        """What the adapter says of its units, by target."""
        result = subprocess.run(
            [sys.executable, "-m", "hba", "lun", "ls", "--json", str(self.experiment.adapters[0].control)],
            capture_output=True,
            check=True,
        )
        return {unit["target"]: unit for unit in json.loads(result.stdout)["units"]}

    def counters(self) -> dict[str, Any]:
        """What the adapter has counted."""
        with ControlClient(self.experiment.adapters[0].control) as client:
            found: dict[str, Any] = client.call("show.counters")["adapter"]
            return found

    def server_pid(self) -> int:
        """The process of the adapter."""
        with ControlClient(self.experiment.adapters[0].control) as client:
            return client.pid

    # -- the guest's side --------------------------------------------------------------------------------------

    def sh(self, command: str, check: bool = True) -> str:
        """A shell command in the guest; what it said, on both streams."""
        result = self.experiment.guest.agent.exec(["sh", "-c", command + " 2>&1"], timeout=120)
        output = result.stdout.decode(errors="replace")
        assert result.code == 0 or not check, f"{command}: {result.code}\n{output}"
        return output

    def log(self) -> str:
        """The kernel's messages since the last call."""
        return self.sh("dmesg --read-clear")

    def complaint(self, provoke: Callable[[], object], word: str) -> str:
        """What the kernel says of an error that `provoke` causes, with `word` in it. Again, if need be: it says so of
        ten errors in 5 s at most, whatever device they are about."""
        said: list[str] = []

        def try_once() -> bool:
            provoke()
            said.append(self.log())
            return word in said[-1]

        wait_for(try_once, f"the kernel says {word!r}")
        return said[-1]

    def node(self, target: int) -> str | None:
        """The device node of a target's disk, if the guest has one: `/dev/sdb`."""
        return next(iter(self.nodes(target)), None)

    def nodes(self, target: int) -> list[str]:
        """The same of each adapter the guest has."""
        found = self.sh(f"ls -d /sys/class/scsi_device/*:0:{target}:0/device/block/* || true")
        return [f"/dev/{name}" for name in re.findall(r"block/(\w+)$", found, re.MULTILINE)]

    def sizes(self) -> dict[int, int]:
        """The size of every disk the guest has, by target."""
        said = self.sh(
            "cd /sys/class/scsi_device; "
            "for disk in *:0/device/block/*; do if [ -e $disk ]; then echo $disk $(cat $disk/size); fi; done"
        )
        found = re.findall(r"^\d+:0:(\d+):0/device/block/\w+ (\d+)$", said, re.MULTILINE)
        return {int(target): int(size) * 512 for target, size in found}

    def there(self, target: int) -> str:
        node = self.node(target)
        assert node is not None, f"the guest has no disk at target {target}"
        return node

    def size(self, target: int) -> int:
        return int(self.sh(f"cat /sys/block/{Path(self.there(target)).name}/size")) * 512

    def rescan(self, target: int) -> None:
        self.sh(f"echo 1 > /sys/block/{Path(self.there(target)).name}/device/rescan")

    def command(self, target: int, cdb: str, arguments: str = "") -> str:
        """One SCSI command by SG_IO: "" for GOOD, else its sense data as words."""
        # The generic node: opening the disk's own would have the kernel take unit attentions, and refuse what it
        # believes to be write-protected.
        node = self.sh(f"ls /sys/class/scsi_device/*:0:{target}:0/device/scsi_generic").strip()
        said = self.sh(f"sg_raw {arguments} /dev/{node} {cdb}", check=False)
        if "Check Condition" not in said:
            assert "SCSI Status: Good" in said, said
            return ""
        return re.sub(r"\s+", " ", said.partition("Sense Information:")[2]).strip()

    def settled(self, run: Callable[[], str]) -> tuple[str, list[str]]:
        """The command's outcome once no unit attention is left, and those that there were."""
        attentions = []
        while "Unit Attention" in (said := run()):
            attentions.append(said)
            assert len(attentions) < 10, attentions
        return said, attentions

    def read(self, target: int, lba: int = 0) -> str:
        """READ(10) of 4 KiB with 512-byte blocks: "" or the sense data; unit attentions are taken first."""
        return self.settled(lambda: self.command(target, f"28 00 {_hex(lba)} 00 00 08 00", "-r 4096 -o /dev/null"))[0]

    def write(self, target: int, lba: int = 0) -> str:
        """WRITE(10), as `read`."""
        return self.settled(lambda: self.command(target, f"2a 00 {_hex(lba)} 00 00 08 00", "-s 4096 -i /dev/zero"))[0]


def _hex(lba: int) -> str:
    return lba.to_bytes(4, "big").hex(" ")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def sparse(path: Path, size: int) -> Path:
    with path.open("xb") as file:
        file.truncate(size)
    return path


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")


def needs_nbdkit() -> None:
    if shutil.which("nbdkit") is None:
        pytest.skip("nbdkit is missing: apt-get install nbdkit")


def wait_for(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        subprocess.run(["sleep", "0.2"], check=True)  # another process's doing
