"""The chip and its DMA windows."""

from __future__ import annotations

import pytest

from hba.dma import DmaBuffer
from hba.errors import DmaFault
from hba.miniport.chip import Chip
from hba.miniport.windows import DmaWindows
from hba.scsi.task import DATA_IN, DATA_OUT, Task
from hba.srb import SRB_FLAGS_DATA_IN, Srb
from tests.miniport.rig import AnsweringBus, Memory


class Recording(DmaBuffer):
    """Counts its commits."""

    __slots__ = ("committed",)

    def commit(self, transferred: int) -> None:
        self.committed = transferred


@pytest.fixture
def chip() -> Chip:
    return Chip(AnsweringBus(), Memory())


def bus_of(chip: Chip) -> AnsweringBus:
    assert isinstance(chip.bus, AnsweringBus)
    return chip.bus


def read_task(length: int = 512, base: int = 0x1000) -> Task:
    return Task(b"\x28" + bytes(9), DATA_IN, DmaBuffer.of(bytearray(length), base=base))


def test_a_command_that_ends_at_once_does_not_interrupt(chip: Chip) -> None:
    task = read_task()
    assert chip.start(0, 0, task)
    assert task.transferred == 512
    assert not chip.asserted and not chip.completed and not chip.active


def test_one_that_ends_later_does(chip: Chip) -> None:
    raised: list[bool] = []
    chip.on_interrupt = lambda: raised.append(chip.asserted)
    bus_of(chip).hold = True
    first, second = read_task(), read_task()
    assert not chip.start(0, 0, first) and not chip.start(0, 0, second)
    bus_of(chip).release(first)
    bus_of(chip).release(second)
    assert raised == [True]  # level: a second cause makes no second edge
    assert list(chip.completed) == [first, second]
    chip.acknowledge()
    assert not chip.asserted


def test_the_mask_holds_the_interrupt_back(chip: Chip) -> None:
    raised: list[bool] = []
    chip.on_interrupt = lambda: raised.append(True)
    chip.interrupts_enabled = False
    chip.raise_interrupt()
    assert raised == [] and chip.asserted
    chip.interrupts_enabled = True
    assert raised == [True]


@pytest.mark.parametrize("hold", [False, True])
def test_data_for_the_guest_are_committed(chip: Chip, hold: bool) -> None:
    bus_of(chip).hold = hold
    view = memoryview(bytearray(512))
    for direction in (DATA_IN, DATA_OUT):
        data = Recording([(0x1000, 512)], [view], 512)
        data.committed, data.by_message = -1, True
        task = Task(b"\x28" + bytes(9), direction, data)
        chip.start(0, 0, task)
        if hold:
            bus_of(chip).release(task)
        assert data.committed == (512 if direction == DATA_IN else -1)


def test_reset_gives_everything_back_also_what_the_bus_lost(chip: Chip) -> None:
    bus = bus_of(chip)
    bus.hold = True
    kept, lost = read_task(), read_task()
    chip.start(0, 0, kept)
    chip.start(0, 0, lost)
    bus.held.remove(lost)
    chip.reset_bus()
    assert set(chip.completed) == {kept, lost}
    assert kept.response == lost.response != 0
    assert lost.done is not None
    lost.done(lost)  # much too late
    assert len(chip.completed) == 2


def test_forget(chip: Chip) -> None:
    bus_of(chip).hold = True
    task = read_task()
    chip.start(0, 0, task)
    chip.forget(task)
    bus_of(chip).release(task)
    assert not chip.completed and not chip.asserted


@pytest.mark.parametrize("together", [False, True])
def test_what_is_given_up_while_it_runs_is_not_reported(chip: Chip, together: bool) -> None:
    lost, kept = read_task(), read_task()
    bus_of(chip).answer = lambda task: chip.forget(lost)
    if together:
        chip.plug()
    assert not chip.start(0, 0, lost)
    assert chip.start(0, 0, kept) is not together
    chip.unplug()
    assert list(chip.completed) == ([kept] if together else [])
    assert not chip.active


def test_rows_for_several_units_keep_their_order_with_one_interrupt(chip: Chip) -> None:
    raised: list[int] = []
    chip.on_interrupt = lambda: raised.append(len(chip.completed))
    tasks = [read_task() for _ in range(5)]
    places = [(0, 0), (0, 1), (0, 1), (2, 1), (0, 0)]
    for _ in range(2):  # the second batch begins where the first one ended
        chip.plug()
        for place, task in zip(places, tasks, strict=True):
            chip.start(*place, task)
        chip.unplug()
    assert bus_of(chip).seen == [(*place, task) for place, task in zip(places, tasks, strict=True)] * 2
    assert list(chip.completed) == tasks * 2
    assert raised == [5]


def test_abort_only_what_is_here(chip: Chip) -> None:
    bus_of(chip).hold = True
    task = read_task()
    assert not chip.abort(task)
    chip.start(0, 0, task)
    assert chip.abort(task)
    assert list(chip.completed) == [task]


def test_map_takes_the_ports_own_list_as_it_is(chip: Chip) -> None:
    srb = Srb()
    srb.mdl = DmaBuffer.of(bytearray(512))
    assert chip.map(srb, srb.mdl.segments, True) is srb.mdl
    assert chip.map(srb, list(srb.mdl.segments), True) is srb.mdl
    other = chip.map(srb, [(0x2000, 16)], True)
    assert other is not srb.mdl and other.length == 16


def test_map_reaches_the_hosts_memory(chip: Chip) -> None:
    memory = memoryview(bytearray(8192))
    base = chip.add_host_memory(memory)
    data = chip.map(None, [(base + 4096, 16), (0x3000, 16)], True)
    data.write(b"a" * 32)
    assert memory[4096:4112] == b"a" * 16
    second = chip.add_host_memory(memoryview(bytearray(16)))
    assert second >= base + 8192
    with pytest.raises(DmaFault):
        chip.map(None, [(second + 8, 16)], True)


