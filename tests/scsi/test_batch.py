"""Commands that a unit runs as a batch: plain reads together, everything else one by one, all as if one by one."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.errors import StorageError
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk
from hba.scsi.sense import INTERNAL_TARGET_FAILURE, condition_of
from hba.scsi.task import DATA_OUT, HEAD_OF_QUEUE, ORDERED, RESPONSE_NO_TARGET, SIMPLE, Task
from hba.storage.backend import Done
from hba.storage.memory import MemoryBackend
from hba.storage.transfer import Transfer
from tests.scsi.util import CHECK_CONDITION, GOOD, disk, make_task, read10, read16, settle, write10

BLOCK = 512
BLOCKS = 64


class Batching(MemoryBackend):
    """Memory that lets some reads wait, fails others, and writes down in which order things happen."""

    def __init__(self) -> None:
        super().__init__(BLOCKS * BLOCK)
        self.log: list[object] = []
        self.leave: set[int] = set()  # offsets that cannot be read at once
        self.broken: set[int] = set()  # offsets that cannot be read at all
        self.waiting: list[Done] = []

    def read_batch(self, reads: Sequence[Transfer]) -> Sequence[Transfer]:
        self.log.append([read.offset // BLOCK for read in reads])
        return super().read_batch(reads)

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        if offset in self.broken:
            raise StorageError("broken", errno.EIO)
        super().read(views, offset, done)
        if offset in self.leave:
            self.waiting.append(done)
            return False
        return True

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        self.log.append(f"write {offset // BLOCK}")
        return super().write(views, offset, done, fua)


class Bench:
    def __init__(self, *addresses: tuple[int, int]) -> None:
        self.bus = ScsiBus()
        self.stores: list[Batching] = []
        self.disks: list[Disk] = []
        self.ended: list[Task] = []
        for target, lun in addresses or ((0, 0),):
            store = Batching()
            for number in range(BLOCKS):
                store.write([memoryview(bytearray([number]) * BLOCK)], number * BLOCK, lambda error: None)
            store.log.clear()
            unit = disk(backend=store)
            self.stores.append(store)
            self.disks.append(unit)
            self.bus.attach(target, lun, unit)
        for unit in self.disks:
            settle(unit)

    def run(self, *commands: tuple[int, int, Task]) -> list[Task]:
        """Each (target, lun, task)."""
        ended: list[Task] = []
        for address, row in groupby(commands, lambda command: command[:2]):
            tasks = [task for _, _, task in row]
            for task in tasks:
                task.done = self.ended.append
            ended += self.bus.execute(*address, tasks)
        return ended


def content(task: Task) -> bytes:
    assert task.data is not None
    return task.data.read(0, task.transferred)


def test_reads_in_a_row_are_one_batch() -> None:
    bench = Bench()
    tasks = [make_task(read10(3, 1), 512), make_task(read16(7, 2), 1024), make_task(read10(5, 1), 512)]
    assert bench.run(*((0, 0, task) for task in tasks)) == tasks
    assert bench.stores[0].log == [[3, 7, 5]]
    assert [task.status for task in tasks] == [GOOD] * 3
    assert [content(task) for task in tasks] == [b"\3" * 512, b"\7" * 512 + b"\x08" * 512, b"\5" * 512]
    assert bench.disks[0].reads == 3
    assert bench.disks[0].read_blocks == 4


def test_a_read_beyond_the_end_is_not_for_the_store() -> None:
    bench = Bench()
    tasks = [
        make_task(read10(BLOCKS - 1, 1), 512),
        make_task(read10(BLOCKS - 1, 2), 1024),
        make_task(read10(0, 1), 512),
    ]
    assert bench.run(*((0, 0, task) for task in tasks)) == tasks
    assert [task.status for task in tasks] == [GOOD, CHECK_CONDITION, GOOD]
    assert bench.stores[0].log == [[BLOCKS - 1], [0]]


def test_what_came_before_a_write_goes_before_it() -> None:
    bench = Bench()
    old, write, new = (
        make_task(read10(3, 1), 512),
        make_task(write10(3, 1), out=b"w" * 512),
        make_task(read10(3, 1), 512),
    )
    assert bench.run((0, 0, old), (0, 0, write), (0, 0, new)) == [old, write, new]
    assert bench.stores[0].log == [[3], "write 3", [3]]
    assert (content(old), content(new)) == (b"\3" * 512, b"w" * 512)
    assert (bench.disks[0].reads, bench.disks[0].read_blocks) == (2, 2)
    assert (bench.disks[0].writes, bench.disks[0].written_blocks) == (1, 1)


@pytest.mark.parametrize("cdb", ["28000000000020000100", "28200000000000000100", "28000000000000000104"])
def test_a_bit_nobody_evaluates_is_refused_in_a_batch_too(cdb: str) -> None:
    bench = Bench()
    tasks = [make_task(cdb, 512) for cdb in (read10(0, 1), cdb, read10(1, 1))]
    assert bench.run(*((0, 0, task) for task in tasks)) == tasks
    assert [task.status for task in tasks] == [GOOD, CHECK_CONDITION, GOOD]


def test_an_ordered_task_finds_the_reads_before_it_done() -> None:
    bench = Bench()
    bench.stores[0].leave = {0}
    first, ordered, last = (make_task(read10(lba, 1), 512) for lba in (0, 1, 2))
    ordered.attribute = ORDERED
    assert bench.run((0, 0, first), (0, 0, ordered), (0, 0, last)) == []
    assert bench.stores[0].log == [[0]]  # the others wait for the first
    bench.stores[0].waiting.pop()(None)
    assert bench.ended == [first, ordered, last]


def test_units_do_not_mix() -> None:
    bench = Bench((0, 0), (0, 1), (2, 0))
    addresses = [(0, 0), (0, 1), (0, 1), (2, 0), (0, 0), (1, 0), (0, 9)]
    tasks = [make_task(read10(number, 1), 512) for number in range(len(addresses))]
    commands = [(*address, task) for address, task in zip(addresses, tasks, strict=True)]
    assert bench.run(*commands) == tasks
    assert [store.log for store in bench.stores] == [[[0], [4]], [[1, 2]], [[3]]]
    assert tasks[5].response == RESPONSE_NO_TARGET
    assert tasks[6].status == CHECK_CONDITION


def test_what_the_store_leaves_ends_later_or_fails_alone() -> None:
    bench = Bench()
    bench.stores[0].leave, bench.stores[0].broken = {1 * BLOCK}, {2 * BLOCK}
    tasks = [make_task(read10(lba, 1), 512) for lba in range(4)]
    assert bench.run(*((0, 0, task) for task in tasks)) == [tasks[0], tasks[2], tasks[3]]
    assert [task.status for task in tasks] == [GOOD, GOOD, CHECK_CONDITION, GOOD]
    assert tasks[2].transferred == 0
    assert bench.ended == []
    bench.stores[0].waiting.pop()(None)
    assert bench.ended == [tasks[1]]
    assert content(tasks[1]) == b"\1" * 512
    assert bench.disks[0].reads == 4  # as tried one by one, the broken one included


def test_a_unit_attention_takes_one_command_and_not_the_batch() -> None:
    bench = Bench()
    bench.disks[0].attention(0x062900)
    tasks = [make_task(read10(lba, 1), 512) for lba in range(3)]
    assert bench.run(*((0, 0, task) for task in tasks)) == tasks
    assert [task.status for task in tasks] == [CHECK_CONDITION, GOOD, GOOD]
    assert bench.stores[0].log == [[1, 2]]


def test_a_defect_of_the_store_ends_all_but_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    store = bench.stores[0]
    store.leave = {0}
    tasks = [make_task(read10(lba, 1), 512) for lba in range(3)]
    take = store.read_batch

    def broken(reads: Sequence[Transfer]) -> Sequence[Transfer]:
        take(reads[:1])
        raise TypeError("a defect")

    store.read_batch = broken  # type: ignore[method-assign]
    assert bench.run(*((0, 0, task) for task in tasks)) == tasks[1:]
    assert [condition_of(task.sense) for task in tasks[1:]] == [INTERNAL_TARGET_FAILURE] * 2
    assert [task.transferred for task in tasks[1:]] == [0, 0]
    assert "a defect" in caplog.text
    store.waiting.pop()(None)
    assert bench.ended == [tasks[0]]
    assert content(tasks[0]) == b"\0" * 512


@pytest.mark.parametrize(("attribute", "initiator"), [(ORDERED, 7), (HEAD_OF_QUEUE, 7), (SIMPLE, 3)])
def test_only_simple_tasks_of_the_adapter_are_plain(attribute: int, initiator: int) -> None:
    bench = Bench()
    before = bench.disks[0].commands_run
    tasks = [make_task(read10(lba, 1), 512) for lba in range(3)]
    tasks[1].attribute, tasks[1].initiator = attribute, initiator
    bench.run(*((0, 0, task) for task in tasks))
    assert bench.stores[0].log == [[0], [2]]
    assert bench.disks[0].commands_run == before + (initiator == 7)  # of the other, POWER ON OCCURRED is due


@st.composite
def command(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """(CDB, direction or 0, bytes of data), mostly reads and writes that nearly make sense."""
    opcode = draw(st.sampled_from([0x28, 0x28, 0x88, 0x88, 0x2A, 0x8A, 0x08, 0xA8, 0x00, 0x03, 0x12, 0x25, 0xFF]))
    lba = draw(st.integers(0, BLOCKS + 2))
    count = draw(st.integers(0, 4))
    flags = draw(st.sampled_from([0, 0, 0, 0, 0x08, 0x10, 0x20, 0xFF]))
    if opcode in (0x88, 0x8A):
        cdb = bytes((opcode, flags)) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(2)
    else:
        cdb = bytes((opcode, flags)) + lba.to_bytes(4, "big") + bytes(1) + count.to_bytes(2, "big") + bytes(1)
    cut = draw(st.sampled_from([16, 16, 16, 16, 10, 9, 6, 1, 0]))
    length = draw(st.sampled_from([count, count, count, count + 1, max(0, count - 1), 0])) * BLOCK
    return cdb.ljust(16, b"\0")[:cut], draw(st.sampled_from([1, 1, 1, 2, 0])), length


def task_of(cdb: bytes, direction: int, length: int) -> Task:
    filled = make_task(b"", length if direction == 1 else 0, b"d" * length if direction == DATA_OUT else None)
    filled.cdb = cdb
    return filled


@settings(max_examples=150, deadline=None)
@given(st.lists(command(), max_size=8), st.sets(st.integers(0, BLOCKS - 1)), st.sets(st.integers(0, BLOCKS - 1)))
def test_a_batch_ends_as_its_commands_do_one_by_one(
    commands: list[tuple[bytes, int, int]], leave: set[int], broken: set[int]
) -> None:
    results = []
    for together in (True, False):
        bench = Bench()
        bench.stores[0].leave = {block * BLOCK for block in leave - broken}
        bench.stores[0].broken = {block * BLOCK for block in broken}
        tasks = [task_of(*one) for one in commands]
        if together:
            ended = bench.run(*((0, 0, task) for task in tasks))
        else:
            ended = [task for task in tasks if bench.run((0, 0, task))]
        while bench.stores[0].waiting:
            bench.stores[0].waiting.pop(0)(None)
        assert sorted(map(id, [*ended, *bench.ended])) == sorted(map(id, tasks))
        results.append(
            [
                (task.status, task.sense, task.transferred, task.overrun, task.data.read() if task.data else b"")
                for task in tasks
            ]
        )
    assert results[0] == results[1]
