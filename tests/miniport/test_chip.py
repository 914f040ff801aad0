"""The chip and its DMA windows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from hba.dma import HOST_MEMORY_BASE, LOW_MEMORY_BASE, LOW_MEMORY_END, DmaBuffer
from hba.errors import DmaFault
from hba.miniport.bounce import BOUNCE_BASE, bounce_buffer
from hba.miniport.chip import Chip
from hba.miniport.windows import DmaWindows
from hba.scsi.task import DATA_IN, DATA_OUT, RESPONSE_ABORTED, RESPONSE_RESET, Task
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, Srb
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
    """Nor does the guest see data of it: its memory may be somebody else's by now."""
    bus_of(chip).hold = True
    data = Recording([(0x1000, 512)], [memoryview(bytearray(512))], 512)
    data.committed, data.by_message = -1, True
    task = Task(b"\x28" + bytes(9), DATA_IN, data)
    chip.start(0, 0, task)
    chip.forget(task)
    chip.forget(task)  # it is not here any more
    bus_of(chip).release(task)
    assert not chip.completed and not chip.asserted and data.committed == -1


@pytest.mark.parametrize("messages", [0, 2])
def test_nobody_has_to_listen(messages: int) -> None:
    """A polled adapter: the line is up, or the message waits, and nobody is called."""
    chip = Chip(AnsweringBus(), Memory())
    chip.use_messages(messages)
    for enabled in (True, False, True):
        chip.interrupts_enabled = enabled
        chip.raise_interrupt()
        chip.mask_message(0, True)
        chip.mask_message(0, False)
        assert chip.asserted


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


class Asked(Memory):
    """Guest memory that says what it was asked for, and counts commits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[tuple[int, int]], bool]] = []
        self.buffers: list[Recording] = []

    def buffer(self, segments: Any, write: bool) -> DmaBuffer:
        self.asked.append((list(segments), write))
        views = [memoryview(bytearray(length)) for _, length in segments]
        self.buffers.append(Recording(segments, views, sum(map(len, views))))
        self.buffers[-1].committed = -1
        return self.buffers[-1]


@pytest.mark.parametrize("own", [False, True])
def test_what_the_guests_memory_is_asked_for(own: bool) -> None:
    """Whatever is not the host's, and whether the chip will write to it."""
    memory = Asked()
    chip = Chip(AnsweringBus(), memory)
    places = [0, LOW_MEMORY_BASE - 1, LOW_MEMORY_BASE, LOW_MEMORY_END, BOUNCE_BASE - 1]
    if own:
        chip.add_host_memory(memoryview(bytearray(64)))
    for number, place in enumerate(places):
        data = chip.map(None, [(place, 16)], number % 2)
        assert (list(data.segments), data.length, list(map(len, data.views))) == ([(place, 16)], 16, [16])
    assert memory.asked == [([(place, 16)], bool(number % 2)) for number, place in enumerate(places)]
    assert type(memory.asked[1][1]) is bool
    assert chip.map(None, [], 0).length == 0
    del memory.asked[:]
    for place in (BOUNCE_BASE + (1 << 60), HOST_MEMORY_BASE + 64):
        with pytest.raises(DmaFault):
            chip.map(None, [(place, 16)], 0)
    with contextlib.suppress(DmaFault):  # the first one ever made: it may be there still
        chip.map(None, [(BOUNCE_BASE, 1)], 0)
    bounce = bounce_buffer(16)
    data = chip.map(None, bounce.segments, 1)
    assert len(data.views) == 1 and data.write(b"x") == 1 and bounce.read(0, 1) == b"x"
    assert memory.asked == []


def test_a_few_bytes_of_the_guests(chip: Chip) -> None:
    """What is written has to be seen by the guest as well."""
    chip.dma = memory = Asked()
    chip.write_memory(0x3000, b"abc", "completion")
    assert memory.buffers[0].read() == b"abc" and memory.buffers[0].committed == 3
    assert chip.read_memory(0x4000, 4, "command block") == bytes(4)
    assert memory.buffers[1].committed == -1
    assert memory.asked == [([(0x3000, 3)], True), ([(0x4000, 4)], False)]


