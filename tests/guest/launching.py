"""`scripts/launch` as a test starts and watches it, and what it may have left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.guest.scratch import scratch

_MARK = "HBA_TEST_MARK"


class Launch:
    """One run of the launch command, its children recognisable by an environment variable of their own."""

    def __init__(self, folder: Path, *arguments: str, terminal: int | None = None) -> None:
        self._mark = uuid.uuid4().hex
        self.temporary = scratch("hbat-")
        self.output = folder / "launch.out"
        self._runtime = self.temporary / "run"
        environment = {
            **os.environ,
            _MARK: self._mark,
            "TMPDIR": str(self.temporary),
            "HBA_RUNTIME_DIR": str(self._runtime),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hba.lab.launch", *arguments],
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output if terminal is None else terminal,
                stderr=subprocess.STDOUT if terminal is None else terminal,
                env=environment,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Living processes of this run, by a part of their command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) != self._mark or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 120) -> None:
        """Wait until `condition` holds while the command runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"launch ended before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{what} has not happened:\n{self.said()}"
            _pause()

    def wait(self, timeout: float) -> int:
        """The exit code."""
        return self.process.wait(timeout)

    def left_behind(self) -> list[str]:
        """Processes, and files and sockets in the folders for temporary and runtime files, that are still there."""
        deadline = time.monotonic() + 10  # a process that was killed takes a moment to go
        while self.processes() and time.monotonic() < deadline:
            _pause()
        processes = [f"process {process.pid}: {process.cmdline()}" for process in self.processes()]
        files = [str(path) for path in self.temporary.rglob("*") if path != self._runtime]
        return processes + files

    def close(self) -> None:
        """End what is left, whatever the test found."""
        for process in self.processes():
            process.kill()
        self.process.wait()
        subprocess.run(["rm", "-rf", str(self.temporary)], check=True)


def _pause() -> None:
    """Look again a little later: what is waited for is another process's doing."""
    subprocess.run(["sleep", "0.1"], check=True)
