"""The drivers that benchmarks play: each request, each index and each figure of theirs is what it should be."""

from __future__ import annotations

import os
import random
import select
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hba.adapters import bench
from hba.adapters.bench import BASE, CONFIG, MOST_CAPABILITIES, Transfer, transfer_cdb
from hba.adapters.pvscsi import bench as pvscsi
from hba.adapters.pvscsi.bench import MASK, SENSE, SLOTS, PvscsiBenchDriver, PvscsiInnerDriver
from hba.adapters.pvscsi.structures import (
    CMP_CONS_IDX,
    CMP_PROD_IDX,
    COMPLETION,
    COMPLETION_SIZE,
    FLAG_DIR_TODEVICE,
    FLAG_DIR_TOHOST,
    REQ_PROD_IDX,
    REQUEST,
    REQUEST_SIZE,
    SETUP_RINGS,
)
from hba.control.parts import Parts
from hba.errors import GuestError, SocketError
from hba.vfio_user.client import VfioUserClient
from tests.adapters.pvscsi.driver import Driver
from tests.contract.adapter import running, within

FOREVER = 3600.0  # seconds
PAGE = 4096
DATA = 2 << 20  # bytes
UNIT = 4 << 20  # bytes
OWN = (1 + SLOTS * REQUEST_SIZE // PAGE + SLOTS * COMPLETION_SIZE // PAGE + SLOTS * SENSE // PAGE) * PAGE
CONFIGURATION = """
[[adapter]]
type = "pvscsi"
name = "bench"
[[adapter.lun]]
storage = { kind = "file", path = "a.img", size = "4M", create = true }
[[adapter.lun]]
target = 1
lun = 2
block_size = 4096
storage = { kind = "memory", size = "8M" }
"""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    (tmp_path / "a.img").write_bytes(random.Random(1).randbytes(UNIT))
    with running(tmp_path, CONFIGURATION) as parts:
        yield parts


@pytest.fixture
def driver(parts: Parts, tmp_path: Path) -> Iterator[PvscsiBenchDriver]:
    with PvscsiBenchDriver(tmp_path / "bench.sock", DATA) as driver:
        yield driver


def told(parts: Parts) -> Any:
    """What the adapter says of itself."""
    return within(parts, parts.adapter.snapshot)


def requests(driver: PvscsiBenchDriver, slots: int) -> list[tuple[Any, ...]]:
    """Descriptors of the first slots: context, address, length, sense address and length, flags, CDB and its length,
    LUN, tag, bus, target, vCPU."""
    return [REQUEST.unpack_from(driver.ram.view, PAGE + slot * REQUEST_SIZE) for slot in range(slots)]


# -- up and down ------------------------------------------------------------------------------------------------------


def test_it_sets_the_adapter_up_as_its_driver_does(driver: PvscsiBenchDriver, parts: Parts) -> None:
    assert int.from_bytes(driver._client.region_read(CONFIG, 4, 2), "little") == 6
    function: Any = parts.adapter.function
    assert function.interrupts.mode == "msi" and driver._read(0x2010) == 1
    snapshot = told(parts)
    first = BASE + PAGE
    completions = first + SLOTS * REQUEST_SIZE
    rings = snapshot["rings"]
    assert rings["state_page"] == BASE
    assert rings["request"]["pages"] == list(range(first, completions, PAGE))
    assert rings["completion"]["pages"] == list(range(completions, completions + SLOTS * COMPLETION_SIZE, PAGE))
    assert (rings["request"]["prod"], rings["completion"]["cons"]) == (2, 2)
    assert driver.ram.size == OWN + DATA and driver._data_at == OWN
    # It takes the unit attention, and no more: the second answer is that it is ready.
    assert (snapshot["counters"]["requests"], snapshot["counters"]["kicks"]) == (2, 2)
    assert snapshot["counters"]["commands"] == {"ADAPTER_RESET": 1, "SETUP_RINGS": 1}
    assert parts.verifier is not None and parts.verifier.counts == {}
    for slot, request in enumerate(requests(driver, 2)):
        sense = BASE + OWN - SLOTS * SENSE + slot * SENSE
        assert request == (0, 0, 0, sense, SENSE, FLAG_DIR_TOHOST, bytes(16), 6, 0, 0x20, 0, 0, 0)


def test_it_leaves_the_adapter_as_it_found_it(parts: Parts, tmp_path: Path) -> None:
    for _ in range(2):
        driver = PvscsiBenchDriver(tmp_path / "bench.sock", DATA)
        event = driver._interrupt
        assert not os.get_inheritable(event) and not os.get_blocking(event)
        driver.close()
        with pytest.raises(ValueError, match="released"):
            len(driver.ram.view)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(event)
        assert driver._client.fileno() == -1
    after = told(parts)
    assert after["rings"] is None
    assert after["counters"]["commands"] == {"ADAPTER_RESET": 4, "SETUP_RINGS": 2}


def test_where_the_rings_are_is_all_that_is_said() -> None:
    found = SETUP_RINGS.unpack(pvscsi.setup_rings(7, 10, 2, 20, 4))
    assert found == (2, 4, 7, 10, 11, *[0] * 30, 20, 21, 22, 23, *[0] * 28)


def test_whoever_comes_second_is_told(
    driver: PvscsiBenchDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = VfioUserClient.connect
    monkeypatch.setattr(VfioUserClient, "connect", lambda path: connect(path, 0.2))
    with pytest.raises(SocketError, match=r"bench\.sock: the adapter is busy with another client.*`hba ls`"):
        PvscsiBenchDriver(tmp_path / "bench.sock", DATA)
    driver.prepare([(False, 0, 4096)], 512)
    assert driver.run(FOREVER, 1, most=1)[0] == 1  # which has not hurt the first


def test_a_unit_that_is_not_there_is_not_ready(parts: Parts, tmp_path: Path) -> None:
    kept = []
    with pytest.raises(GuestError, match="unit 0:3:1 does not become ready") as caught:
        PvscsiBenchDriver(tmp_path / "bench.sock", DATA, 3, 1)
    kept.append(caught)  # and with it all that is on its way: it has let go of the adapter all the same
    with PvscsiBenchDriver(tmp_path / "bench.sock", DATA, 1, 2) as driver:
        before = told(parts)["counters"]["requests"]
        with pytest.raises(GuestError, match="unit 0:9:0 does not become ready"):
            driver.settle((9, 0))
        assert told(parts)["counters"]["requests"] - before == 8
        assert [request[8:12] for request in requests(driver, 4)[2:]] == [(0, 0x20, 0, 9)] * 2
        driver.settle((0, 0))
        assert told(parts)["counters"]["requests"] - before == 10


def test_a_capability_that_is_not_there(driver: PvscsiBenchDriver, parts: Parts) -> None:
    function: Any = parts.adapter.function
    before = function.config_reads
    with pytest.raises(GuestError, match="the adapter has no PCI capability 0xad"):
        driver._capability(0xAD)
    assert function.config_reads - before <= 4


def test_a_list_of_capabilities_without_end(driver: PvscsiBenchDriver) -> None:
    reads: list[int] = []

    def read(region: int, offset: int, count: int) -> bytes:
        reads.append(offset)
        return bytes((1, 0x40))[-count:]

    driver._client.region_read = read  # type: ignore[method-assign]
    with pytest.raises(GuestError, match="no PCI capability 0x5"):
        driver._capability(5)
    assert reads == [0x34] + [0x40] * MOST_CAPABILITIES
    del driver._client.region_read


def test_a_command_the_adapter_does_not_have(driver: PvscsiBenchDriver) -> None:
    with pytest.raises(GuestError, match="the adapter refused PVSCSI command 99"):
        driver._command(99, b"")


def test_memory_in_pieces(driver: PvscsiBenchDriver, parts: Parts, tmp_path: Path) -> None:
    """All of it once; pieces are whole pages, so there may be one more."""
    whole = [(BASE, OWN + DATA)]

    def maps() -> list[tuple[int, int]]:
        return [(each["iova"], each["size"]) for each in within(parts, parts.adapter.memory.describe)]

    assert maps() == whole
    driver.split_data(2)
    assert maps() == [(BASE, OWN), (BASE + OWN, DATA // 2), (BASE + OWN + DATA // 2, DATA // 2)]
    driver.split_data(3)
    third = DATA // 3 // PAGE * PAGE
    starts = [BASE + OWN + number * third for number in range(4)]
    assert maps() == [(BASE, OWN), *[(start, third) for start in starts[:3]], (starts[3], DATA - 3 * third)]
    at = OWN + driver._produced * 4096
    driver.prepare([(False, 8192, 4096)], 512)
    assert driver.run(FOREVER, 8, most=8)[0] == 8
    assert bytes(driver.ram.view[at : at + 4096]) == (tmp_path / "a.img").read_bytes()[8192:12288]


# -- single commands --------------------------------------------------------------------------------------------------


def test_the_capacity_of_any_unit(parts: Parts, tmp_path: Path) -> None:
    with PvscsiBenchDriver(tmp_path / "bench.sock", DATA) as driver:
        assert driver.capacity() == (UNIT // 512, 512)
        request = requests(driver, 3)[2]
        assert request[1:3] == (BASE + OWN, 32)
        assert (request[6], request[7]) == (bytes((0x9E, 0x10, *[0] * 11, 32, 0, 0)), 16)
        driver._target = 5
        with pytest.raises(GuestError, match=r"READ CAPACITY\(16\) ended with 0x11"):
            driver.capacity()
    with PvscsiBenchDriver(tmp_path / "bench.sock", DATA, 1, 2) as driver:
        assert driver.capacity() == ((8 << 20) // 4096, 4096)
        assert requests(driver, 3)[2][8:12] == (2 << 8, 0x20, 0, 1)


def test_how_a_command_ended(driver: PvscsiBenchDriver, tmp_path: Path) -> None:
    """Host status and SCSI status, not that there is sense data."""
    assert driver.command(bytes.fromhex("28000000000800000100"), 512) == 0
    assert bytes(driver.ram.view[OWN : OWN + 512]) == (tmp_path / "a.img").read_bytes()[4096:4608]
    assert driver.command(bytes.fromhex("28ffffffff0000000100"), 512) == 2 << 16
    assert driver.command(bytes(6), place=(9, 0)) == 0x11
    for _ in range(2 * SLOTS):
        assert driver.command(bytes(6)) == 0
    assert not select.select([driver._interrupt], [], [], 0)[0]  # each was slept for


def test_an_adapter_that_completes_nothing(driver: PvscsiBenchDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver._client.region_write(CONFIG, 4, (2).to_bytes(2, "little"))  # no bus mastering
    monkeypatch.setattr(bench, "PATIENCE", 20)
    with pytest.raises(GuestError, match="the adapter completes nothing for"):
        driver.command(bytes(6))


@pytest.mark.parametrize(
    ("transfer", "block_size", "cdb"),
    [
        ((False, 0, 4096), 512, "8800 0000000000000000 00000008 0000"),
        ((True, 0x123456789A00, 512), 512, "8a00 000000091a2b3c4d 00000001 0000"),
        ((False, 0x2000, 0x101000), 4096, "8800 0000000000000002 00000101 0000"),
    ],
)
def test_what_a_transfer_looks_like(transfer: Transfer, block_size: int, cdb: str) -> None:
    assert transfer_cdb(transfer, block_size) == bytes.fromhex(cdb)


# -- a stream ---------------------------------------------------------------------------------------------------------


def test_each_slot_has_its_request(driver: PvscsiBenchDriver) -> None:
    transfers = [(False, 0, 4096), (True, 8192, 512), (False, 1 << 20, 8192)]
    places = [(0, 0), (1, 2)]
    driver.prepare(transfers, 512, places)
    room = DATA // 8192
    for slot, request in enumerate(requests(driver, SLOTS)):
        write, offset, length = transfers[slot % 3]
        target, lun = places[slot % 2]
        assert request == (
            slot,
            BASE + OWN + slot % room * length,
            length,
            BASE + OWN - (SLOTS - slot) * SENSE,
            SENSE,
            FLAG_DIR_TODEVICE if write else FLAG_DIR_TOHOST,
            transfer_cdb((write, offset, length), 512),
            16,
            lun << 8,
            0x20,
            0,
            target,
            0,
        )
    driver.prepare([(True, 0, 512)], 512)
    assert {request[8:12] for request in requests(driver, SLOTS)} == {(0, 0x20, 0, 0)}


class Clock:
    """Nanoseconds that pass when somebody looks."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        self.now += 1000
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pvscsi, "time", clock)
    return clock


def test_figures_one_at_a_time(driver: PvscsiBenchDriver, clock: Clock) -> None:
    """The clock is looked at once at the beginning and once for each that has ended."""
    driver.prepare([(False, 0, 4096)], 512)
    assert driver.run(FOREVER, 1, most=3) == (3, 3e-6, array("Q", [1000] * 3))
    assert driver.run(5e-6, 1) == (5, 5e-6, array("Q", [1000] * 5))  # none is begun when the time is over
    assert driver.run(0, 1) == (0, 0.0, array("Q"))
    assert driver._produced == 2 + 8 == driver._state[REQ_PROD_IDX // 4] == driver._state[CMP_CONS_IDX // 4]


def test_figures_of_many(driver: PvscsiBenchDriver, clock: Clock) -> None:
    """Each began when it was put on the ring, and ended when its completion was seen."""
    driver.prepare([(False, 0, 4096)], 512)
    count, seconds, latencies = driver.run(FOREVER, 16, most=100)
    assert (count, len(latencies)) == (100, 100)
    assert seconds == pytest.approx((clock.now - 1000) / 1e9)
    assert all(latency in range(1000, clock.now, 1000) for latency in latencies)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 32, SLOTS // 2])
def test_the_depth_is_kept(driver: PvscsiBenchDriver, parts: Parts, depth: int, each: bool) -> None:
    driver.prepare([(False, 0, 512)], 512)
    before = told(parts)["counters"]
    most = 3 * SLOTS + 5
    starts: list[tuple[int, int]] = []
    submit = driver._submit

    def watched(count: int) -> None:
        starts.append((count, driver._produced + count - driver._state[CMP_CONS_IDX // 4]))
        submit(count)

    driver._submit = watched  # type: ignore[method-assign]
    first = driver._produced
    count, _, latencies = driver.run(FOREVER, depth, most=most, each=each)
    assert count == most == len(latencies) == sum(number for number, _ in starts)
    assert driver._produced == first + most == driver._state[REQ_PROD_IDX // 4] == driver._state[CMP_CONS_IDX // 4]
    after = told(parts)["counters"]
    assert after["requests"] - before["requests"] == most and after["outstanding"] == 0
    assert after["kicks"] - before["kicks"] == len(starts)
    if each:
        assert {number for number, _ in starts} == {1}
        assert max(outstanding for _, outstanding in starts) == depth
    else:
        assert starts[0] == (depth, depth)
        # There is a new one for each that has ended, until there are enough.
        begun = 0
        for number, outstanding in starts:
            begun += number
            assert outstanding == depth or begun == most


def test_no_kick_is_waited_for(driver: PvscsiBenchDriver) -> None:
    """As in QEMU: what the server does before it would answer is no part of the driver's time."""
    driver.prepare([(False, 0, 512)], 512)
    kicks: list[tuple[int, int, bytes, bool]] = []
    write = driver._client.region_write

    def watched(region: int, offset: int, data: bytes, *, posted: bool = False) -> None:
        kicks.append((region, offset, data, posted))
        write(region, offset, data, posted=posted)

    driver._client.region_write = watched  # type: ignore[method-assign]
    driver.run(FOREVER, 1, most=3)
    driver._client.region_write = write  # type: ignore[method-assign]
    assert kicks == [(0, 0x4018, bytes(4), True)] * 3


def test_more_than_half_the_ring_is_refused(driver: PvscsiBenchDriver) -> None:
    driver.prepare([(False, 0, 512)], 512)
    with pytest.raises(ValueError, match=f"depth is at most {SLOTS // 2}"):
        driver.run(FOREVER, SLOTS // 2 + 1, most=1)


@pytest.mark.parametrize("bad", [0, 1, 31])
def test_a_command_that_fails_ends_it(driver: PvscsiBenchDriver, bad: int) -> None:
    """Wherever it stands; what is told is the word of its completion."""
    transfers = [(False, 0, 512)] * 32
    transfers[bad] = (False, UNIT, 512)
    driver.prepare(transfers, 512)
    with pytest.raises(GuestError, match=r"a command ended with 0x20000000000[0-9a-f]{2} \(sense, host, SCSI status\)"):
        driver.run(FOREVER, 8, most=64)


def test_all_that_is_read_is_there(driver: PvscsiBenchDriver, tmp_path: Path) -> None:
    disk = (tmp_path / "a.img").read_bytes()
    driver.run(0, 1)
    while driver._produced & MASK:
        driver.command(bytes(6))
    driver.prepare([(False, slot * 2048, 2048) for slot in range(SLOTS)], 512)
    assert driver.run(FOREVER, 64, most=SLOTS)[0] == SLOTS
    assert bytes(driver.ram.view[OWN : OWN + SLOTS * 2048]) == disk[: SLOTS * 2048]
    written = random.Random(2).randbytes(DATA)
    driver.ram.view[OWN : OWN + DATA] = written
    driver.prepare([(True, slot * 2048, 2048) for slot in range(SLOTS)], 512)
    assert driver.run(FOREVER, 64, most=SLOTS)[0] == SLOTS
    assert (tmp_path / "a.img").read_bytes() == written[: SLOTS * 2048] + disk[SLOTS * 2048 :]


# -- in the adapter's process -----------------------------------------------------------------------------------------


def test_the_inner_driver_keeps_every_slot_busy() -> None:
    outer = Driver(verify=True)
    try:
        ram = outer.memory.view(0, 2 << 20, True)
        assert ram is not None
        inner = PvscsiInnerDriver(outer.adapter)
        reads = (bytes((0x28, number)) + bytes(8) for number in range(1000))
        inner.set_up(ram, reads, 1024)
        assert inner.slots == 128
        for slot in range(128):
            request = REQUEST.unpack_from(ram, 0x10000 + slot * REQUEST_SIZE)
            cdb = (bytes((0x28, slot)) + bytes(8)).ljust(16, b"\0")
            data = 0x40000 + slot * 1024
            assert request == (slot + 1, data, 1024, 0, 0, FLAG_DIR_TOHOST, cdb, 10, 0, 0x20, 0, 0, 0)
        rings: Any = outer.adapter.snapshot()["rings"]
        assert rings["state_page"] == 0x1000
        assert rings["request"]["pages"] == [0x10000, 0x11000, 0x12000, 0x13000]
        assert rings["completion"]["pages"] == [0x20000]
        sizes: list[int] = []
        outer.port.at_once = lambda srb: None
        submit_all = outer.port.submit_all
        outer.port.submit_all = lambda srbs: (sizes.append(len(srbs)), submit_all(srbs))[1]  # type: ignore[method-assign,assignment,func-returns-value]
        turns: list[int] = []

        def turn(timeout: int) -> None:
            turns.append(timeout)
            outer.loop.run_once(timeout)

        with pytest.raises(GuestError, match="0 bytes"):
            inner.check()  # nothing has been run
        inner.run(12, 4, turn)
        assert sizes == [4, 4, 4] and set(turns) == {0} and outer.adapter.kicks == 3
        inner.check()
        inner.run(2, 1, turn)
        state = SimpleNamespace(prod=outer.u32(0x1000), cons=outer.u32(0x1000 + CMP_CONS_IDX))
        assert (state.prod, state.cons, outer.adapter.kicks) == (14, 14, 5)
        good = COMPLETION.pack(1, 1024, 0, 0, 0)
        for result, said in (
            ((1, 1024, 0, 0x11, 0), "host status 17, SCSI status 0 and 1024 bytes"),
            ((1, 1024, 0, 0, 2), "host status 0, SCSI status 2 and 1024 bytes"),
            ((1, 512, 0, 0, 0), "host status 0, SCSI status 0 and 512 bytes"),
            ((2, 1024, 0, 0, 0), "a read ended"),
        ):
            COMPLETION.pack_into(ram, 0x20000, *result)
            with pytest.raises(GuestError, match=said):
                inner.check()
        ram[0x20000 : 0x20000 + len(good)] = good
        inner.check()
        assert outer.found() == {}
        # What ends only in a later turn is waited for.
        outer.port.at_once = None

        def late(timeout: int) -> None:
            if outer.port.srbs:
                outer.port.complete(outer.port.srbs[0])
            outer.loop.run_once(timeout)

        inner.run(6, 3, late)
        assert (outer.port.srbs, outer.u32(0x1000 + CMP_PROD_IDX)) == ([], 20)
        inner.close()
        with pytest.raises(ValueError, match="released"):
            inner.run(1, 1, late)
        ram.release()
    finally:
        outer.close()
