"""Interrupt delivery, and everything a client may say with SET_IRQS."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.loop import EventLoop
from hba.pci.interrupts import ERR, INTX, MSI, MSIX, REQ, Interrupts
from hba.vfio_user.device import (
    IRQ_AUTOMASKED,
    IRQ_EVENTFD,
    IRQ_MASKABLE,
    IRQ_SET_ACTION_MASK,
    IRQ_SET_ACTION_TRIGGER,
    IRQ_SET_ACTION_UNMASK,
    IRQ_SET_DATA_BOOL,
    IRQ_SET_DATA_EVENTFD,
    IRQ_SET_DATA_NONE,
    RequestError,
)
from tests.descriptors import open_fds

TRIGGER_FDS = IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_TRIGGER
TRIGGER_NOW = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER
UNMASK_NOW = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_UNMASK
MASK_NOW = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_MASK


class Eventfd:
    """The client's end of an eventfd; `passed()` is the copy that the server gets and owns."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def passed(self) -> int:
        return os.dup(self.fd)

    def count(self) -> int:
        """How often it fired since the last look."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop(VirtualClock())
    yield loop
    loop.close()


@pytest.fixture
def irqs(loop: EventLoop) -> Iterator[Interrupts]:
    irqs = Interrupts(loop, msi_vectors=4, msix_vectors=70)
    yield irqs
    irqs.disconnect()


def connect(irqs: Interrupts, index: int, count: int = 1, start: int = 0) -> list[Eventfd]:
    ends = [Eventfd() for _ in range(count)]
    irqs.set_irqs(index, TRIGGER_FDS, start, count, [end.passed() for end in ends], b"")
    return ends


class TestInfo:
    def test_counts_and_flags(self, irqs: Interrupts) -> None:
        assert [irqs.info(index).count for index in range(5)] == [1, 4, 70, 1, 1]
        assert irqs.info(INTX).flags == IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED
        assert irqs.info(ERR).flags & (IRQ_EVENTFD | IRQ_MASKABLE) == IRQ_EVENTFD

    def test_what_is_not_there_has_no_vectors(self, loop: EventLoop) -> None:
        bare = Interrupts(loop, 0, 0, intx=False)
        assert [(bare.info(index).count, bare.info(index).flags) for index in (INTX, MSI, MSIX)] == [(0, 0)] * 3
        assert bare.mode == "none"

    def test_unknown_index(self, irqs: Interrupts) -> None:
        for index in (-1, 5):
            with pytest.raises(RequestError) as caught:
                irqs.info(index)
            assert caught.value.errno == errno.EINVAL


class TestIntx:
    def test_triggers_once_until_unmasked_and_again_while_the_cause_persists(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        irqs.set_line(True)
        irqs.set_line(True)
        assert end.count() == 1
        irqs.set_irqs(INTX, UNMASK_NOW, 0, 1, [], b"")
        assert end.count() == 1
        irqs.set_line(False)
        irqs.set_irqs(INTX, UNMASK_NOW, 0, 1, [], b"")
        assert end.count() == 0
        irqs.set_line(True)
        assert end.count() == 1

    def test_a_line_that_fell_and_rose_while_masked_triggers_once(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        for level in (True, False, True):
            irqs.set_line(level)
        assert end.count() == 1
        irqs.set_irqs(INTX, UNMASK_NOW, 0, 1, [], b"")
        assert end.count() == 1

    def test_mask_holds_it_back(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        irqs.set_irqs(INTX, MASK_NOW, 0, 1, [], b"")
        irqs.set_line(True)
        assert end.count() == 0
        irqs.set_irqs(INTX, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_UNMASK, 0, 1, [], b"\0")
        assert end.count() == 0
        irqs.set_irqs(INTX, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_UNMASK, 0, 1, [], b"\1")
        assert end.count() == 1

    def test_resample_eventfd_unmasks(self, loop: EventLoop, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        resample = Eventfd()
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_UNMASK, 0, 1, [resample.passed()], b"")
        irqs.set_line(True)
        assert end.count() == 1
        os.eventfd_write(resample.fd, 1)
        loop.run_once()
        assert end.count() == 1
        irqs.set_line(False)
        os.eventfd_write(resample.fd, 1)
        loop.run_once()
        loop.run_once()
        assert end.count() == 0

    def test_resample_eventfd_is_replaced_and_removed(self, loop: EventLoop, irqs: Interrupts) -> None:
        connect(irqs, INTX)
        before = open_fds()
        first, second = Eventfd(), Eventfd()
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_UNMASK, 0, 1, [first.passed()], b"")
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_UNMASK, 0, 1, [second.passed()], b"")
        assert open_fds() == before + 3
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_UNMASK, 0, 1, [], b"")
        assert open_fds() == before + 2
        os.eventfd_write(second.fd, 1)
        loop.run_once()
        assert second.count() == 1  # nobody but us reads it any more

    def test_mask_eventfd(self, loop: EventLoop, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        mask = Eventfd()
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_MASK, 0, 1, [mask.passed()], b"")
        os.eventfd_write(mask.fd, 1)
        loop.run_once()
        irqs.set_line(True)
        assert end.count() == 0

    def test_enabling_finds_a_line_that_is_up(self, irqs: Interrupts) -> None:
        irqs.set_line(True)
        (end,) = connect(irqs, INTX)
        assert end.count() == 1

    def test_a_new_eventfd_does_not_unmask(self, irqs: Interrupts) -> None:
        connect(irqs, INTX)
        irqs.set_line(True)
        (end,) = connect(irqs, INTX)
        assert end.count() == 0
        irqs.set_irqs(INTX, UNMASK_NOW, 0, 1, [], b"")
        assert end.count() == 1

    def test_disable_and_enable_starts_unmasked(self, irqs: Interrupts) -> None:
        connect(irqs, INTX)
        irqs.set_line(True)
        irqs.set_irqs(INTX, TRIGGER_NOW, 0, 0, [], b"")
        (end,) = connect(irqs, INTX)
        assert end.count() == 1

    def test_only_when_it_is_in_use(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, INTX)
        irqs.configure("none")
        irqs.set_line(True)
        assert end.count() == 0
        irqs.configure("intx")
        assert end.count() == 1

    def test_the_line_is_told(self, irqs: Interrupts) -> None:
        levels: list[bool] = []
        irqs.on_line = levels.append
        for level in (True, True, False):
            irqs.set_line(level)
        assert levels == [True, False]


class TestMessages:
    @pytest.mark.parametrize(("index", "mode"), [(MSI, "msi"), (MSIX, "msix")])
    def test_each_signal_fires_its_vector(self, irqs: Interrupts, index: int, mode: str) -> None:
        ends = connect(irqs, index, 4)
        irqs.configure(mode, allocated=4)
        assert irqs.mode == mode
        irqs.signal(1)
        irqs.signal(1)
        irqs.signal(3)
        assert [end.count() for end in ends] == [0, 2, 0, 1]
        assert irqs.sent[mode] == 3

    def test_only_the_mechanism_in_use(self, irqs: Interrupts) -> None:
        msi, msix = connect(irqs, MSI), connect(irqs, MSIX)
        irqs.signal()
        irqs.configure("msi")
        irqs.signal()
        irqs.configure("msix")
        irqs.signal()
        irqs.configure("none")
        irqs.signal()
        assert (msi[0].count(), msix[0].count()) == (1, 1)
        assert irqs.ignored == 2

    def test_fewer_vectors_granted_than_offered(self, irqs: Interrupts) -> None:
        ends = connect(irqs, MSI, 2)
        irqs.configure("msi", allocated=2)
        for vector in range(4):
            irqs.signal(vector)
        assert [end.count() for end in ends] == [2, 2]

    def test_a_held_vector_is_sent_as_the_one_granted(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, MSI)
        irqs.configure("msi", blocked=True)
        irqs.signal(3)
        irqs.configure("msi")
        assert end.count() == 1

    def test_masked_is_pending_and_fires_at_unmask(self, irqs: Interrupts) -> None:
        ends = connect(irqs, MSIX, 66)
        irqs.configure("msix")
        irqs.set_irqs(MSIX, MASK_NOW, 64, 2, [], b"")
        irqs.signal(65)
        irqs.signal(65)
        irqs.signal(0)
        assert (ends[65].count(), ends[0].count()) == (0, 1)
        assert (irqs.pending_bits(0), irqs.pending_bits(64)) == (0, 2)
        irqs.set_irqs(MSIX, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_UNMASK, 64, 2, [], b"\1\0")
        assert ends[65].count() == 0
        irqs.set_irqs(MSIX, UNMASK_NOW, 65, 1, [], b"")
        assert ends[65].count() == 1
        assert irqs.pending_bits(64) == 0

    def test_a_vector_without_eventfd_waits_for_one(self, irqs: Interrupts) -> None:
        irqs.configure("msix")
        irqs.signal(2)
        ends = connect(irqs, MSIX, 2)
        assert irqs.pending_bits(0) == 0b100
        (late,) = connect(irqs, MSIX, 1, start=2)
        assert (late.count(), irqs.pending_bits(0)) == (1, 0)
        assert [end.count() for end in ends] == [0, 0]

    def test_function_mask_or_no_bus_master(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, MSIX)
        irqs.configure("msix", blocked=True)
        irqs.signal()
        assert (end.count(), irqs.pending_bits(0)) == (0, 1)
        irqs.configure("msix")
        assert (end.count(), irqs.pending_bits(0)) == (1, 0)

    def test_leaving_the_mechanism_forgets_what_is_pending(self, irqs: Interrupts) -> None:
        irqs.configure("msi", blocked=True)
        irqs.signal()
        irqs.configure("intx")
        (end,) = connect(irqs, MSI)
        irqs.configure("msi")
        assert end.count() == 0

    def test_a_vector_that_does_not_exist_is_ignored(self, irqs: Interrupts) -> None:
        irqs.configure("msi")
        irqs.signal(4)
        assert irqs.ignored == 1

    def test_eventfds_taken_away(self, irqs: Interrupts) -> None:
        ends = connect(irqs, MSI, 4)
        irqs.configure("msi", allocated=4)
        before = open_fds()
        irqs.set_irqs(MSI, TRIGGER_FDS, 1, 2, [], b"")
        assert open_fds() == before - 2
        for vector in range(4):
            irqs.signal(vector)
        assert [end.count() for end in ends] == [1, 0, 0, 1]

    def test_replacing_closes_the_old_one(self, irqs: Interrupts) -> None:
        irqs.configure("msi")
        (old,) = connect(irqs, MSI)
        before = open_fds()
        (new,) = connect(irqs, MSI)
        assert open_fds() == before + 1  # the new client end; the server's copies are as many as before
        irqs.signal()
        assert (old.count(), new.count()) == (0, 1)

    def test_a_full_eventfd_does_not_block(self, irqs: Interrupts) -> None:
        end = Eventfd()
        os.set_blocking(end.fd, True)
        os.eventfd_write(end.fd, 2**64 - 2)
        irqs.configure("msi")
        irqs.set_irqs(MSI, TRIGGER_FDS, 0, 1, [end.passed()], b"")
        irqs.signal()
        assert irqs.failed == 1

    def test_reset_forgets_what_is_pending_and_keeps_the_eventfds(self, irqs: Interrupts) -> None:
        (end,) = connect(irqs, MSI)
        irqs.configure("msi", blocked=True)
        irqs.set_line(True)
        irqs.signal()
        irqs.reset()
        irqs.configure("msi")
        assert (end.count(), irqs.asserted) == (0, False)
        irqs.signal()
        assert end.count() == 1


class TestSetIrqs:
    @pytest.mark.parametrize("index", [INTX, MSI, MSIX, ERR, REQ])
    def test_loopback(self, irqs: Interrupts, index: int) -> None:
        (end,) = connect(irqs, index)
        irqs.set_irqs(index, TRIGGER_NOW, 0, 1, [], b"")
        irqs.set_irqs(index, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_TRIGGER, 0, 1, [], b"\1")
        irqs.set_irqs(index, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_TRIGGER, 0, 1, [], b"\0")
        assert end.count() == 2

    def test_loopback_without_eventfd_is_harmless(self, irqs: Interrupts) -> None:
        irqs.set_irqs(MSI, TRIGGER_NOW, 0, 4, [], b"")
        assert irqs.sent["msi"] == 0

    @pytest.mark.parametrize(
        ("index", "flags", "start", "count", "data", "number"),
        [
            (5, TRIGGER_NOW, 0, 1, b"", errno.EINVAL),
            (MSI, 0, 0, 1, b"", errno.EINVAL),
            (MSI, IRQ_SET_ACTION_TRIGGER, 0, 1, b"", errno.EINVAL),
            (MSI, IRQ_SET_DATA_NONE, 0, 1, b"", errno.EINVAL),
            (MSI, TRIGGER_NOW | IRQ_SET_DATA_BOOL, 0, 1, b"\1", errno.EINVAL),
            (MSI, TRIGGER_NOW | IRQ_SET_ACTION_MASK, 0, 1, b"", errno.EINVAL),
            (MSI, TRIGGER_NOW | 0x40, 0, 1, b"", errno.EINVAL),
            (MSI, TRIGGER_NOW, 4, 1, b"", errno.EINVAL),
            (MSI, TRIGGER_NOW, 0, 5, b"", errno.EINVAL),
            (MSI, TRIGGER_NOW, 0xFFFFFFFF, 0xFFFFFFFF, b"", errno.EINVAL),
            (MSI, MASK_NOW, 0, 0, b"", errno.EINVAL),
            (MSI, TRIGGER_FDS, 0, 0, b"", errno.EINVAL),
            (MSI, IRQ_SET_DATA_BOOL | IRQ_SET_ACTION_TRIGGER, 0, 2, b"\1", errno.EINVAL),
            (ERR, MASK_NOW, 0, 1, b"", errno.ENOTTY),
            (REQ, UNMASK_NOW, 0, 1, b"", errno.ENOTTY),
        ],
    )
    def test_refused(
        self, irqs: Interrupts, index: int, flags: int, start: int, count: int, data: bytes, number: int
    ) -> None:
        with pytest.raises(RequestError) as caught:
            irqs.set_irqs(index, flags, start, count, [], data)
        assert caught.value.errno == number

    def test_eventfds_of_a_refused_request_are_closed(self, irqs: Interrupts) -> None:
        ends = [Eventfd(), Eventfd()]
        before = open_fds()
        for flags, count in ((TRIGGER_FDS, 3), (TRIGGER_NOW, 2), (TRIGGER_FDS, 99)):
            with pytest.raises(RequestError):
                irqs.set_irqs(MSI, flags, 0, count, [end.passed() for end in ends], b"")
        assert open_fds() == before

    def test_something_that_is_no_eventfd_is_refused(self, irqs: Interrupts) -> None:
        near, far = os.pipe()
        before = open_fds()
        with pytest.raises(RequestError, match="not an eventfd"):
            irqs.set_irqs(MSI, TRIGGER_FDS, 0, 1, [os.dup(far)], b"")
        assert open_fds() == before
        os.close(near)
        os.close(far)

    def test_disabling_an_index_closes_everything_of_it(self, irqs: Interrupts) -> None:
        before = open_fds()
        ends = connect(irqs, INTX)
        resample = Eventfd()
        irqs.set_irqs(INTX, IRQ_SET_DATA_EVENTFD | IRQ_SET_ACTION_UNMASK, 0, 1, [resample.passed()], b"")
        irqs.set_irqs(INTX, TRIGGER_NOW, 0, 0, [], b"")
        assert open_fds() == before + len([*ends, resample])


class Bell:
    """A `Wire` of an engine that keeps the eventfds to itself."""

    def __init__(self) -> None:
        self.rung = 0
        self.closed = False
        self.cut = False

    def trigger(self) -> None:
        assert not self.closed
        if self.cut:
            raise OSError(errno.ENOENT, "no eventfd")
        self.rung += 1

    def close(self) -> None:
        self.closed = True


class TestWires:
    def test_they_are_as_good_as_eventfds(self, irqs: Interrupts) -> None:
        irqs.configure("msi", allocated=4)
        irqs.signal(1)
        bells = [Bell(), Bell()]
        irqs.connect(MSI, 1, bells)
        irqs.signal(2)
        assert [bell.rung for bell in bells] == [1, 1]  # the first waited for its wire
        assert irqs.sent["msi"] == 2
        bells[1].cut = True
        irqs.signal(2)
        assert (irqs.failed, irqs.sent["msi"]) == (1, 2)

    def test_intx_is_masked_after_each_trigger(self, irqs: Interrupts) -> None:
        bell = Bell()
        irqs.connect(INTX, 0, [bell])
        irqs.set_line(True)
        irqs.set_irqs(INTX, UNMASK_NOW, 0, 1, [], b"")
        irqs.set_line(False)
        irqs.set_line(True)
        assert bell.rung == 2

    def test_those_that_go_are_closed(self, irqs: Interrupts) -> None:
        bells = [Bell() for _ in range(5)]
        irqs.connect(MSI, 0, bells[:1])
        irqs.connect(MSI, 0, bells[1:2])
        irqs.connect(MSI, 1, bells[2:3])
        irqs.connect(MSI, 1, [None])
        with pytest.raises(RequestError) as caught:
            irqs.connect(MSI, 3, bells[3:])
        assert caught.value.errno == errno.EINVAL
        assert [bell.closed for bell in bells] == [True, False, True, True, True]
        irqs.disconnect()
        assert bells[1].closed


class TestLifeCycle:
    def test_disconnect_closes_all_and_keeps_the_line(self, irqs: Interrupts) -> None:
        before = open_fds()
        ends = [*connect(irqs, INTX), *connect(irqs, MSI, 4), *connect(irqs, MSIX, 8), *connect(irqs, ERR)]
        irqs.set_line(True)
        irqs.disconnect()
        assert open_fds() == before + len(ends)
        assert irqs.asserted

    def test_what_is_pending_reaches_the_next_client(self, irqs: Interrupts) -> None:
        irqs.configure("msi", blocked=True)
        irqs.signal()
        irqs.disconnect()
        (end,) = connect(irqs, MSI)
        irqs.configure("msi")
        assert end.count() == 1

    def test_error_and_release_requests(self, irqs: Interrupts) -> None:
        assert not irqs.report_error()
        (error,), (release,) = connect(irqs, ERR), connect(irqs, REQ)
        assert irqs.report_error()
        assert irqs.request_release()
        assert (error.count(), release.count()) == (1, 1)

    def test_snapshot(self, irqs: Interrupts) -> None:
        connect(irqs, MSI, 2)
        irqs.configure("msi", allocated=4)
        irqs.set_irqs(MSI, MASK_NOW, 1, 1, [], b"")
        irqs.signal(1)
        view = json.loads(json.dumps(irqs.snapshot()))
        assert view["mode"] == "msi"
        msi = view["indexes"][MSI]
        assert (msi["connected"], msi["masked"], msi["pending"]) == ([0, 1], [1], [1])


STEP = st.one_of(
    st.tuples(st.just("line"), st.booleans()),
    st.tuples(st.just("signal"), st.integers(0, 5)),
    st.tuples(st.just("mode"), st.sampled_from(["none", "intx", "msi", "msix"]), st.booleans(), st.integers(1, 32)),
    st.tuples(
        st.just("set"),
        st.integers(0, 5),
        st.sampled_from([a | d for a in (0, 8, 16, 32) for d in (0, 1, 2, 4)]),
        st.integers(0, 5),
        st.integers(0, 6),
        st.integers(0, 4),
        st.binary(max_size=4),
    ),
    st.tuples(st.just("reset")),
    st.tuples(st.just("disconnect")),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_no_sequence_leaks_or_raises_anything_but_request_errors(steps: list[tuple[object, ...]]) -> None:
    loop = EventLoop(VirtualClock())
    before = open_fds()
    irqs = Interrupts(loop, msi_vectors=4, msix_vectors=4)
    for step in steps:
        match step:
            case ("line", bool(level)):
                irqs.set_line(level)
            case ("signal", int(vector)):
                irqs.signal(vector)
            case ("mode", str(mode), bool(blocked), int(allocated)):
                irqs.configure(mode, blocked=blocked, allocated=allocated)
            case ("set", int(index), int(flags), int(start), int(count), int(fds), bytes(data)):
                passed = [os.eventfd(0) for _ in range(fds)]
                try:
                    irqs.set_irqs(index, flags, start, count, passed, data)
                except RequestError:
                    pass
            case ("reset",):
                irqs.reset()
            case ("disconnect",):
                irqs.disconnect()
        loop.run_once()
    json.dumps(irqs.snapshot())
    irqs.disconnect()
    assert open_fds() == before
    loop.close()
