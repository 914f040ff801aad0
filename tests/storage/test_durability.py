"""What was acknowledged after a flush or with FUA survives `kill -9`.

A killed process keeps what it handed to the kernel, so this finds an acknowledgement that came too early (before the
write, or before an overlay's map was written), and torn blocks. It does not prove anything about power failures.
HBA_KILLS sets how many kills each case gets.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hba.loop import EventLoop
from hba.storage.open import open_backend
from hba.storage.workers import WorkerPool
from tests.storage import writer
from tests.storage.util import Sync
from tests.storage.writer import BLOCK, BLOCKS

KILLS = int(os.environ.get("HBA_KILLS", "5"))
SIZE = BLOCK * BLOCKS


@pytest.mark.parametrize("fua", [True, False], ids=["fua", "flush"])
@pytest.mark.parametrize("store", ["file", "direct", "overlay"])
def test_acknowledged_blocks_survive_kill_9(store: str, fua: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "disk")
    spec: dict[str, Any] = {"kind": "file", "path": path, "size": SIZE, "create": True, "direct": store == "direct"}
    if store == "overlay":
        spec = {"kind": "overlay", "path": path, "base": {"kind": "memory", "size": SIZE}}
    chance = random.Random(f"{store} {fua}")
    promised: dict[int, int] = {}  # block -> newest stamp that was acknowledged
    for seed in range(1, KILLS + 1):
        child = subprocess.Popen(
            [sys.executable, "-m", writer.__name__, json.dumps(spec), str(int(fua)), str(seed)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(chance.randint(1, 120))]
        child.kill()
        lines += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        for line in lines:
            if line.endswith(b"\n"):
                block, stamp = map(int, line.split())
                promised[block] = max(stamp, promised.get(block, 0))
        assert promised
        check(spec, promised)


def check(spec: dict[str, Any], promised: dict[int, int]) -> None:
    loop = EventLoop()
    workers = WorkerPool(loop)
    backend = open_backend(spec, loop, workers)
    sync = Sync(loop, backend)
    for block in range(BLOCKS):
        data = sync.read(block * BLOCK, BLOCK)
        assert data == data[:8] * (BLOCK // 8), f"block {block} is torn"
        stamp = int.from_bytes(data[:8], "little")
        assert stamp >= promised.get(block, 0), f"block {block}: an acknowledged write is lost"
    backend.close()
    assert workers.shutdown()
    loop.close()
