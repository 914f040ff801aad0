"""kind = "scsi": every answer is the device's own. Target 0 by its generic node, target 1 by its block device."""

from __future__ import annotations

import os
import subprocess

import cdb
import pytest
import sgio
from adapter import open_direct, read_at, write_at
from compare import same
from pvscsi import Driver
from server import Server, refused

CHECK_CONDITION = 2
SELECTION_TIMEOUT = 0x11
MIB = 1 << 20
OFFLINE = "(device offline|I/O) error,? (on )?dev sd"  # what udev gets of a device it looks into while it is deleted
TARGETS = pytest.mark.parametrize("target", [0, 1], ids=["sg", "sd"])


@pytest.fixture(scope="module")
def server(real, tmp_path_factory):
    units = [
        {"target": 0, "storage": {"kind": "scsi", "path": real[0].generic}},
        {"target": 1, "storage": {"kind": "scsi", "path": real[1].node}},
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


# -- what it says of itself -------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize(
    "page", [None, 0x00, 0x80, 0x83, 0xB1, 0xB2], ids=lambda page: "" if page is None else hex(page)
)
def test_inquiry_is_the_devices(driver, real, target, page):
    measure = sgio.send(real[target].generic, cdb.inquiry(512, page), 512)
    assert measure.status == 0 and len(measure.data) >= 8
    answer = driver.run(target, cdb.inquiry(512, page), 512)
    assert (answer.host, answer.status, answer.data) == (0, 0, measure.data)
    if page == 0x80:
        assert answer.data[4:].decode() == real[target].expected["serial"]


@TARGETS
def test_block_limits_are_the_devices_but_for_what_the_kernel_can_send(driver, real, target):
    """MAXIMUM and OPTIMAL TRANSFER LENGTH may be less than the device's: the way there has limits of its own."""
    measure = sgio.send(real[target].generic, cdb.inquiry(64, 0xB0), 64).data
    answer = driver.run(target, cdb.inquiry(64, 0xB0), 64).data
    assert (answer[:8], answer[16:]) == (measure[:8], measure[16:])
    for field in (slice(8, 12), slice(12, 16)):
        assert int.from_bytes(answer[field], "big") <= int.from_bytes(measure[field], "big")
    assert int.from_bytes(answer[8:12], "big") * real[target].block_size >= 64 * 1024


@TARGETS
def test_capacity_is_the_devices(driver, real, target):
    answer = driver.run(target, cdb.READ_CAPACITY, 32)
    assert answer.data == sgio.send(real[target].generic, cdb.READ_CAPACITY, 32).data
    assert int.from_bytes(answer.data[:8], "big") + 1 == real[target].blocks
    assert int.from_bytes(answer.data[8:12], "big") == real[target].block_size


@TARGETS
def test_the_units_are_those_of_our_target(driver, target):
    answer = driver.run(target, cdb.REPORT_LUNS, 256)
    assert answer.data == (8).to_bytes(4, "big") + bytes(4) + bytes(8)


