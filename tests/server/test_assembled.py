"""A whole adapter in its own process: what only shows when the layers are wired."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.adapters.bench import BASE, CONFIG
from hba.adapters.pvscsi.bench import COMMAND, MASK, PvscsiBenchDriver
from hba.adapters.pvscsi.registers import CMD_SETUP_RINGS
from hba.adapters.pvscsi.structures import CMP_CONS_IDX, FLAG_DIR_TODEVICE, SETUP_RINGS
from hba.bench import own_server
from hba.bench.own_server import OwnServer
from hba.cli import machine
from hba.control.client import ControlClient
from hba.control.protocol import encode
from hba.errors import GuestError, SocketError, StorageError
from hba.storage import libnbd
from hba.vfio_user.client import GuestRam, VfioUserClient

FOREVER = 3600.0


@pytest.fixture(params=["scsiport", "storport"])
def port(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def server(port: str, engine: str) -> Iterator[OwnServer]:
    with own_server.start(None, port=port, engine=engine, size=16 << 20) as server:
        yield server


def use(server: OwnServer, commands: int = 100) -> None:
    """A guest's life: connect, read, leave."""
    with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        driver.prepare([(False, 0, 4096)], 512)
        driver.run(FOREVER, 32, most=commands)


def left(client: ControlClient) -> None:
    """Wait until the server has seen its client go, and has done what follows from it."""
    for event in client.events():
        if event["data"] == {"event": "left"}:
            break
    client.call("ping")
    client.call("ping")


def test_the_guests_memory_is_let_go_when_it_leaves(server: OwnServer) -> None:
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        use(server)
        left(client)
        assert client.call("show.dma") == []
        assert "memfd" not in Path(f"/proc/{server.pid}/maps").read_text()


def test_guests_may_come_and_go(server: OwnServer) -> None:
    fds = Path(f"/proc/{server.pid}/fd")
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        use(server)
        left(client)
        before = len(list(fds.iterdir()))
        for _ in range(5):
            use(server)
            left(client)
        for _ in range(100):  # the server tidies up behind a guest after it has told that it left
            if len(list(fds.iterdir())) <= before:
                break
            client.call("ping")
        assert len(list(fds.iterdir())) <= before
        counters = client.call("show.counters")
    assert counters["pci"]["connections"] == 6
    assert counters["adapter"]["requests"] == counters["adapter"]["completions"]


def test_a_unit_added_while_the_guest_runs_is_there(server: OwnServer) -> None:
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["hotplug"])
        with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
            assert driver.capacity()[0] == (16 << 20) // 512
            answer = client.call("lun.add", unit={"target": 5, "storage": {"kind": "memory", "size": "4M"}})
            untold = answer["announcement"]["why"]
            assert "no message ring" in untold
            assert next(client.events())["data"] == {
                "change": "added",
                "unit": "0:5:0",
                "target": 5,
                "lun": 0,
                "untold": untold,
            }
        with PvscsiBenchDriver(server.socket, 1 << 20, target=5) as driver:
            assert driver.capacity()[0] == (4 << 20) // 512
            client.call("lun.remove", target=5)
            with pytest.raises(GuestError, match="READ CAPACITY"):
                driver.capacity()


def test_the_guest_goes_on_while_an_nbd_server_does_not_answer(server: OwnServer, tmp_path: Path) -> None:
    """It was connected to in the loop: register accesses and everybody else waited for its time-out."""
    try:
        libnbd.load()
    except StorageError as problem:
        pytest.skip(str(problem))
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(tmp_path / "nbd.sock"))
    silent.listen()
    storage = {"kind": "nbd", "uri": f"nbd+unix:///?socket={tmp_path}/nbd.sock", "connect_timeout": 60.0}
    with ControlClient(server.control) as client, ControlClient(server.control) as other:
        client._socket.sendall(
            encode({"id": 9, "method": "lun.add", "params": {"unit": {"target": 7, "storage": storage}}})
        )
        peer, _ = silent.accept()
        use(server)
        assert [unit["target"] for unit in other.call("lun.ls")] == [0]
        peer.close()
        silent.close()
        assert "cannot connect" in client._line()["error"]["message"]
        other.call("lun.add", unit={"target": 7, "storage": {"kind": "memory", "size": "1M"}})


