"""A server for the length of a benchmark: its own configuration, disk and runtime folder, all gone afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hba.adapters.bench import Place
from hba.adapters.registry import ADAPTERS
from hba.bench.disk import fill, make_folder
from hba.errors import EXIT_SERVER, HbaError
from hba.lab import process

PATIENCE = 20.0  # seconds to listen
DISK = "disk.img"


class ServerFailed(HbaError):
    """The server for the benchmark did not start."""

    exit_code = EXIT_SERVER


@dataclass
class OwnServer:
    """A running `hba serve`. `listen_seconds`: from its start until it listened. A context manager."""

    folder: Path
    child: subprocess.Popen[bytes]
    adapter: str
    socket: str
    control: Path
    pid: int
    listen_seconds: float

    @property
    def disk(self) -> Path:
        """The temporary disk, of a server that was started without a configuration."""
        return self.folder / DISK

    def close(self) -> None:
        process.stop(self.child)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> OwnServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    config: Path | None,
    *,
    kind: str = ADAPTERS.default.name,
    port: str = "storport",
    engine: str = "native",
    verifier: str = "off",
    size: int = 256 << 20,
    options: str = "",
    units: tuple[Sequence[Place], int] = ((), 0),
) -> OwnServer:
    """Start the first adapter of `config`; without one, one of type `kind` with a disk of `size` bytes (see
    `hba.bench.disk`), `options` (lines of its configuration), and further units in memory: (places, bytes of each).

    Raises `HbaError` when it does not listen.
    """
    folder = make_folder(size if config is None else 0)
    try:
        if config is None:
            config = folder / "bench.toml"
            config.write_text(_config(folder / DISK, kind, port, engine, verifier, options) + _units(*units))
            fill(folder / DISK, size)
        return _start(config, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _config(disk: Path, kind: str, port: str, engine: str, verifier: str, options: str) -> str:
    return (
        f'[[adapter]]\ntype = "{kind}"\nname = "bench"\n'
        f'port = "{port}"\nengine = "{engine}"\nverifier = {{ level = "{verifier}" }}\n{options}'
        f"[[adapter.lun]]\nstorage = {{ kind = \"file\", path = '{disk}' }}\n"
    )


def _units(places: Sequence[Place], size: int) -> str:
    return "".join(
        f'[[adapter.lun]]\ntarget = {target}\nlun = {lun}\nstorage = {{ kind = "memory", size = {size} }}\n'
        for target, lun in places
    )


def _start(config: Path, folder: Path) -> OwnServer:
    output, log = folder / "out", folder / "log"
    begin = time.monotonic()
    with output.open("wb") as out, log.open("wb") as err:
        child = process.spawn(
            [sys.executable, "-m", "hba", "serve", config.absolute(), "--json"],
            env={"HBA_RUNTIME_DIR": str(folder)},
            stdout=out,
            stderr=err,
        )
    try:
        while time.monotonic() - begin < PATIENCE:
            line = output.read_text().partition("\n")
            if line[1]:
                event = json.loads(line[0])
                if event["event"] != "listening":
                    failed = ServerFailed(f"adapter {event['adapter']} of the benchmark: {event.get('message')}")
                    failed.exit_code = event.get("exit_code", EXIT_SERVER)
                    raise failed
                taken = time.monotonic() - begin
                return OwnServer(
                    folder, child, event["adapter"], event["socket"], Path(event["control"]), event["pid"], taken
                )
            if child.poll() is not None:
                break
            time.sleep(0.002)
        raise _refused(log.read_text(), child.poll())
    except BaseException:
        process.stop(child)
        raise


def _refused(log: str, code: int | None) -> ServerFailed:
    """What a server said that did not come as far as an adapter: its error, with its exit code."""
    try:
        said = json.loads(log)["error"]
        error = ServerFailed(said["message"])
        error.exit_code = said["code"]
    except (KeyError, TypeError, ValueError):
        ended = "it runs" if code is None else process.describe_exit(code)
        return ServerFailed(
            f"the server for the benchmark does not listen ({ended}): {log.strip() or 'no reason given'}"
        )
    return error
