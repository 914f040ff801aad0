"""A server that is told to end finishes: what is under way is answered, what was acknowledged is on disk."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hba.adapters.pvscsi.bench import KICK, MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.structures import FLAG_DIR_TODEVICE, REQ_PROD_IDX
from hba.bench import own_server
from hba.bench.own_server import OwnServer
from hba.control.client import ControlClient
from hba.vfio_user.client import Disconnected
from tests.durability.machine import BLOCK, stamped
from tests.durability.test_power_loss import Mounted, image  # noqa: F401 - a fixture
from tests.storage.test_nbd import Server, needs

WRITES = 8
DELAY = "400ms"  # that the store takes for a write


def slow_store(folder: Path) -> Server:
    needs("nbdkit", "nbdkit")
    backing = folder / "backing"
    with backing.open("wb") as file:
        file.truncate(1 << 20)
    delayed = ["--filter=delay", "file", str(backing), f"wdelay={DELAY}"]
    return Server(folder, lambda socket: ["nbdkit", "-f", "-U", str(socket), *delayed])


def configure(folder: Path, storage: str, port: str) -> Path:
    config = folder / "end.toml"
    config.write_text(
        f'[[adapter]]\ntype = "pvscsi"\nname = "end"\nport = "{port}"\n[[adapter.lun]]\nstorage = {{ {storage} }}\n'
    )
    return config


class Writer(PvscsiBenchDriver):
    """Writes block by block, and looks at the answers afterwards."""

    def write(self, first: int, count: int) -> None:
        """`count` blocks from `first` on, each with its number as its stamp."""
        for number in range(first, first + count):
            at = self._data_at + number * BLOCK
            self.ram.view[at : at + BLOCK] = stamped(number)
            cdb = (
                bytes((0x8A, 0))
                + (number * BLOCK // 512).to_bytes(8, "big")
                + (BLOCK // 512).to_bytes(4, "big")
                + bytes(2)
            )
            self._place(number, cdb, BLOCK, FLAG_DIR_TODEVICE, at, self._produced & MASK)
            self._produced += 1
        self._state[REQ_PROD_IDX // 4] = self._produced & 0xFFFFFFFF
        self._client.region_write(0, KICK, bytes(4), posted=True)

    def answers(self, first: int) -> list[tuple[int, int]]:
        """(context, status word) of the completions there are, from number `first` on."""
        found = []
        for number in range(first, self._state[3]):
            entry = (number & MASK) * 4
            found.append((int(self._completions[entry]), int(self._completions[entry + 2])))
        return found

    def until_hung_up(self) -> None:
        with pytest.raises(Disconnected):
            while True:
                self._client.region_read(0, 0x100C, 4)


def outstanding(server: OwnServer) -> int:
    with ControlClient(server.control) as control:
        count: int = control.call("show.counters")["adapter"]["outstanding"]
        return count


def told_by_signal(server: OwnServer) -> None:
    os.kill(server.child.pid, signal.SIGTERM)


def told_by_an_operator(server: OwnServer) -> None:
    with ControlClient(server.control) as control:
        control.call("server.stop")


@pytest.mark.parametrize("tell", [told_by_signal, told_by_an_operator])
@pytest.mark.parametrize("port", ["storport", "scsiport"])
def test_what_is_under_way_is_answered_and_nothing_new_begins(
    port: str, tell: Callable[[OwnServer], None], tmp_path: Path
) -> None:
    store = slow_store(tmp_path)
    store.start()
    with own_server.start(configure(tmp_path, f'kind = "nbd", uri = "{store.uri}"', port)) as server:
        with Writer(server.socket, 1 << 20) as guest:
            begin = guest._produced
            guest.write(0, WRITES)
            while outstanding(server) < WRITES:
                pass
            assert guest.answers(begin) == [], "the store is not slow"
            tell(server)
            guest.until_hung_up()
            answers = guest.answers(begin)
        assert server.child.wait(30) == 0, (server.folder / "log").read_text()
    store.kill()
    assert sorted(answers) == [(number, 0) for number in range(WRITES)]
    backing = (tmp_path / "backing").read_bytes()
    for number in range(WRITES):
        assert backing[number * BLOCK : (number + 1) * BLOCK] == stamped(number)


def test_a_store_that_does_not_come_back_is_not_waited_for(tmp_path: Path) -> None:
    """Its requests are ended for the guest, and the server ends."""
    store = slow_store(tmp_path)
    store.start()
    with own_server.start(configure(tmp_path, f'kind = "nbd", uri = "{store.uri}"', "storport")) as server:
        with Writer(server.socket, 1 << 20) as guest:
            guest.write(0, WRITES)
            while outstanding(server) < WRITES:
                pass
            store.signal(signal.SIGSTOP)
            told_by_signal(server)
            guest.until_hung_up()
        server.child.wait(60)
    store.signal(signal.SIGCONT)
    store.kill()


def test_what_was_acknowledged_is_stable_at_the_end(image: Path, tmp_path: Path) -> None:  # noqa: F811
    """Without a flush, without FUA: the end is the flush. What the host's kernel only had in its cache is not there."""
    after = tmp_path / "after.img"
    with Mounted(image, tmp_path / "host") as folder:
        storage = f"kind = \"file\", path = '{folder / 'disk'}'"
        with own_server.start(configure(tmp_path, storage, "storport")) as server:
            with Writer(server.socket, 1 << 20) as guest:
                begin = guest._produced
                guest.write(0, WRITES)
                while len(guest.answers(begin)) < WRITES:
                    pass
                shutil.copyfile(image, tmp_path / "before.img")
                told_by_signal(server)
                guest.until_hung_up()
            assert server.child.wait(30) == 0
        shutil.copyfile(image, after)
    with Mounted(after, tmp_path / "again") as folder, (folder / "disk").open("rb") as disk:
        assert [disk.read(BLOCK) for _ in range(WRITES)] == [stamped(number) for number in range(WRITES)]
    with Mounted(tmp_path / "before.img", tmp_path / "before") as folder, (folder / "disk").open("rb") as disk:
        assert disk.read(BLOCK) != stamped(0) or disk.read(BLOCK) != stamped(1), "it was stable before the end"
