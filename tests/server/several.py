"""`hba serve` of several adapters as a process, and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hba.adapters.pvscsi.bench import PvscsiBenchDriver
from hba.control.client import ControlClient


class Several:
    """Serves the configuration `text`, which has so many adapters. `pids`: their processes, by name."""

    def __init__(self, folder: Path, text: str, adapters: int) -> None:
        self.folder = folder
        config = folder / "hba.toml"
        config.write_text(text)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hba", "serve", str(config), "--json"],
                env={**os.environ, "HBA_RUNTIME_DIR": str(folder / "run"), "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.pids = {event["adapter"]: event["pid"] for event in (self.event() for _ in range(adapters))}

    def event(self) -> dict[str, Any]:
        """The next line it reports."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        event: dict[str, Any] = json.loads(line)
        return event

    def driver(self, name: str) -> PvscsiBenchDriver:
        """A guest of one of them."""
        return PvscsiBenchDriver(self.folder / "run" / f"{name}.sock", 1 << 20)

    def control(self, name: str, timeout: float = 10.0) -> ControlClient:
        return ControlClient(self.folder / "run" / f"{name}.ctl", timeout)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
