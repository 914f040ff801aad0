"""The end of a window, played many times between two processes: a real server, and a driver at any moment."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from hba.adapters.pvscsi.bench import KICK, PvscsiBenchDriver
from hba.adapters.pvscsi.registers import CMD_SETUP_REQCALLTHRESHOLD
from hba.adapters.pvscsi.structures import REQ_CALL_THRESHOLD, REQ_CONS_IDX, REQ_PROD_IDX
from hba.bench import own_server
from hba.control.client import ControlClient

PLAYS = 5_000
WINDOW = 100  # µs
PAUSE = 3 * WINDOW // 2  # at most, between two requests: windows are open, about to close and closed

CONFIG = """
[[adapter]]
type = "pvscsi"
name = "race"
port = "{port}"
poll = {{ window = {window}, share = 1 }}
[[adapter.lun]]
storage = {{ kind = "memory", size = "1M" }}
"""


class Linux(PvscsiBenchDriver):
    """Kicks as vmw_pvscsi does that has asked for a threshold (pvscsi_kick_io)."""

    kicks = 0

    def ask(self) -> None:
        self._command(CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little"))

    def _submit(self, count: int) -> None:
        self._produced += count
        state = self._state
        state[REQ_PROD_IDX // 4] = self._produced & 0xFFFFFFFF
        waiting = (state[REQ_PROD_IDX // 4] - state[REQ_CONS_IDX // 4]) & 0xFFFFFFFF
        if waiting >= state[REQ_CALL_THRESHOLD // 4]:
            self.kicks += 1
            self._client.region_write(0, KICK, b"\0\0\0\0", posted=True)


class Deaf(Linux):
    """Has asked for a threshold, and kicks for every request all the same."""

    def _submit(self, count: int) -> None:
        self.kicks += count
        PvscsiBenchDriver._submit(self, count)


@pytest.mark.parametrize("port", ["storport", "scsiport"])
@pytest.mark.parametrize("kind", [Linux, Deaf])
def test_no_wake_up_is_lost(kind: type[Linux], port: str, tmp_path: Path) -> None:
    """A lost one would be a command that never ends: the driver does not kick twice."""
    config = tmp_path / "race.toml"
    config.write_text(CONFIG.format(port=port, window=WINDOW))
    source = random.Random(port)
    with (
        own_server.start(config) as server,
        ControlClient(server.control) as client,
        kind(server.socket, 1 << 20) as driver,
    ):
        driver.ask()
        driver.kicks = 0
        for _ in range(PLAYS):
            until = time.perf_counter_ns() + source.randrange(PAUSE) * 1000
            while time.perf_counter_ns() < until:
                pass
            assert driver.command(bytes(6)) == 0
        adapter: Any = client.call("show.all")
    assert adapter["verifier"]["counts"] == {}
    if kind is Linux:
        poll = adapter["queues"]["adapter"]["moderation"]["poll"]
        assert poll["found"] > 0  # windows that were open in time
        assert 0 < driver.kicks < PLAYS  # and some that were not