def test_where_memory_of_the_host_lies(chip: Chip) -> None:
    """Each on pages of its own, and across no boundary it was not to cross."""
    made, expected = zip(
        ((0x1, 0), 0x0),
        ((0x1000, 0), 0x1000),
        ((0x1001, 0), 0x2000),
        ((0x1000, 0x4000), 0x4000),
        ((0x3000, 0x4000), 0x5000),  # up to the boundary
        ((0x1000, 0x4000), 0x8000),
        ((0x3001, 0x4000), 0xC000),  # one byte across it, from 0x9000
        strict=True,
    )
    views = [memoryview(bytearray(size)) for size, _ in made]
    bases = [chip.add_host_memory(view, boundary) for view, (_, boundary) in zip(views, made, strict=True)]
    assert [base - HOST_MEMORY_BASE for base in bases] == list(expected)
    for number, (base, view) in enumerate(zip(bases, views, strict=True)):
        size = len(view)
        chip.write_memory(base, bytes([number + 1]) * size, "all of it")
        assert bytes(view) == bytes([number + 1]) * size == chip.read_memory(base, size, "all of it")
        with pytest.raises(DmaFault):
            chip.map(None, [(base + size - 1, 2)], 0)
    chip.remove_host_memory(views[1])
    with pytest.raises(DmaFault):
        chip.map(None, [(bases[1], 1)], 0)
    assert chip.map(None, [(0, 8), (bases[2], 2)], 0).read(7) == b"\0\3\3"  # behind some of the guest's
    assert chip.add_host_memory(views[1]) == bases[-1] + 0x4000
    assert chip.add_host_memory(memoryview(bytearray(16)), 0x3000) % 0x3000 <= 0x3000 - 16


ALL = (0, 0xFFFF_FFFF)


def test_where_memory_of_32_bits_lies(chip: Chip) -> None:
    """In the first gap that is wide enough, on pages of its own; 0 where there is none."""

    def add(size: int, first: int, last: int, boundary: int = 0) -> int:
        views.append(memoryview(bytearray(size)))
        base = chip.add_low_memory(views[-1], boundary, first, last)
        return base - LOW_MEMORY_BASE if base else -1

    views: list[memoryview] = []
    base = LOW_MEMORY_BASE
    assert add(0x1000, base + 0x4001, 0xFFFF_FFFF) == 0x5000
    assert add(0x800, *ALL) == 0x0
    assert add(0x4001, *ALL) == 0x6000  # not before the first one: there are 0x4000 bytes
    assert add(0x1000, base + 0x800, base + 0x1FFE) == -1
    assert add(0x1000, base + 0x800, base + 0x1FFF) == 0x1000
    assert add(0x2000, *ALL, boundary=0x2000) == 0x2000
    assert add(0x1000, *ALL, boundary=0x1000) == 0x4000
    assert add(0x1, *ALL) == 0xB000
    assert add(0x4001, *ALL, boundary=0x8000) == 0x1_0000  # one byte across it, from 0xC000
    assert add(0x4000, *ALL, boundary=0x8000) == 0xC000  # up to it
    assert add(0x2000, *ALL, boundary=0x8000) == 0x1_5000
    room = LOW_MEMORY_END - LOW_MEMORY_BASE
    assert add(0x1001, LOW_MEMORY_END - 0x1000, 0xFFFF_FFFF) == -1
    assert add(0x1000, LOW_MEMORY_END - 0x1000, 0xFFFF_FFFF) == room - 0x1000
    assert add(0x1000, LOW_MEMORY_END - 0x1000, 0xFFFF_FFFF) == -1
    assert add(0x1000, LOW_MEMORY_END, 0xFFFF_FFFF) == -1
    assert add(0x1000, 0, LOW_MEMORY_BASE - 1) == -1
    chip.remove_host_memory(views[1])
    assert add(0x1000, *ALL) == 0x0
    chip.write_memory(base + 0x5000, b"first", "with no other memory of the host")
    assert views[0][:5] == b"first"
    chip.release_host_memory()
    assert add(0x1000, *ALL) == 0x0 and chip.add_host_memory(views[0]) == HOST_MEMORY_BASE


