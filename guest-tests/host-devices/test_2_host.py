"""kind = "host": a disk of ours on a block device, target 0 by its plain name, target 1 by the name that udev gives it.

Target 1 stays when its device goes (on_gone = "keep"); target 0 is unplugged, as is the default.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import cdb
import pytest
import sgio
from adapter import open_direct, read_at, settle, write_at
from compare import same
from pvscsi import Driver
from server import Server, refused

CHECK_CONDITION = 2
SELECTION_TIMEOUT = 0x11
NOT_READY = (2, 4, 0)  # LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE
MIB = 1 << 20
# What the kernel says of requests for a device that is being deleted: ours, and those of udev, which looks into it.
OFFLINE = "(device offline|I/O) error,? (on )?dev sd"
TARGETS = pytest.mark.parametrize("target", [0, 1], ids=["512", "4096"])


@pytest.fixture(scope="module")
def devices(real):
    """The device behind each of our targets."""
    return {0: real[2], 1: real[3]}


@pytest.fixture(scope="module")
def server(devices, tmp_path_factory):
    units = [
        {"target": 0, "storage": {"kind": "host", "path": devices[0].node}},
        {"target": 1, "block_size": 4096, "on_gone": "keep", "storage": {"kind": "host", "path": devices[1].by_id}},
    ]
    with Server(tmp_path_factory.mktemp("run"), units) as server:
        yield server


@pytest.fixture(scope="module")
def driver(server):
    with Driver(server.socket) as driver:
        for target in (0, 1):
            driver.settle(target)
        yield driver


def content(disk, first: int, size: int) -> bytes:
    """What the disk has there, past the page cache."""
    with open_direct(disk.node, os.O_RDONLY) as fd:
        return read_at(fd, first, size)


def fill(disk, first: int, data: bytes) -> None:
    with open_direct(disk.node, os.O_WRONLY) as fd:
        write_at(fd, first, data)


@TARGETS
def test_the_size_is_the_devices(driver, devices, target):
    answer = driver.run(target, cdb.READ_CAPACITY, 32).data
    assert int.from_bytes(answer[:8], "big") + 1 == devices[target].blocks
    assert int.from_bytes(answer[8:12], "big") == devices[target].block_size


@TARGETS
@pytest.mark.parametrize("size", [4096, 68 * 1024, 2 * MIB])
def test_data_moves_both_ways(driver, devices, target, size):
    disk, start = devices[target], 3 * MIB
    block = disk.block_size
    data = os.urandom(size)
    fill(disk, start - 4096, bytes(size + 8192))
    answer = driver.run(target, cdb.write(start // block, size // block), out=data)
    assert (answer.host, answer.status) == (0, 0)
    assert same(content(disk, start - 4096, size + 8192), bytes(4096) + data + bytes(4096))
    data = os.urandom(size)
    fill(disk, start, data)
    answer = driver.run(target, cdb.read(start // block, size // block), size)
    assert (answer.host, answer.status) == (0, 0)
    assert same(answer.data, data)


@TARGETS
def test_flush_reaches_the_device(driver, devices, target):
    disk = devices[target]
    assert driver.run(target, cdb.write(0, 1), out=bytes(disk.block_size)).status == 0
    before = disk.count("flushes")
    assert driver.run(target, cdb.SYNCHRONIZE_CACHE).status == 0
    assert disk.count("flushes") > before


@TARGETS
def test_unmap_gives_blocks_back(driver, devices, target):
    disk, start, size = devices[target], 8 * MIB, MIB
    block = disk.block_size
    fill(disk, start - 4096, os.urandom(size + 8192))
    answer = driver.run(target, cdb.UNMAP, out=cdb.unmap_list(start // block, size // block))
    assert (answer.host, answer.status) == (0, 0)
    assert same(content(disk, start, size), bytes(size))
    assert any(content(disk, start - 4096, 4096)) and any(content(disk, start + size, 4096))
    extent = sgio.send(disk.generic, cdb.lba_status(start // block), 24).data[8:]
    assert int.from_bytes(extent[8:12], "big") * block >= size, extent.hex()
    assert extent[12] & 15 == 1, "the device says that the blocks are still mapped"


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_what_the_server_uses_nobody_else_gets(server, devices):
    for disk in devices.values():
        with pytest.raises(OSError) as caught:
            os.close(os.open(disk.node, os.O_RDWR | os.O_EXCL))  # as mount(2) has it
        assert caught.value.errno == errno.EBUSY


def test_a_device_in_use_is_refused(server, devices, tmp_path):
    said = refused(tmp_path, {"kind": "host", "path": devices[0].node})
    assert f"{devices[0].node}: cannot open it: it is in use" in said


@pytest.mark.expects_kernel_messages("EXT4-fs")
def test_a_mounted_device_is_refused(real, tmp_path):
    node = real[0].node
    subprocess.run(["mkfs.ext4", "-q", "-F", node], check=True, timeout=120)
    folder = tmp_path / "mnt"
    folder.mkdir()
    subprocess.run(["mount", node, folder], check=True, timeout=60)
    try:
        said = refused(tmp_path, {"kind": "host", "path": node})
    finally:
        subprocess.run(["umount", folder], check=True, timeout=60)
    assert f"{node}: cannot open it: it is in use: unmount it" in said


# -- pulled out -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["read", "write"])
def under_way(request, driver):
    """Starts six long commands at a target: their contexts."""
    size = 2 * MIB

    def start(target, block):
        first, blocks = 16 * MIB // block, size // block
        if request.param == "read":
            return [driver.start(target, cdb.read(first, blocks), size) for _ in range(6)]
        return [driver.start(target, cdb.write(first, blocks), out=bytes(size)) for _ in range(6)]

    return start


@pytest.mark.expects_kernel_messages(OFFLINE)
def test_pulled_out_and_put_back(server, driver, devices, under_way):
    """While commands are under way. It comes back under the same name, because we do not hold on to the old one."""
    disk, data = devices[0], os.urandom(4096)
    assert driver.run(0, cdb.write(2048, 8), out=data).status == 0
    node = disk.node
    sent = under_way(0, 512)
    disk.pull()
    for answer in map(driver.wait, sent):
        done = (answer.host, answer.status) == (0, 0)
        assert done or answer.host == SELECTION_TIMEOUT or answer.condition == NOT_READY, answer[:4]
    assert server.next_event() == ("storage", "gone", 0)
    assert server.next_event() == ("hotplug", "removed", 0)
    assert driver.message() == ("removed", 0)
    for command in (bytes(6), cdb.read(2048, 8), cdb.SYNCHRONIZE_CACHE):
        assert driver.run(0, command, 4096).host == SELECTION_TIMEOUT

    disk.put_back(node)
    assert server.next_event() == ("storage", "back", 0)
    assert server.next_event() == ("hotplug", "added", 0)
    assert driver.message() == ("added", 0)
    answer = driver.run(0, bytes(6))
    assert (answer.status, answer.condition) == (CHECK_CONDITION, (6, 0x29, 0x01))
    driver.settle(0)
    assert same(driver.run(0, cdb.read(2048, 8), 4096).data, data)
    assert driver.no_message()


@pytest.mark.expects_kernel_messages(OFFLINE)
def test_a_unit_that_stays_is_not_ready(server, driver, devices, under_way):
    disk, data = devices[1], os.urandom(4096)
    assert driver.run(1, cdb.write(256, 1), out=data).status == 0
    sent = under_way(1, 4096)
    disk.pull()
    for answer in map(driver.wait, sent):
        assert (answer.host, answer.condition) in ((0, (0, 0, 0)), (0, NOT_READY)), answer[:4]
    assert server.next_event() == ("storage", "gone", 1)
    for command in (bytes(6), cdb.read(256, 1), cdb.SYNCHRONIZE_CACHE):
        answer = driver.run(1, command, 4096)
        assert (answer.host, answer.status, answer.condition) == (0, CHECK_CONDITION, NOT_READY)
    assert driver.run(1, cdb.write(256, 1), out=bytes(4096)).condition == NOT_READY
    assert driver.run(1, cdb.inquiry(255), 255).status == 0
    assert server.unit(1)["medium"] == "gone"

    disk.put_back()
    assert server.next_event() == ("storage", "back", 1)
    answer = driver.run(1, bytes(6))
    assert (answer.status, answer.condition) == (CHECK_CONDITION, (6, 0x28, 0))
    assert driver.run(1, bytes(6)).status == 0
    assert same(driver.run(1, cdb.read(256, 1), 4096).data, data)
    # What was written before it went had not been flushed: nobody knows whether its cache survived. It is said once.
    answer = driver.run(1, cdb.SYNCHRONIZE_CACHE)
    assert (answer.status, answer.condition) == (CHECK_CONDITION, (3, 0x0C, 0))
    assert "those writes may be lost" in server.unit(1)["latest_storage_error"]
    assert driver.run(1, cdb.SYNCHRONIZE_CACHE).status == 0
    assert driver.no_message()


def uevents() -> int:
    """How many pieces of news the kernel has had so far."""
    return int(Path("/sys/kernel/uevent_seqnum").read_text())


@pytest.fixture
def no_udev():
    """udevd does nothing with the kernel's news, as if there were none (in a container)."""
    subprocess.run(["udevadm", "control", "--stop-exec-queue"], check=True, timeout=60)
    yield
    subprocess.run(["udevadm", "control", "--start-exec-queue"], check=True, timeout=60)
    settle()


