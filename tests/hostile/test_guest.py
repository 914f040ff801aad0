"""A hostile guest against units of every kind of store: nothing dies, stalls or grows.

`HBA_HOSTILE` sets how many operations each port model gets (default 4000; a million takes some ten minutes).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil
import pytest

from hba.bench import own_server
from hba.control.client import ControlClient
from hba.errors import StorageError
from hba.storage import libnbd
from hba.watchdog import FILE_VARIABLE
from tests.hostile.guest import HostileGuest
from tests.storage.test_nbd import Server

OPERATIONS = int(os.environ.get("HBA_HOSTILE", "4000"))
MOST_MEMORY = 400 << 20  # bytes of its own; guest memory is shared and does not count
MEMORY_LIMIT = "64M"  # of each store in memory
LUNS = """
[[adapter.lun]]
target = 0
storage = {{ kind = "file", path = '{folder}/file' }}
[[adapter.lun]]
target = 1
storage = {{ kind = "memory", size = "1T", limit = "{limit}" }}
[[adapter.lun]]
target = 2
block_size = 4096
removable = true
storage = {{ kind = "memory", size = "1T", limit = "{limit}" }}
[[adapter.lun]]
target = 3
protection = 1
protection_file = '{folder}/information'
state_file = '{folder}/state3'
storage = {{ kind = "memory", size = "64M" }}
[[adapter.lun]]
target = 4
protection = 1
storage = {{ kind = "memory", size = "4G", limit = "{limit}" }}
[[adapter.lun]]
target = 5
storage = {{ kind = "overlay", base = {{ kind = "file", path = '{folder}/base' }}, memory = true, limit = "{limit}" }}
[[adapter.lun]]
target = 6
state_file = '{folder}/state6'
storage = {{ kind = "overlay", base = {{ kind = "file", path = '{folder}/base' }}, path = '{folder}/kept' }}
[[adapter.lun]]
target = 7
storage = {{ kind = "file", path = '{folder}/direct', direct = {direct} }}
[[adapter.lun]]
target = 8
type = "cdrom"
storage = {{ kind = "file", path = '{folder}/disc', read_only = true }}
[[adapter.lun]]
target = 9
type = "enclosure"
"""


def configure(folder: Path, port: str, nbd: str | None) -> tuple[Path, list[int]]:
    for name, size in (("file", 64), ("base", 64), ("direct", 16), ("disc", 8)):
        with (folder / name).open("wb") as file:
            file.truncate(size << 20)
    text = f'[[adapter]]\ntype = "pvscsi"\nname = "hostile"\nport = "{port}"\n'
    text += LUNS.format(folder=folder, limit=MEMORY_LIMIT, direct=str(not_in_memory(folder)).lower())
    targets = list(range(10))
    if nbd is not None:
        text += f"[[adapter.lun]]\ntarget = 10\nstorage = {{ kind = \"nbd\", uri = '{nbd}' }}\n"
        targets.append(10)
    config = folder / "hostile.toml"
    config.write_text(text)
    return config, targets


def not_in_memory(folder: Path) -> bool:
    """Whether the file system has direct I/O."""
    try:
        os.close(os.open(folder / "direct", os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("port", ["scsiport", "storport"])
def test_nothing_dies_stalls_or_grows(port: str, tmp_path: Path) -> None:
    server = None
    if shutil.which("nbdkit") and has_libnbd():
        server = Server(tmp_path, lambda socket: ["nbdkit", "-f", "-U", str(socket), "memory", "32M"])
        server.start()
    config, targets = configure(tmp_path, port, server.uri if server is not None else None)
    turns = Path(os.environ[FILE_VARIABLE])
    most = 0
    with own_server.start(config) as adapter, ControlClient(adapter.control) as control:
        process = psutil.Process(adapter.pid)
        guest = HostileGuest(adapter.socket, targets, seed=7)
        checked = 0
        while guest.operations < OPERATIONS:
            guest.step()
            if guest.operations - checked >= 1000:
                checked = guest.operations
                control.call("ping")
                memory = process.memory_info()
                most = max(most, memory.rss - memory.shared)
                assert most < MOST_MEMORY
                assert not turns.exists(), turns.read_text()
        guest.close()
        units = control.call("lun.ls")
        assert {unit["target"] for unit in units} == set(targets)
        for unit in units:
            for store in (unit.get("storage") or {}, (unit.get("storage") or {}).get("top") or {}):
                if "limit" in store:
                    assert store["used"] <= store["limit"]
        control.call("ping")
    print(f"{port}: {guest.operations} operations, at most {most >> 20} MiB")
    if server is not None:
        server.kill()


def has_libnbd() -> bool:
    try:
        libnbd.load()
    except StorageError:
        return False
    return True
