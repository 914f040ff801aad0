"""A client makes its memory file smaller after it was mapped: the adapter is back at once, and no other notices.

An access to such memory by our own code ends the process (SIGBUS); one by the kernel for us is an error (EFAULT).
"""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import COMPLETION_PAGES, KICK, MASK, REQUEST_PAGES, SENSE_PAGES, PvscsiBenchDriver
from hba.adapters.pvscsi.registers import CMD_CONFIG
from hba.adapters.pvscsi.structures import (
    CMP_PROD_IDX,
    CONFIG,
    CONFIG_CONTROLLER_ADDRESS,
    CONFIG_PAGE_CONTROLLER,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    FLAG_WITH_SG_LIST,
    PAGE_SIZE,
    REQ_PROD_IDX,
    REQUEST_SIZE,
)
from hba.errors import HbaError
from hba.vfio_user.client import Disconnected
from tests.server.several import Several

READ, WRITE, INQUIRY, UNKNOWN = "28000000000000000800", "2a000000000000000800", "120000006000", "ff0000000000"
SENSE_FIELDS = 24  # bytes into a request descriptor: senseAddr, senseLen
RINGS = PAGE_SIZE
COMPLETIONS = RINGS + REQUEST_PAGES * PAGE_SIZE
DATA = COMPLETIONS + (COMPLETION_PAGES + SENSE_PAGES) * PAGE_SIZE


@pytest.fixture
def server(tmp_path: Path, engine: str) -> Iterator[Several]:
    """Two adapters, `victim` and `other`, each with a file."""
    text = ""
    for name in ("victim", "other"):
        (tmp_path / f"{name}.img").write_bytes(os.urandom(1 << 20))
        text += f'[[adapter]]\ntype = "pvscsi"\nname = "{name}"\nengine = "{engine}"\n[[adapter.lun]]\n'
        text += f'storage = {{ kind = "file", path = "{name}.img" }}\n'
    server = Several(tmp_path, text, 2)
    yield server
    server.close()


def cut_under(driver: PvscsiBenchDriver, size: int, cdb: str, flags: int = FLAG_DIR_TOHOST, sense_at: int = 0) -> None:
    """Put a command on the ring, cut the memory to `size` bytes, kick. What was cut is not touched here any more."""
    slot = driver._produced & MASK
    driver._place(0, bytes.fromhex(cdb), 4096, flags, driver._data_at, slot)
    if sense_at:
        descriptor = driver._requests_at + slot * REQUEST_SIZE
        struct.pack_into("<QI", driver.ram.view, descriptor + SENSE_FIELDS, driver.ram.iova + sense_at, 96)
    driver._produced += 1
    driver._state[REQ_PROD_IDX // 4] = driver._produced
    os.ftruncate(driver.ram.fd, size)
    driver._client.region_write(0, KICK, bytes(4), posted=True)


def cut_under_config(driver: PvscsiBenchDriver) -> None:
    """Ask for a configuration page in memory that is gone."""
    address = driver.ram.iova + DATA
    os.ftruncate(driver.ram.fd, DATA)
    with pytest.raises(Disconnected):
        driver._command(CMD_CONFIG, CONFIG.pack(address, CONFIG_CONTROLLER_ADDRESS << 32, CONFIG_PAGE_CONTROLLER, 0))


@pytest.mark.parametrize(
    "touch",
    [
        pytest.param(lambda driver: cut_under(driver, 0, READ), id="ring indices"),
        pytest.param(lambda driver: cut_under(driver, RINGS, READ), id="request ring"),
        pytest.param(lambda driver: cut_under(driver, COMPLETIONS, READ), id="completion ring"),
        pytest.param(lambda driver: cut_under(driver, DATA, INQUIRY), id="data that we copy"),
        pytest.param(
            lambda driver: cut_under(driver, DATA, READ, FLAG_DIR_TOHOST | FLAG_WITH_SG_LIST), id="scatter list"
        ),
        pytest.param(lambda driver: cut_under(driver, DATA, UNKNOWN, sense_at=DATA), id="sense buffer"),
        pytest.param(cut_under_config, id="configuration page"),
    ],
)
def test_an_adapter_that_dies_of_it_is_back_and_the_other_never_notices(
    server: Several, touch: Callable[[PvscsiBenchDriver], None]
) -> None:
    failed: list[Exception] = []
    with server.driver("other") as other:
        other.prepare([(False, 0, 4096)], 512)

        def work() -> None:
            try:
                other.run(3600.0, 8, most=3000)
            except HbaError as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        with server.driver("victim") as victim:
            touch(victim)
            restarting, listening = server.event(), server.event()
        thread.join()
    assert not failed
    assert (restarting["event"], restarting["adapter"], restarting["number"]) == ("restarting", "victim", 1)
    assert "ended by SIGBUS: memory that it had mapped went away" in restarting["message"]
    assert (listening["event"], listening["adapter"]) == ("listening", "victim")
    os.kill(server.pids["other"], 0)
    with server.driver("victim") as again:
        again.prepare([(False, 0, 4096)], 512)
        again.run(3600.0, 8, most=100)
    log = server.log.read_text()
    assert "adapter victim: ended by SIGBUS" in log and "its client has to connect anew" in log


@pytest.mark.parametrize("cdb", [READ, WRITE])
def test_data_that_the_kernel_moves_is_an_error_of_that_command(server: Several, cdb: str) -> None:
    with server.driver("victim") as victim:
        cut_under(victim, DATA, cdb, FLAG_DIR_TODEVICE if cdb == WRITE else FLAG_DIR_TOHOST)
        victim._wait(victim._produced)
        slot = (victim._produced - 1) & MASK
        assert victim._state[CMP_PROD_IDX // 4] == victim._produced
        assert int(victim._completions[slot * 4 + 2]) >> 48 == 0x02  # CHECK CONDITION
    os.kill(server.pids["victim"], 0)
    with server.driver("victim") as again:
        again.prepare([(False, 0, 4096)], 512)
        again.run(3600.0, 8, most=100)
    assert signal.SIGBUS.name not in server.log.read_text()