# -- windows ------------------------------------------------------------------------------------------------------


class Reports(list[tuple[str, str]]):
    def __call__(self, rule: str, message: str, srb: Srb | None) -> None:
        self.append((rule, message))


def window(*lengths: int) -> tuple[DmaWindows, Reports, Srb]:
    reports = Reports()
    windows = DmaWindows(reports, lambda address, length: None)
    srb = Srb()
    srb.mdl = DmaBuffer.of(*(bytearray(length) for length in lengths))
    srb.srb_flags = SRB_FLAGS_DATA_IN
    windows.open(srb)
    return windows, reports, srb


def test_MB_13_inside_in_its_direction_and_in_time() -> None:
    windows, reports, srb = window(4096)
    task = Task(b"", DATA_IN, srb.mdl)
    windows.begin(task)
    task.transferred = 4096
    windows.end(task)
    assert windows.transferred(srb) == 4096
    windows.close(srb)
    assert reports == []
    assert windows.transferred(srb) == 0


@pytest.mark.parametrize("asked_first", [False, True])
@pytest.mark.parametrize("first_out", [0, 1])
def test_MB_13_lists_of_ones_own_for_two_requests_at_one_address(asked_first: bool, first_out: int) -> None:
    """They are looked up by address, and what a request that ends leaves there is the other's."""
    reports = Reports()
    windows = DmaWindows(reports, lambda address, length: None)
    first, second = Srb(), Srb()
    first.mdl, second.mdl = DmaBuffer.of(bytearray(512)), DmaBuffer.of(bytearray(4096), bytearray(4096))
    first.srb_flags = second.srb_flags = SRB_FLAGS_DATA_IN
    short, long = DmaBuffer([(0x1000, 512)], [], 512), DmaBuffer([(0x1000, 4096), (0x2000, 4096)], [], 8192)
    if asked_first:
        windows.begin(Task(b"", DATA_IN, DmaBuffer([(0x9000, 1)], [], 1)))  # nobody's
        reports.clear()
    for srb in (first, second):
        windows.open(srb)
    windows.begin(Task(b"", DATA_IN, long))
    windows.begin(Task(b"", DATA_IN, short))
    assert reports == []
    windows.close((first, second)[first_out])
    windows.begin(Task(b"", DATA_IN, (long, short)[first_out]))
    assert reports == []
    windows.close((second, first)[first_out])
    windows.begin(Task(b"", DATA_IN, short))
    assert [rule for rule, _ in reports] == ["MB-13"]


def test_MB_13_a_list_of_ones_own_across_segments() -> None:
    windows, reports, _ = window(4096, 4096)
    inside = DmaBuffer([(0x1800, 0x800), (0x2000, 0x100)], [], 0x900)
    windows.begin(Task(b"", DATA_IN, inside))
    assert reports == []
    across = DmaBuffer([(0x1800, 0x1000)], [], 0x1000)  # the two segments happen to touch
    windows.begin(Task(b"", DATA_IN, across))
    assert reports == []
    beyond = DmaBuffer([(0x2800, 0x1000)], [], 0x1000)
    windows.begin(Task(b"", DATA_IN, beyond))
    assert [rule for rule, _ in reports] == ["MB-13"]


def test_MB_13_direction_lifetime_and_fixed_windows() -> None:
    windows, reports, srb = window(4096)
    windows.begin(Task(b"", DATA_OUT, srb.mdl))
    assert len(reports) == 1
    task = Task(b"", DATA_IN, srb.mdl)
    windows.begin(task)
    windows.close(srb)
    assert len(reports) == 2 and "still moves" in reports[1][1]
    task.transferred = 512
    windows.end(task)
    assert len(reports) == 3
    windows.add_fixed(0x9000, 0x1000)
    windows.begin(Task(b"", DATA_IN, DmaBuffer([(0x9100, 0x100)], [], 0x100)))
    assert len(reports) == 3
    windows.clear_fixed()
    windows.begin(Task(b"", DATA_IN, DmaBuffer([(0x9100, 0x100)], [], 0x100)))
    assert len(reports) == 4


def test_plugged_commands_run_together_with_one_interrupt(chip: Chip) -> None:
    raised: list[int] = []
    chip.on_interrupt = lambda: raised.append(len(chip.completed))
    tasks = [read_task() for _ in range(3)]
    chip.plug()
    assert [chip.start(0, 0, task) for task in tasks] == [False] * 3
    assert [task.transferred for task in tasks] == [0] * 3
    chip.unplug()
    assert raised == [3]
    assert list(chip.completed) == tasks
    assert not chip.active


def test_a_reset_finds_plugged_commands_executed(chip: Chip) -> None:
    task = read_task()
    chip.plug()
    chip.start(0, 0, task)
    chip.reset_bus()
    assert list(chip.completed) == [task]
    chip.unplug()
    assert list(chip.completed) == [task]


def test_MB_13_what_the_chip_reads_and_writes_of_its_own_accord(chip: Chip) -> None:
    base = chip.add_host_memory(memoryview(bytearray(64)))
    reports = Reports()
    chip.windows = DmaWindows(reports, lambda address, length: None)
    chip.windows.add_fixed(base, 32)
    chip.write_memory(base + 16, bytes(16), "completion")
    chip.read_memory(base, 32, "command block")
    assert reports == []
    chip.write_memory(base + 16, bytes(17), "completion")
    chip.read_memory(base + 32, 1, "command block")
    assert [(rule, message.partition(" ")[0]) for rule, message in reports] == [
        ("MB-13", "completion"),
        ("MB-13", "command"),
    ]
