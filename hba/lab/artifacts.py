"""What is kept of a run: its logs, what was found, and the commands that made it."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hba.control.client import ControlClient
from hba.errors import ControlError, HbaError
from hba.lab.experiment import Experiment
from hba.lab.findings import Group
from hba.lab.observe import Seen
from hba.lab.server import Adapter

LOGS = ("console.log", "firmware.log", "qemu.log", "server.log", "server.out", "config.toml")
RUNS = 20  # that stay where nobody asked for them
_KERNEL_LOG = ("dmesg", "--color=never")


class Artifacts:
    """A folder for the artifacts of one run; made when the first is kept.

    `folder` is the user's, or None for one of ours, which only a red run fills.
    """

    def __init__(self, folder: Path | None, base: Path) -> None:
        self.asked = folder is not None
        self.folder = folder or base / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06}"

    def keep(self, experiment: Experiment, seen: Sequence[Seen] = (), groups: Sequence[Group] = ()) -> list[str]:
        """Copy all there is; the names of what is there afterwards. `HbaError` when it cannot be written."""
        try:
            if not self.asked:
                _prune(self.folder.parent)
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in LOGS:
                if (experiment.folder / name).is_file():
                    shutil.copyfile(experiment.folder / name, self.folder / name)
            self._write("commands.txt", _commands(experiment))
            if (log := _kernel_log(experiment)) is not None:
                self._write("kernel.log", log)
            for adapter in experiment.adapters:
                if (events := _trace(adapter)) is not None:
                    self._write(f"trace-{adapter.name}.json", events)
            if seen:
                found = [msgspec.to_builtins(group) for group in groups]
                self._write("findings.json", msgspec.json.format(msgspec.json.encode(found), indent=2))
                views = {view.name: view.everything for view in seen}
                self._write("adapters.json", msgspec.json.format(msgspec.json.encode(views), indent=2))
            return sorted(path.name for path in self.folder.iterdir())
        except OSError as error:
            raise HbaError(f"the artifacts cannot be written to {self.folder}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)


def _prune(base: Path) -> None:
    """Make room for a run among the newest."""
    runs = sorted(base.glob("run-*")) if base.is_dir() else []
    for old in runs[: max(0, len(runs) - RUNS + 1)]:
        shutil.rmtree(old, ignore_errors=True)


def _commands(experiment: Experiment) -> bytes:
    """How to run it again: our own command, the server's, QEMU's."""
    commands = [
        [Path(sys.executable).name, "-m", "hba.lab.launch", *sys.argv[1:]],
        *experiment.commands,
    ]
    return ("\n".join(shlex.join(command) for command in commands) + "\n").encode()


def _trace(adapter: Adapter) -> bytes | None:
    """What an adapter that traces still has of its trace, as a JSON list; None where it does not."""
    events: list[object] = []
    try:
        with ControlClient(adapter.control) as client:
            start = 0
            while True:
                page = client.call("trace.read", start=start)
                events += page["events"]
                if not page["events"]:
                    return msgspec.json.encode(events)
                start = page["next"]
    except (ControlError, KeyError, TypeError):
        return msgspec.json.encode(events) if events else None


def _kernel_log(experiment: Experiment) -> bytes | None:
    """The guest's, where it still answers."""
    try:
        return experiment.guest.agent.exec(_KERNEL_LOG, timeout=10).stdout
    except (HbaError, AssertionError):
        return None
