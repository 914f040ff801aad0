"""The HBA server as a child process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hba.config.load import load
from hba.errors import EXIT_SERVER, HbaError
from hba.lab import process


class ServerError(HbaError):
    """The HBA server did not start, or died while the experiment needed it."""

    exit_code = EXIT_SERVER


@dataclass(frozen=True)
class Adapter:
    """One adapter that listens."""

    name: str
    socket: Path  # vfio-user
    control: Path


class Server:
    """`hba serve CONFIG --json`, running until `stop`."""

    def __init__(self, config: Path, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self._expected = len(load(config).adapters)  # a wrong configuration ends here, with its own error
        self._output = folder / "server.out"
        self.log = folder / "server.log"
        self.command = [sys.executable, "-m", "hba", "serve", str(config), "--json"]
        with self._output.open("wb") as output, self.log.open("wb") as log:
            self.process: subprocess.Popen[bytes] = process.spawn(
                self.command,
                stdout=output,
                stderr=log,
                env=env,
                # An orderly end, so that its sockets go even when we are killed.
                death_signal=signal.SIGTERM,
            )
        self.adapters: list[Adapter] = []

    def wait_listening(self, timeout: float = 20.0) -> list[Adapter]:
        """Wait until every adapter listens; `ServerError` with what the server said when they do not."""
        deadline = time.monotonic() + timeout
        while len(self.adapters) < self._expected:
            self.alive()
            self.adapters = self._listening()
            if time.monotonic() > deadline:
                raise ServerError(f"the HBA server does not listen within {timeout:.0f} s{self._said()}")
            time.sleep(0.02)
        return self.adapters

    def alive(self) -> None:
        """Raise `ServerError` when the server has ended, or an adapter died: it comes back, but as after power on."""
        for event in self._events_of("restarting"):
            raise ServerError(f"adapter {event.get('adapter')} of the HBA server died: {event.get('message')}")
        code = self.process.poll()
        if code is not None:
            error = ServerError(f"the HBA server has ended ({process.describe_exit(code)}){self._said()}")
            if 0 < code < 64:  # its own documented codes say more than ours: bad config, no storage, ...
                error.exit_code = code
            raise error

    def stop(self) -> int:
        """Ask it to end, insist if it does not; returns its exit code (negative: the signal)."""
        code = process.stop(self.process, grace=10)
        # What a server that was killed could not remove itself.
        for adapter in self.adapters:
            for path in (adapter.socket, adapter.control):
                path.unlink(missing_ok=True)
        return code

    def _listening(self) -> list[Adapter]:
        return [
            Adapter(event["adapter"], Path(event["socket"]), Path(event["control"]))
            for event in self._events_of("listening")
        ]

    def _events(self) -> list[dict[str, str]]:
        """What the server has reported so far."""
        found = []
        for line in self._output.read_text(errors="replace").splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # still being written
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found

    def _said(self) -> str:
        failed = [f"adapter {event.get('adapter')}: {event.get('message')}" for event in self._events_of("failed")]
        text = "\n".join(failed) or self.log.read_text(errors="replace").strip()
        return ": " + text[-1500:] if text else ""

    def _events_of(self, kind: str) -> list[dict[str, str]]:
        return [event for event in self._events() if event.get("event") == kind]