def test_the_kernels_news_are_enough(server, driver, devices, no_udev):
    disk = devices[0]
    node = disk.node
    disk.pull()
    assert server.next_event() == ("storage", "gone", 0)
    assert server.next_event() == ("hotplug", "removed", 0)
    disk.put_back(node, udev=False)
    assert server.next_event() == ("storage", "back", 0)
    assert server.next_event() == ("hotplug", "added", 0)
    assert [driver.message() for _ in range(2)] == [("removed", 0), ("added", 0)]
    driver.settle(0)
    assert same(driver.run(0, cdb.read(0, 1), 512).data, content(disk, 0, 4096)[:512])


@pytest.mark.expects_kernel_messages(OFFLINE)
def test_another_disk_under_its_name_is_not_taken(real, tmp_path):
    """The kernel gives free names away again, the lowest first: what the guest writes does not belong on that disk.

    Here one disk is used both ways, which the administrator of pass-through has to answer for.
    """
    ours, other = sorted((real[0], real[1]), key=lambda disk: disk.node)
    node, block = ours.node, ours.block_size
    units = [
        {"target": 3, "block_size": block, "storage": {"kind": "host", "path": node}},
        {"target": 4, "storage": {"kind": "scsi", "path": node}},
    ]
    with Server(tmp_path, units) as server, Driver(server.socket) as driver:
        for target in (3, 4):
            driver.settle(target)
        ours.pull()
        other.pull()
        assert {server.next_event() for _ in range(4)} == {
            (topic, what, target) for topic, what in (("storage", "gone"), ("hotplug", "removed")) for target in (3, 4)
        }
        other.put_back(node)
        ours.put_back()
        before = uevents()
        assert server.quiet(3.0), "longer than the server waits to look again"
        assert uevents() - before < 5, "the kernel has news without end: somebody opens and closes the disk"
        for target in (3, 4):
            assert driver.run(target, cdb.read(0, 1), block).host == SELECTION_TIMEOUT
        other.pull()
        ours.pull()
        ours.put_back(node)
        assert {server.next_event() for _ in range(4)} == {
            (topic, what, target) for topic, what in (("storage", "back"), ("hotplug", "added")) for target in (3, 4)
        }
        for target in (3, 4):
            driver.settle(target)
            assert same(driver.run(target, cdb.read(0, 1), block).data, content(ours, 0, 4096)[:block])
