"""The benchmark: what it runs, and that what it runs is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import SLOTS, PvscsiBenchDriver
from hba.bench import own_server
from hba.bench.loop import TRANSFERS, PlainLoop
from hba.bench.measure import CASES, WRITING_CASES, Case, percentiles, transfers_of
from hba.control.client import ControlClient
from hba.errors import HbaError

FOREVER = 3600.0  # seconds
HALF = SLOTS * 4096  # bytes: what one turn of the ring moves


def test_percentiles() -> None:
    found = percentiles([number * 1000 for number in range(1, 1001)])
    assert found == {"p50": 501.0, "p90": 901.0, "p99": 991.0, "p99.9": 1000.0, "max": 1000.0}
    assert percentiles([5000])["p99"] == 5.0


@pytest.mark.parametrize("case", [*CASES, *WRITING_CASES], ids=lambda case: case.name)
def test_transfers_lie_on_the_unit_and_are_the_same_every_time(case: Case) -> None:
    size = 16 << 20
    transfers = transfers_of(case, size)
    assert transfers == transfers_of(case, size)
    assert len(transfers) == TRANSFERS
    for _, offset, length in transfers:
        assert length == case.length
        assert 0 <= offset <= size - length
        assert offset % 4096 == 0
    written = sum(write for write, _, _ in transfers) / TRANSFERS
    assert abs(written - case.writes) < 0.05


def test_the_loop_does_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    with PlainLoop(path, 1 << 20, True) as loop:
        loop._view[:4096] = b"\x5a" * 4096
        count, seconds, latencies = loop.run([(True, 8192, 4096)], 0.001)
    assert count % TRANSFERS == 0
    assert len(latencies) == count // TRANSFERS
    assert seconds > 0
    assert path.read_bytes()[8192:12288] in (b"\x5a" * 4096, bytes(4096))


@pytest.mark.parametrize("port", ["scsiport", "storport"])
def test_what_the_driver_reads_and_writes_is_what_is_in_the_file(port: str) -> None:
    with own_server.start(None, port=port, verifier="report", size=16 << 20) as server:
        disk = server.folder / "disk.img"
        before = disk.read_bytes()
        with PvscsiBenchDriver(server.socket, 8 << 20) as driver:
            assert driver.capacity() == ((16 << 20) // 512, 512)
            reads = [(False, slot * 4096, 4096) for slot in range(SLOTS)]
            driver.prepare(reads, 512)
            first = driver._produced % SLOTS
            count, _, latencies = driver.run(FOREVER, 32, most=SLOTS)
            assert count == len(latencies) == SLOTS
            # every slot has run once, so the data area is the start of the disk
            assert bytes(driver.ram.view[driver._data_at : driver._data_at + HALF]) == before[:HALF]
            driver.prepare([(True, HALF + slot * 4096, 4096) for slot in range(SLOTS)], 512)
            assert driver.run(FOREVER, 32, most=SLOTS)[0] == SLOTS
            assert driver._produced % SLOTS == first
        with ControlClient(server.control) as client:
            everything = client.call("show.all")
        assert disk.read_bytes() == before[:HALF] * 2 + before[2 * HALF :]
    assert everything["queues"]["port"]["model"] == port
    assert everything["luns"][0]["written_bytes"] == HALF
    assert everything["verifier"]["counts"] == {}


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text('[[adapter]]\ntype = "pvscsi"\n[[adapter.lun]]\nstorage = { kind = "file", path = "none" }\n')
    with pytest.raises(HbaError, match="none"):
        own_server.start(config)


def test_the_command_measures_everything(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "hba", "bench", "--seconds", "0.1", "--size", "16", "--json"],
        env={**os.environ, "HBA_RUNTIME_DIR": str(tmp_path / "run"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert [case["name"] for case in report["cases"]] == [case.name for case in (*CASES, *WRITING_CASES)]
    for case in report["cases"]:
        assert case["ratio"] > 0
        assert case["adapter"]["commands_per_s"] > 0
        assert case["adapter"]["latency_us"]["p50"] <= case["adapter"]["latency_us"]["max"]
    assert 1 << 20 < report["memory"]["uss"] <= report["memory"]["pss"] < 60 << 20
    assert report["memory"]["guest_memory"] > 0
    assert report["listen_s"] > 0
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