# -- data -------------------------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("size", [4096, 68 * 1024, 256 * 1024])
def test_data_reaches_the_device(driver, real, target, size):
    disk, start, data = real[target], 3 * MIB, os.urandom(size)
    fill(disk, start - 4096, bytes(size + 8192))
    answer = driver.run(target, cdb.write(start // disk.block_size, size // disk.block_size), out=data)
    assert (answer.host, answer.status, answer.moved) == (0, 0, size)
    assert same(content(disk, start - 4096, size + 8192), bytes(4096) + data + bytes(4096))


@TARGETS
@pytest.mark.parametrize("size", [4096, 68 * 1024, 256 * 1024])
def test_data_comes_from_the_device(driver, real, target, size):
    disk, start, data = real[target], 5 * MIB, os.urandom(size)
    fill(disk, start, data)
    answer = driver.run(target, cdb.read(start // disk.block_size, size // disk.block_size), size)
    assert (answer.host, answer.status) == (0, 0)
    assert same(answer.data, data)


@TARGETS
def test_the_longest_transfer_it_announces_works(driver, real, target):
    disk, start = real[target], 8 * MIB
    limits = driver.run(target, cdb.inquiry(64, 0xB0), 64).data
    blocks = min(int.from_bytes(limits[8:12], "big"), 4 * MIB // disk.block_size)
    size = blocks * disk.block_size
    data = os.urandom(size)
    answer = driver.run(target, cdb.write(start // disk.block_size, blocks), out=data)
    assert (answer.host, answer.status, answer.condition) == (0, 0, (0, 0, 0)), f"writing {size} bytes"
    assert same(content(disk, start, size), data)
    answer = driver.run(target, cdb.read(start // disk.block_size, blocks), size)
    assert (answer.host, answer.status, answer.condition) == (0, 0, (0, 0, 0)), f"reading {size} bytes"
    assert same(answer.data, data)


@TARGETS
def test_several_at_a_time(driver, real, target):
    disk, start, data = real[target], 16 * MIB, os.urandom(8 * 4096)
    step = 4096 // disk.block_size
    sent = [
        driver.start(target, cdb.write(start // disk.block_size + at * step, step), out=data[at * 4096 :][:4096])
        for at in range(8)
    ]
    assert {driver.wait(context).status for context in sent} == {0}
    assert same(content(disk, start, len(data)), data)
    sent = [driver.start(target, cdb.read(start // disk.block_size + at * step, step), 4096) for at in range(8)]
    assert same(b"".join(driver.wait(context).data for context in sent), data)


@TARGETS
def test_less_than_asked_for_leaves_a_residual(driver, real, target):
    request = cdb.inquiry(255, 0x83)
    measure = sgio.send(real[target].generic, request, 255)
    assert len(measure.data) < 255
    answer = driver.run(target, request, 255)
    assert answer.moved == len(measure.data)
    assert answer.buffer[answer.moved :] == bytes((0xA5,)) * (255 - answer.moved), "more was written than came"


@TARGETS
def test_a_buffer_larger_than_the_command(driver, real, target):
    size = real[target].block_size
    answer = driver.run(target, cdb.read(0, 1), 4 * size)
    assert (answer.status, answer.moved) == (0, size)
    assert same(answer.data, content(real[target], 0, 4096)[:size])
    assert answer.buffer[size:] == bytes((0xA5,)) * (3 * size)


# -- what goes wrong --------------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize(
    ("what", "condition"),
    [("beyond the end", (5, 0x21, 0)), ("no such command", (5, 0x20, 0)), ("no such page", (5, 0x24, 0))],
)
def test_a_refusal_is_the_devices_own(driver, real, target, what, condition):
    disk = real[target]
    command = {
        "beyond the end": cdb.read(disk.blocks, 1),
        "no such command": bytes((0xC4, *[0] * 9)),
        "no such page": cdb.inquiry(255, 0x7E),
    }[what]
    measure = sgio.send(disk.generic, command, 4096)
    assert measure.status == CHECK_CONDITION
    answer = driver.run(target, command, 4096)
    assert (answer.host, answer.status, answer.sense) == (0, CHECK_CONDITION, measure.sense)
    assert answer.condition == condition
    assert answer.moved == 0 and set(answer.buffer) == {0xA5}, "there was no data"


@TARGETS
@pytest.mark.expects_kernel_messages("SCSI device reset on")
def test_a_unit_attention_of_the_device_is_passed_on(driver, real, target):
    """The device is reset behind our server's back."""

    def reset() -> None:
        subprocess.run(["sg_reset", "--device", real[target].generic], check=True, timeout=60)

    reset()
    measure = sgio.send(real[target].generic, bytes(6))
    assert measure.status == CHECK_CONDITION and sgio.send(real[target].generic, bytes(6)).status == 0
    reset()
    answer = driver.run(target, bytes(6))
    assert (answer.host, answer.status, answer.sense) == (0, CHECK_CONDITION, measure.sense)
    assert (answer.condition[0], answer.condition[1]) == (6, 0x29)
    assert driver.run(target, bytes(6)).status == 0


def test_a_generic_device_that_somebody_has_for_himself_is_refused(real, tmp_path):
    holder = os.open(real[2].generic, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK)
    try:
        said = refused(tmp_path, {"kind": "scsi", "path": real[2].generic})
    finally:
        os.close(holder)
    assert "another program has it for itself" in said


# -- pulled out -------------------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.expects_kernel_messages(OFFLINE)
def test_pulled_out_and_put_back(server, driver, real, target):
    """While commands are under way. It comes back under the same name, because we do not hold on to the old one."""
    disk, data = real[target], os.urandom(64 * 1024)
    start, blocks = 20 * MIB // disk.block_size, len(data) // disk.block_size
    assert driver.run(target, cdb.write(start, blocks), out=data).status == 0
    name = disk.generic if target == 0 else disk.node
    sent = [driver.start(target, cdb.read(start, blocks), len(data)) for _ in range(6)]
    disk.pull()
    for answer in map(driver.wait, sent):
        assert answer.host == SELECTION_TIMEOUT or (answer.status == 0 and same(answer.data, data)), answer[:4]
    assert server.next_event() == ("storage", "gone", target)
    assert server.next_event() == ("hotplug", "removed", target)
    assert driver.message() == ("removed", target)
    assert driver.run(target, bytes(6)).host == SELECTION_TIMEOUT
    assert driver.run(target, cdb.read(start, blocks), len(data)).host == SELECTION_TIMEOUT

    disk.put_back(name)
    assert server.next_event() == ("storage", "back", target)
    assert server.next_event() == ("hotplug", "added", target)
    assert driver.message() == ("added", target)
    answer = driver.run(target, bytes(6))
    assert (answer.status, answer.condition) == (CHECK_CONDITION, (6, 0x29, 0x01))
    driver.settle(target)
    assert same(driver.run(target, cdb.read(start, blocks), len(data)).data, data)
    assert driver.no_message()


def test_the_other_unit_did_not_notice(driver):
    """Target 1 was pulled last; target 0 answers, and neither has anything more to say."""
    for target in (0, 1):
        assert driver.run(target, bytes(6)).status == 0
    assert driver.no_message()


@pytest.mark.expects_kernel_messages(OFFLINE)
def test_a_unit_that_stays_is_not_ready(real, tmp_path):
    """on_gone = "keep"."""
    paths = {5: real[0].generic, 6: real[1].by_id}
    units = [
        {"target": target, "on_gone": "keep", "storage": {"kind": "scsi", "path": path}}
        for target, path in paths.items()
    ]
    with Server(tmp_path, units) as server, Driver(server.socket) as driver:
        for target, disk in zip(paths, (real[0], real[1]), strict=True):
            driver.settle(target)
            disk.pull()
            assert server.next_event() == ("storage", "gone", target)
            answer = driver.run(target, bytes(6))
            assert (answer.host, answer.status, answer.condition) == (0, CHECK_CONDITION, (2, 4, 0))
            assert server.unit(target)["medium"] == "gone"
            disk.put_back()
            assert server.next_event() == ("storage", "back", target)
            answer = driver.run(target, bytes(6))
            assert (answer.status, answer.condition) == (CHECK_CONDITION, (6, 0x28, 0))
            assert driver.run(target, bytes(6)).status == 0
        assert driver.no_message()