def test_requests_are_traced_for_those_who_ask(tmp_path: Path, port: str) -> None:
    config = tmp_path / "hba.toml"
    config.write_text(
        f'[[adapter]]\ntype = "pvscsi"\nport = "{port}"\ntrace = {{ enabled = true }}\n'
        '[[adapter.lun]]\nstorage = { kind = "memory", size = "1M" }\n'
    )
    with own_server.start(config) as server, ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["trace"])
        use(server, 3)
        kinds = set()
        for event in client.events():
            kinds.add(event["data"]["kind"])
            if "submit" in kinds and "complete" in kinds:
                break
        client.call("events.unsubscribe", topics=["trace"])


def test_without_msi_the_adapter_has_no_such_capability(tmp_path: Path) -> None:
    config = tmp_path / "hba.toml"
    config.write_text('[[adapter]]\ntype = "pvscsi"\npci = { msi = false }\n')
    with own_server.start(config) as server:
        with pytest.raises(GuestError, match="no PCI capability 0x5"):
            PvscsiBenchDriver(server.socket, 1 << 20)
        with ControlClient(server.control) as client:
            names = {register["name"] for register in client.call("show.regs")["config"]["registers"]}
    assert "MSI_CONTROL" not in names


def test_a_disk_that_shrinks_gives_errors_and_the_server_stays_up(server: OwnServer) -> None:
    disk = server.folder / "disk.img"
    with disk.open("r+b") as file:
        file.truncate(1 << 20)
    with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        driver.prepare([(False, 8 << 20, 4096)], 512)
        with pytest.raises(GuestError, match="a command ended"):
            driver.run(FOREVER, 1, most=4)
    with ControlClient(server.control) as client:
        client.call("ping")


REGISTER = bytes.fromhex("5f000000000000001800")
READ_KEYS = bytes.fromhex("5e000000000000002000")


def keys(driver: PvscsiBenchDriver) -> int:
    driver.command(READ_KEYS, 32)
    if driver.command(READ_KEYS, 32):  # the first may have got the unit attention
        raise AssertionError("READ KEYS failed")
    return int.from_bytes(driver.ram.view[driver._data_at + 4 : driver._data_at + 8], "big") // 8


