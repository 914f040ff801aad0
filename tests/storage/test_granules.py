"""A store with larger blocks than its unit: nothing is lost, nothing undone, whatever overlaps whatever."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from hba.errors import ConfigError, StorageError
from hba.storage.backend import Backend, Done
from hba.storage.granules import Granular, fit
from hba.storage.memory import MemoryBackend

GRANULE = 4096
SIZE = 8 * GRANULE


class Coarse(Backend):
    """Memory that refuses whatever does not fill granules. Calls wait for `finish` while `deferred`."""

    kind = "coarse"
    can_discard = True
    granule = medium_block = GRANULE

    def __init__(self, size: int = SIZE, deferred: bool = False) -> None:
        self.size = size
        self.content = bytearray(size)
        self.deferred = deferred
        self.pending: deque[tuple[Callable[[], Any], Done]] = deque()
        self.calls: list[tuple[str, int, int, bool]] = []
        self.fail_next: StorageError | None = None
        self.settles = True

    def _call(self, what: str, offset: int, length: int, act: Callable[[], Any], done: Done, fua: bool = False) -> bool:
        assert offset % GRANULE == 0 and length % GRANULE == 0 and length, (what, offset, length)
        assert offset + length <= self.size
        self.calls.append((what, offset, length, fua))
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if not self.deferred:
            act()
            return True
        self.pending.append((act, done))
        return False

    def finish(self, index: int = 0, error: StorageError | None = None) -> None:
        act, done = self.pending[index]
        del self.pending[index]
        if error is None:
            act()
        done(error)

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = sum(map(len, views))

        def act() -> None:
            at = offset
            for view in views:
                view[:] = self.content[at : at + len(view)]
                at += len(view)

        return self._call("read", offset, length, act, done)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = sum(map(len, views))

        def act() -> None:
            self.content[offset : offset + length] = b"".join(views)

        return self._call("write", offset, length, act, done, fua)

    def _blank(self, what: str, offset: int, length: int, done: Done) -> bool:
        def act() -> None:
            self.content[offset : offset + length] = bytes(length)

        return self._call(what, offset, length, act, done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        return self._blank("zero", offset, length, done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        return self._blank("discard", offset, length, done)

    def flush(self, done: Done) -> bool:
        return True

    def settle(self, timeout: float) -> bool:
        if self.settles:  # the calls are over; their outcomes come later
            self.pending = deque((lambda: None, done) for act, done in self.pending if act() or True)
        return self.settles

    def close(self) -> None:
        pass


def nothing(error: StorageError | None) -> None:
    raise AssertionError("it finished at once")


def made(deferred: bool = False) -> tuple[Coarse, Granular]:
    inner = Coarse()
    inner.content[:] = bytes(range(1, 129)) * (SIZE // 128)
    store = fit(inner, 512)
    assert isinstance(store, Granular)
    inner.deferred = deferred
    return inner, store


def test_a_store_that_fits_is_left_as_it_is() -> None:
    store = MemoryBackend(1 << 20)
    assert fit(store, 512) is store
    coarse = Coarse()
    assert fit(coarse, 4096) is coarse


def test_one_that_cannot_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="the store has 512 bytes, less than a block of 4096"):
        fit(MemoryBackend(512), 4096)
    with pytest.raises(ConfigError, match="the store has 2048 bytes, less than the 4096 it can read at once"):
        fit(Coarse(2048), 512)


def test_what_it_says_of_itself() -> None:
    _, store = made()
    assert (store.size, store.granule, store.medium_block, store.kind) == (SIZE, 1, GRANULE, "coarse")
    assert store.describe()["granule"] == GRANULE
    assert fit(Coarse(SIZE + 512), 512).size == SIZE, "a last granule that is not whole cannot be read"


def test_whole_granules_go_straight_through() -> None:
    inner, store = made()
    data = memoryview(bytearray(2 * GRANULE))
    assert store.read([data], GRANULE, nothing)
    assert store.write([data], GRANULE, nothing, fua=True)
    assert store.zero(0, GRANULE, nothing) and store.discard(GRANULE, GRANULE, nothing)
    assert [call[0] for call in inner.calls] == ["read", "write", "zero", "discard"]
    assert inner.calls[1] == ("write", GRANULE, 2 * GRANULE, True)
    assert store.bounced == 0


def test_a_write_reads_only_the_granules_it_fills_in_part() -> None:
    inner, store = made()
    assert store.write([memoryview(bytes(3 * GRANULE))], 512, nothing, fua=True)
    assert inner.calls == [
        ("read", 0, GRANULE, False),
        ("read", 3 * GRANULE, GRANULE, False),
        ("write", 0, 4 * GRANULE, True),
    ]


@pytest.mark.parametrize("what", ["zero", "discard"])
def test_erasing_asks_the_store_for_whole_granules_and_writes_the_rest(what: str) -> None:
    inner, store = made()
    before = bytes(inner.content)
    assert getattr(store, what)(512, 3 * GRANULE, nothing)
    assert (what, GRANULE, 2 * GRANULE, False) in inner.calls
    assert inner.content == before[:512] + bytes(3 * GRANULE) + before[512 + 3 * GRANULE :]


def test_an_error_of_either_step_is_the_writes() -> None:
    inner, store = made(deferred=True)
    outcomes: list[StorageError | None] = []
    bad = StorageError("bad", 5)
    for step in range(3):
        assert not store.write([memoryview(bytes(512))], 0, outcomes.append)
        if step == 0:
            inner.finish(error=bad)  # the read
            continue
        inner.fail_next = bad if step == 1 else None
        inner.finish()
        if step == 2:
            inner.finish(error=bad)  # the write
    assert [(str(error), error and error.operation) for error in outcomes] == [
        ("bad", "read"),
        ("bad", ""),
        ("bad", ""),
    ]


def test_an_error_at_once_says_that_it_was_a_read() -> None:
    inner, store = made()
    inner.fail_next = StorageError("bad", 5)
    with pytest.raises(StorageError, match="bad") as caught:
        store.write([memoryview(bytes(512))], 0, lambda error: None)
    assert (caught.value.errno, caught.value.operation) == (5, "read")


def test_a_shorter_one_waits_for_another_in_the_same_granule_and_none_is_lost() -> None:
    inner, store = made(deferred=True)
    outcomes: list[StorageError | None] = []
    assert not store.write([memoryview(b"a" * 512)], 0, outcomes.append)
    assert not store.write([memoryview(b"b" * 512)], 512, outcomes.append)
    assert not store.write([memoryview(b"c" * GRANULE)], GRANULE, outcomes.append)  # another granule waits for nobody
    assert [call[0] for call in inner.calls] == ["read", "write"]
    while inner.pending:
        inner.finish()
    assert outcomes == [None] * 3
    assert inner.content[:1024] == b"a" * 512 + b"b" * 512


def test_settled_reads_have_their_data_and_touch_nothing_afterwards() -> None:
    inner, store = made(deferred=True)
    outcomes: list[StorageError | None] = []
    view = memoryview(bytearray(512))
    assert not store.read([view], 512, outcomes.append)
    expected = bytes(inner.content[512:1024])
    assert store.settle(1.0)
    assert view == expected
    view[:] = b"x" * 512  # taken back by the guest
    inner.finish()
    assert view == b"x" * 512 and outcomes == [None]


def test_a_read_that_hangs_past_settling_fails_and_touches_nothing() -> None:
    inner, store = made(deferred=True)
    inner.settles = False
    outcomes: list[StorageError | None] = []
    view = memoryview(bytearray(512))
    assert not store.read([view], 512, outcomes.append)
    assert not store.settle(0.0)
    inner.finish()
    assert view == bytes(512)
    assert outcomes[0] is not None and "withdrawn" in str(outcomes[0])


SECTORS = SIZE // 512
operations = hs.lists(
    hs.tuples(
        hs.sampled_from(["write", "write", "zero", "discard", "finish", "finish"]),
        hs.integers(0, SECTORS - 1),
        hs.integers(1, 20),
        hs.integers(0, 255),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(operations, hs.booleans())
def test_changes_apply_in_the_order_they_came(steps: list[tuple[str, int, int, int]], deferred: bool) -> None:
    """Against plain memory, whatever order the store finishes its calls in, with neighbours and overlaps."""
    inner, store = made(deferred=deferred)
    model = bytearray(inner.content)
    asked, outcomes = 0, []

    def done(error: StorageError | None) -> None:
        outcomes.append(error)

    for what, sector, count, value in steps:
        if what == "finish":
            if inner.pending:
                inner.finish(value % len(inner.pending))
            continue
        length = min(count, SECTORS - sector) * 512
        offset = sector * 512
        data = bytes((value,)) * length if what == "write" else bytes(length)
        model[offset : offset + length] = data
        asked += 1
        if what == "write":
            finished = store.write([memoryview(data)], offset, done)
        else:
            finished = getattr(store, what)(offset, length, done)
        if finished:
            outcomes.append(None)
    while inner.pending:
        inner.finish(len(inner.pending) // 2)
    assert outcomes == [None] * asked
    assert inner.content == model
    view = memoryview(bytearray(SIZE - 512))
    inner.deferred = False
    assert store.read([view], 512, nothing)
    assert view == model[512:]