def test_the_chip_finds_memory_of_32_bits(chip: Chip) -> None:
    chip.dma = guest = Asked()
    views = [memoryview(bytearray(16)) for _ in range(3)]
    first, last = chip.add_low_memory(views[0], 0, *ALL), chip.add_low_memory(views[1], 0, *ALL)
    own = chip.add_host_memory(views[2])
    segments = [(last + 8, 8), (0x5000, 4), (first, 16), (own, 16)]
    data = chip.map(None, segments, 1)
    assert data.write(b"12345678gggg" + b"a" * 16 + b"b" * 16) == data.length == 44
    assert [bytes(view) for view in views] == [b"a" * 16, bytes(8) + b"12345678", b"b" * 16]
    assert guest.asked == [([(0x5000, 4)], True)]
    for beyond in ((first + 8, 9), (first + 16, 1), (LOW_MEMORY_END - 1, 1), (own + 15, 2)):
        with pytest.raises(DmaFault):
            chip.map(None, [beyond], 0)
    for outside in (LOW_MEMORY_BASE - 1, LOW_MEMORY_END):
        chip.map(None, [(outside, 1)], 0)
    assert guest.asked[1:] == [([(LOW_MEMORY_BASE - 1, 1)], False), ([(LOW_MEMORY_END, 1)], False)]
    chip.remove_host_memory(views[0])
    with pytest.raises(DmaFault):
        chip.map(None, [(first, 1)], 0)
    assert chip.read_memory(last, 16, "the other") == views[1] and chip.read_memory(own, 16, "own") == views[2]
    chip.release_host_memory()
    for nowhere in (first, last):
        chip.map(None, [(nowhere, 1)], 0)  # the guest's, as without memory of the host
    assert len(guest.asked) == 5
    with pytest.raises(DmaFault):
        chip.map(None, [(own, 1)], 0)


# -- messages ------------------------------------------------------------------------------------------------------


def test_a_chip_without_messages_has_none(chip: Chip) -> None:
    assert chip.completions(0) is chip.completed
    chip.raise_interrupt()
    assert not chip.message_waits() and chip.next_message() < 0
    chip.quiet()
    assert not chip.asserted


def test_ends_are_told_by_their_messages(chip: Chip) -> None:
    """Each by its own, those that do not exist by the first one; a message for several ends is raised once."""
    raised: list[list[int]] = []
    chip.use_messages(3)
    chip.on_interrupt = lambda: raised.append([len(chip.completions(number)) for number in range(3)])
    tasks = []
    chip.plug()
    for message in (2, 0, 2, 3, -1, 1):
        task = read_task()
        task.message = message
        tasks.append(task)
        chip.start(0, 0, task)
    chip.unplug()
    assert chip.asserted and raised == [[3, 1, 2]] * 3
    assert list(chip.completions(0)) == [tasks[1], *tasks[3:5]] == list(chip.completed)
    assert list(chip.completions(1)) == [tasks[5]] and list(chip.completions(2)) == [tasks[0], tasks[2]]
    found = []
    while chip.message_waits():
        found.append(chip.next_message())
        assert len(found) <= 3
    assert found == [0, 1, 2] and chip.next_message() < 0


def test_a_message_is_an_edge_each_time(chip: Chip) -> None:
    raised: list[bool] = []
    chip.use_messages(2)
    chip.on_interrupt = lambda: raised.append(chip.asserted)
    for _ in range(2):
        chip.raise_interrupt(1)
    assert raised == [True, True]
    assert (chip.next_message(), chip.next_message()) == (1, -1)  # those that were not delivered merge


