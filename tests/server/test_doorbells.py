"""PVSCSI's kicks as events: a client that asks for them does I/O without a message for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import KICK, PvscsiBenchDriver
from hba.bench import own_server
from hba.control.client import ControlClient


class EventDriver(PvscsiBenchDriver):
    """Kicks by an event."""

    kicks = 0

    def _bring_up(self) -> None:
        self.doorbells = {doorbell.offset: doorbell for doorbell in self._client.region_io_fds(0)}
        super()._bring_up()

    def _submit(self, count: int) -> None:
        client, self._client = self._client, _NoKick(self)  # type: ignore[assignment]
        try:
            super()._submit(count)
        finally:
            self._client = client

    def close(self) -> None:
        for doorbell in self.doorbells.values():
            os.close(doorbell.fd)
        super().close()


class _NoKick:
    def __init__(self, driver: EventDriver) -> None:
        self._driver = driver

    def region_write(self, region: int, offset: int, data: bytes, *, posted: bool) -> None:
        assert (region, offset) == (0, KICK)
        self._driver.kicks += 1
        os.eventfd_write(self._driver.doorbells[offset].fd, 1)


def config(folder: Path, pci: str) -> Path:
    (folder / "disk.img").write_bytes(os.urandom(4 << 20))
    path = folder / "hba.toml"
    path.write_text(
        '[[adapter]]\ntype = "pvscsi"\nname = "bells"\nverifier = { level = "report" }\n'
        f"[adapter.pci]\n{pci}\n[[adapter.lun]]\nstorage = {{ kind = \"file\", path = '{folder}/disk.img' }}\n"
    )
    return path


def test_reads_that_were_kicked_for_by_events(tmp_path: Path) -> None:
    with own_server.start(config(tmp_path, "")) as server, EventDriver(server.socket, 1 << 20) as driver:
        assert sorted((doorbell.offset, doorbell.size) for doorbell in driver.doorbells.values()) == [
            (0x3014, 4),
            (0x4018, 4),
        ]
        driver.prepare([(False, 8192, 4096)], 512)
        commands, _, _ = driver.run(3600.0, 8, most=500)
        assert commands == 500
        data = driver.ram.view[driver._data_at : driver._data_at + 4096]
        assert data == (tmp_path / "disk.img").read_bytes()[8192:12288]
        data.release()
        with ControlClient(server.control) as control:
            counters = control.call("show.counters")["adapter"]
            assert 0 < counters["kicks"] <= driver.kicks
            assert control.call("show.verifier")["findings"] == []


@pytest.mark.parametrize("pci", ["ioeventfd = false", "posted_writes = true"])
def test_they_are_not_offered_where_they_are_not_wanted(tmp_path: Path, pci: str) -> None:
    with own_server.start(config(tmp_path, pci)) as server, PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        assert driver._client.region_io_fds(0) == []
