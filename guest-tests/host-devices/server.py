"""`hba serve` in this guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from hba.control.client import ControlClient

PATIENCE = 60.0  # seconds to start, to stop, and for an event


def toml(units: list[dict]) -> str:
    """A configuration with one adapter; a unit's `storage` is a table, everything else a plain value.

    Which adapter is all the same to this suite, which is about what is behind it; `pvscsi` plays its driver.
    """
    text = '[[adapter]]\ntype = "pvscsi"\nname = "nested"\nport = "storport"\nverifier = { level = "report" }\n'
    for unit in units:
        text += "[[adapter.lun]]\n"
        for key, value in unit.items():
            if key == "storage":
                value = "{ " + ", ".join(f"{name} = {json.dumps(item)}" for name, item in value.items()) + " }"
            else:
                value = json.dumps(value)
            text += f"{key} = {value}\n"
    return text


class Server:
    """A server with `units`, as `[[adapter.lun]]` has them. A context manager."""

    def __init__(self, folder: Path, units: list[dict]) -> None:
        self._process = start(folder, units)
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate(timeout=PATIENCE)
            raise AssertionError(f"the server does not start: {said}")
        event = json.loads(line)
        assert event["event"] == "listening", event
        self.socket = event["socket"]
        self._control = ControlClient(event["control"], timeout=PATIENCE)
        self._control.call("events.subscribe", topics=["storage", "hotplug", "verifier"])
        self._events = self._control.events(timeout=PATIENCE)

    def next_event(self) -> tuple[str, str, int]:
        """Topic, what happened, and to which target. Errors of a store are left out: `unit` counts them."""
        for event in self._events:
            data = event["data"]
            assert "target" in data, f"the verifier found {data}"
            what = data.get("event", data.get("change"))
            if not what.startswith("error: "):
                return event["event"], what, data["target"]
        raise AssertionError(f"no event within {PATIENCE} s")

    def quiet(self, seconds: float) -> bool:
        """Whether nothing happens for so long."""
        return next(self._control.events(timeout=seconds), None) is None

    def unit(self, target: int) -> dict:
        """The unit as `hba show luns` has it."""
        (found,) = (unit for unit in self._control.call("show.luns") if unit["target"] == target)
        return found

    def close(self) -> None:
        self._control.close()
        self._process.terminate()
        _, said = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, said

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(folder: Path, units: list[dict]) -> subprocess.Popen:
    """`hba serve`, as it is; both of its streams are pipes."""
    config = folder / "config.toml"
    config.write_text(toml(units))
    folder.chmod(0o700)
    return subprocess.Popen(
        [sys.executable, "-m", "hba", "serve", config, "--json"],
        env={**os.environ, "HBA_RUNTIME_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(folder: Path, storage: dict) -> str:
    """Start a server that must not start; what it says."""
    process = start(folder, [{"storage": storage}])
    try:
        output, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 5, f"exit code {process.returncode}, not that of storage\n{output}{said}"
    return output + said


def wait_for(condition, what: str, timeout: float = PATIENCE) -> None:
    """Until `condition()`: the kernel, udev or the server has its own time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not happened within {timeout} s"
        time.sleep(0.1)  # asked again: the server has no news for this