def test_masks_of_messages(chip: Chip) -> None:
    """A message that is masked waits, alone; so do all of them while the chip's own mask is set."""
    raised: list[str] = []
    chip.use_messages(3)
    chip.on_interrupt = lambda: raised.append("")
    chip.mask_message(1, True)
    chip.raise_interrupt(1)
    raised.clear()
    assert not chip.message_waits() and chip.next_message() < 0
    chip.interrupts_enabled = True
    chip.mask_message(2, True)
    chip.mask_message(2, False)  # which was not raised
    assert raised == []
    chip.raise_interrupt(2)
    assert raised == [""] and chip.next_message() == 2 and chip.next_message() < 0
    chip.interrupts_enabled = False
    chip.mask_message(1, False)
    chip.raise_interrupt(0)
    assert raised == [""] and not chip.message_waits() and chip.next_message() < 0
    chip.interrupts_enabled = True
    assert raised == ["", ""] and chip.message_waits()
    assert (chip.next_message(), chip.next_message(), chip.next_message()) == (0, 1, -1)
    chip.interrupts_enabled = True
    assert raised == ["", ""]
    chip.mask_message(1, True)
    chip.raise_interrupt(1)
    raised.clear()
    chip.mask_message(1, False)
    assert raised == [""] and chip.next_message() == 1


@pytest.mark.parametrize("messages", [2, 4, 0])
def test_messages_granted_anew(chip: Chip, messages: int) -> None:
    """Nothing of the former ones is left but what has ended."""
    chip.use_messages(3)
    chip.mask_message(1, True)
    chip.raise_interrupt(1)
    chip.raise_interrupt(0)
    chip.use_messages(messages)
    chip.mask_message(0, False)
    assert chip.messages == messages and not chip.message_waits() and chip.next_message() < 0
    if messages:
        chip.raise_interrupt(1)
        assert chip.next_message() == 1
        assert len({id(chip.completions(number)) for number in range(messages)}) == messages
        with pytest.raises(IndexError):
            chip.completions(messages)
    assert chip.completions(0) is chip.completed


def test_quiet_forgets_what_has_ended(chip: Chip) -> None:
    chip.use_messages(2)
    bus_of(chip).hold = True
    tasks = [read_task() for _ in range(2)]
    for number, task in enumerate(tasks):
        task.message = number
        chip.start(0, 0, task)
        bus_of(chip).release(task)
    chip.quiet()
    assert not chip.asserted and not chip.message_waits() and chip.next_message() < 0
    assert not chip.completions(0) and not chip.completions(1)


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


def test_MB_13_says_which_way_and_whose() -> None:
    found: list[tuple[str, Srb | None]] = []
    windows = DmaWindows(lambda rule, message, srb: found.append((message, srb)), lambda address, length: None)
    srb, other = Srb(), Srb()
    srb.mdl = DmaBuffer.of(bytearray(512))
    windows.open(srb)
    nowhere = DmaBuffer([(0x9000, 1)], [], 1)
    for owner in (other, "no request", None):
        for direction in (DATA_IN, DATA_OUT):
            task = Task(b"", direction, nowhere)
            task.owner = owner
            windows.begin(task)
    for direction in (DATA_IN, DATA_OUT):
        windows.begin(Task(b"", direction, srb.mdl))
    outside = "command started: DMA at 0x9000+0x1 is outside every request the miniport has"
    against = "command started: DMA {} the data buffer against the direction in srb_flags"
    assert found == [
        *[(outside, other)] * 2,
        *[(outside, None)] * 4,
        *((against.format(way), srb) for way in ("to", "from")),
    ]


def test_MB_13_two_requests_with_the_same_memory() -> None:
    """A list of the miniport's own is about the one it got last."""
    reports = Reports()
    windows = DmaWindows(reports, lambda address, length: None)
    own = DmaBuffer([(0x1000, 512)], [], 512)
    srbs = [Srb() for _ in range(2)]
    for srb, flags in zip(srbs, (SRB_FLAGS_DATA_OUT, SRB_FLAGS_DATA_IN), strict=True):
        srb.mdl, srb.srb_flags = DmaBuffer.of(bytearray(512)), flags
        windows.open(srb)
        windows.begin(Task(b"", DATA_OUT if srb is srbs[0] else DATA_IN, own))
    assert reports == []