def register(driver: PvscsiBenchDriver) -> None:
    """PERSISTENT RESERVE OUT, REGISTER, without APTPL."""
    at = driver._data_at
    driver.ram.view[at : at + 24] = bytes(8) + (77).to_bytes(8, "big") + bytes(8)
    slot = driver._produced & MASK
    driver._place(0, REGISTER, 24, FLAG_DIR_TODEVICE, at, slot)
    driver._submit(1)
    driver._wait(driver._produced)
    driver._state[CMP_CONS_IDX // 4] = driver._produced & 0xFFFFFFFF
    assert driver._completions[slot * 4 + 2] == 0


def test_a_new_guest_finds_a_new_adapter(server: OwnServer) -> None:
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
            driver.capacity()
            register(driver)
            assert keys(driver) == 1
            assert client.call("show.regs")["bus_master"] is True
        left(client)
        unit = client.call("lun.ls")[0]
        assert unit["reservations"]["keys"] == {} and unit["unit_attentions"] == {"7": ["062901"]}
        assert client.call("show.regs")["bus_master"] is False
        assert client.call("show.irq")["mode"] != "msi"
        assert client.call("show.queues")["adapter"]["rings"] is None
        with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
            assert keys(driver) == 0


def test_a_reboot_is_no_new_guest(server: OwnServer) -> None:
    """The disks have kept their power."""
    with ControlClient(server.control) as client, PvscsiBenchDriver(server.socket, 1 << 20) as driver:
        driver.capacity()
        register(driver)
        driver._client.reset()
        unit = client.call("lun.ls")[0]
        assert list(unit["reservations"]["keys"]) == ["7"] and unit["unit_attentions"] == {"7": ["062902"]}


def test_what_a_guest_left_behind_is_not_used_in_the_memory_of_the_next(server: OwnServer) -> None:
    """Its ring addresses lived on: a unit that was added then wrote into two pages of the next guest's memory."""
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        with PvscsiBenchDriver(server.socket, 1 << 20) as driver:
            driver.capacity()
            size = driver.ram.size
        left(client)
        with VfioUserClient.connect(server.socket) as second, GuestRam(size, BASE) as ram:
            second.version()
            second.map_ram(ram)
            second.region_write(7, 0x04, b"\x06\x00")
            for target in range(20, 30):
                answer = client.call("lun.add", unit={"target": target, "storage": {"kind": "memory", "size": "1M"}})
                assert "no driver has set up" in answer["announcement"]["why"]
            second.region_write(0, 0x4018, bytes(4))
            second.region_read(0, 8, 4)
            client.call("ping")
            assert not any(ram.view)


def test_what_a_guest_did_is_seen_though_nothing_is_outstanding(server: OwnServer, port: str) -> None:
    use(server, 200)
    with ControlClient(server.control) as client:
        queues = client.call("show.queues")
        (unit,) = queues["adapter"]["traffic"]
        luns = client.call("show.luns")
    assert unit["unit"] == luns[0]["unit"] == queues["port"]["units"][0]["address"] == "0:0:0"
    assert unit["requests"] >= 200 and unit["outstanding"] == 0 and unit["highest"] > 1
    latency = unit["latency"]
    assert 0 < latency["mean"] <= latency["max"] and 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert sum(latency["histogram"].values()) == unit["requests"]
    mapped = "STOR_MAP_NON_READ_WRITE_BUFFERS" if port == "storport" else False
    assert queues["port"]["adapter"]["map_buffers"] == mapped


def test_a_second_client_is_told_and_so_is_everybody_else(server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        with PvscsiBenchDriver(server.socket, 1 << 20):
            assert next(client.events())["data"] == {"event": "connected"}
            mine = f"pid {os.getpid()} ("
            assert client.call("show.summary")["client"].startswith(mine)
            monkeypatch.setenv("HBA_RUNTIME_DIR", str(server.control.parent))
            (check,) = [check for check in machine.examine() if check.name == "adapter"]
            assert f"(pid {server.pid}): its socket is in use by {mine}" in check.found
            with pytest.raises(SocketError, match=r"busy with another client.*Device or resource busy.*`hba ls` says"):
                PvscsiBenchDriver(server.socket, 1 << 20)
            data = next(client.events())["data"]
        assert data["event"] == "refused" and data["message"].count(mine) == 2
        left(client)
        assert client.call("show.summary")["client"] is None


def test_rings_in_memory_that_was_never_given_are_told_of_with_the_cause(server: OwnServer) -> None:
    words = struct.pack("<III", 1, 1, 5) + bytes(SETUP_RINGS.size - 12)
    with ControlClient(server.control) as client:
        client.call("events.subscribe", topics=["client"])
        with VfioUserClient.connect(server.socket) as guest:
            guest.version()
            guest.region_write(CONFIG, 0x04, (0x0006).to_bytes(2, "little"))
            for _ in range(3):
                guest.region_write(0, COMMAND, CMD_SETUP_RINGS.to_bytes(4, "little"))
                for at in range(0, len(words), 4):
                    guest.region_write(0, COMMAND + 4, words[at : at + 4])
            unreachable = client.call("show.queues")["adapter"]["unreachable"]
        assert "the client has given no memory at all; for QEMU: -object memory-backend-memfd" in unreachable
        heard = []
        for event in client.events():
            heard.append(event["data"])
            if heard[-1] == {"event": "left"}:
                break
    assert [data["event"] for data in heard] == ["connected", "unreachable", "left"]
    assert unreachable in heard[1]["message"]
