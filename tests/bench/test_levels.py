"""The comparison of levels: its client is no kinder than a driver, its peers do what they should."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import SLOTS, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import REQUEST, REQUEST_SIZE
from hba.bench import levels, own_server
from hba.bench.echo import Echo
from hba.bench.levels import LEVELS, UNIT_SIZE, UNITS
from hba.control.client import ControlClient

FOREVER = 3600.0  # seconds


def test_the_echo_answers_each_message_and_ends_with_its_client() -> None:
    with Echo() as echo:
        count, seconds, latencies = echo.run(0.01)
        assert count == len(latencies) >= 1 and seconds > 0
        assert sum(latencies) <= seconds * 1e9
        assert not select.select([echo._answer], [], [], 0)[0]  # each was waited for
        child = echo._child
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


@pytest.mark.parametrize("each", [False, True])
def test_many_units_and_maps_are_what_is_run(each: bool) -> None:
    with own_server.start(None, verifier="report", size=16 << 20, units=(UNITS, UNIT_SIZE)) as server:
        with PvscsiBenchDriver(server.socket, 32 << 20) as driver, ControlClient(server.control) as client:
            for place in UNITS:
                driver.settle(place)
            driver.split_data(levels.MAPS)
            maps = client.call("show.dma")
            assert levels.MAPS < len(maps) <= levels.MAPS + 32
            driver.prepare([(False, 0, 4096)], 512, UNITS)
            before = client.call("show.counters")["adapter"]
            assert driver.run(FOREVER, 500, most=SLOTS, each=each)[0] == SLOTS
            after = client.call("show.counters")["adapter"]
            units = {(unit["target"], unit["lun"]): unit["read_bytes"] for unit in client.call("lun.ls")}
            findings = client.call("show.verifier")["counts"]
        assert after["requests"] - before["requests"] == SLOTS
        if each:
            assert after["kicks"] - before["kicks"] == SLOTS
        assert {units[place] for place in UNITS} == {SLOTS // len(UNITS) * 4096}
    assert findings == {}


def test_every_request_has_room_for_sense_data_of_its_own() -> None:
    with own_server.start(None, size=16 << 20) as server, PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        driver.prepare([(False, 0, 4096)], 512)
        places = set()
        for slot in range(SLOTS):
            request = REQUEST.unpack_from(driver.ram.view, driver._requests_at + slot * REQUEST_SIZE)
            assert request[4] >= 18
            places.add(request[3])
        assert len(places) == SLOTS
        # A command that fails has it filled in.
        assert driver.command(bytes((0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0)), 512)
        slot = (driver._produced - 1) % SLOTS
        assert driver.ram.view[driver._sense_at + slot * 96] & 0x7F in (0x70, 0x72)


def test_there_is_a_row_for_every_model_and_level(tmp_path: Path) -> None:
    rows = levels.measure(models=("scsiport",), seconds=0.02, rounds=1, size=16 << 20)
    assert [(row["port"], row["level"]) for row in rows] == [("scsiport", level) for level in LEVELS]
    for row in rows:
        assert row["p50_us"] > 0 and row["echo_p50_us"] > 0
        assert row["large_reads_ratio"] > 0 and row["large_writes_ratio"] > 0 and row["many_ratio"] > 0