def test_MB_13_segments_without_bytes_and_without_direction() -> None:
    """No bytes may lie anywhere; the SRB extension is read and written whatever the request does."""
    reports, srb = Reports(), Srb()
    windows = DmaWindows(reports, lambda address, length: srb if address < HOST_MEMORY_BASE + 64 else None)
    srb.mdl = DmaBuffer.of(bytearray(4096))
    srb.srb_flags = SRB_FLAGS_DATA_IN
    windows.open(srb)
    for segments in ([(0x9000, 0), (0x1000, 4096)], [(HOST_MEMORY_BASE, 16), (0x1FFF, 1), (0x2000, 0)]):
        windows.begin(Task(b"", DATA_IN, DmaBuffer(segments, [], 4096)))
    windows.begin(Task(b"", DATA_OUT, DmaBuffer([(HOST_MEMORY_BASE, 16)], [], 16)))
    assert reports == []
    for segments in ([(0x9000, 0), (0x2000, 1)], [(HOST_MEMORY_BASE + 64, 1)]):
        windows.begin(Task(b"", DATA_IN, DmaBuffer(segments, [], 1)))
    assert len(reports) == 2


@pytest.mark.parametrize(
    ("address", "owned", "found"),
    [
        (HOST_MEMORY_BASE, True, True),
        (HOST_MEMORY_BASE, False, False),  # a command of nobody's
        (HOST_MEMORY_BASE + 64, True, False),  # beside the extension
        (0x1000, True, False),  # that is said of the data themselves
    ],
)
def test_MB_13_an_extension_in_use_when_its_request_ends(address: int, owned: bool, found: bool) -> None:
    reports, srb = Reports(), Srb()
    windows = DmaWindows(reports, lambda address, length: srb if address < HOST_MEMORY_BASE + 64 else None)
    windows.add_fixed(HOST_MEMORY_BASE + 64, 64)
    srb.mdl = DmaBuffer.of(bytearray(4096))
    srb.srb_flags = SRB_FLAGS_DATA_IN
    windows.open(srb)
    task = Task(b"", DATA_IN, DmaBuffer([(address, 16)], [], 16))
    task.owner = srb if owned else None
    windows.begin(task)
    windows.close(srb)
    assert len(reports) == found
    assert all("SRB extension or sense buffer" in message for _, message in reports)


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


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize(
    ("end", "response"),
    [
        (lambda chip, task: chip.abort(task), RESPONSE_ABORTED),
        (lambda chip, task: chip.reset_unit(1, 2), RESPONSE_RESET),
        (lambda chip, task: chip.reset_target(1), RESPONSE_RESET),
        (lambda chip, task: chip.reset_bus(), RESPONSE_RESET),
    ],
    ids=["abort", "reset_unit", "reset_target", "reset_bus"],
)
def test_an_abort_or_reset_finds_plugged_commands_executed(
    chip: Chip, end: Callable[[Chip, Task], bool | None], response: int, hold: bool
) -> None:
    """They are older: the bus has them before it hears of what ends them, and once only."""
    bus, task = bus_of(chip), read_task()
    bus.hold = hold
    chip.plug()
    chip.start(1, 2, task)
    assert end(chip, task) in (hold or response == RESPONSE_RESET, None)
    assert list(chip.completed) == [task] and task.response == (response if hold else 0)
    chip.unplug()
    assert list(chip.completed) == [task] and bus.seen == [(1, 2, task)] and bus.held == []
    bus.hold = False
    assert chip.start(1, 2, read_task())  # no longer kept back


def test_resets_say_whether_somebody_is_there(chip: Chip) -> None:
    assert [chip.reset_unit(target, 0) for target in (7, 8)] == [True, False]
    assert [chip.reset_target(target) for target in (7, 8)] == [True, False]


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
