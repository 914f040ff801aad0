"""What the storage tests share: a back end driven like synchronous code, and the model it is compared with."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable

from hypothesis import strategies as st

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.backend import Backend, Done

SECTOR = 512


class Sync:
    """Waits for each call in the loop, so that a test reads from top to bottom."""

    def __init__(self, loop: EventLoop, backend: Backend) -> None:
        self.loop = loop
        self.backend = backend
        self.later = 0  # calls that did not finish at once

    def call(self, start: Callable[[Done], bool]) -> None:
        outcome: list[StorageError | None] = []
        if start(outcome.append):
            assert not outcome, "finished at once and called back as well"
            return
        self.later += 1
        while not outcome:
            self.loop.run_once(None)
        assert len(outcome) == 1
        if outcome[0] is not None:
            raise outcome[0]

    def read(self, offset: int, length: int, *cuts: int) -> bytes:
        memory = memoryview(mmap.mmap(-1, max(1, length)))[:length]
        memory[:] = b"\xaa" * length
        views = split(memory, cuts)
        self.call(lambda done: self.backend.read(views, offset, done))
        return bytes(memory)

    def write(self, offset: int, data: bytes, *cuts: int, fua: bool = False) -> None:
        views = split(memoryview(bytearray(data)), cuts)
        self.call(lambda done: self.backend.write(views, offset, done, fua))

    def flush(self) -> None:
        self.call(self.backend.flush)

    def zero(self, offset: int, length: int) -> None:
        self.call(lambda done: self.backend.zero(offset, length, done))

    def discard(self, offset: int, length: int) -> None:
        self.call(lambda done: self.backend.discard(offset, length, done))


def split(memory: memoryview, cuts: tuple[int, ...]) -> list[memoryview]:
    """`memory` cut at the given places."""
    places = sorted({0, len(memory), *(cut for cut in cuts if 0 < cut < len(memory))})
    return [memory[start:end] for start, end in itertools.pairwise(places)]


def operations(size: int, longest: int = 40) -> st.SearchStrategy[list[tuple[str, int, int, int]]]:
    """Lists of (what, offset, length, seed) in whole sectors, inside a store of `size` bytes."""
    sectors = size // SECTOR
    place = st.integers(0, sectors - 1).flatmap(
        lambda start: st.tuples(st.just(start), st.integers(1, min(longest, sectors - start)))
    )
    what = st.sampled_from(["read", "write", "write", "fua", "zero", "discard", "flush", "allocated"])
    one = st.tuples(what, place, st.integers(1, 255)).map(lambda o: (o[0], o[1][0] * SECTOR, o[1][1] * SECTOR, o[2]))
    return st.lists(one, max_size=25)


def run_against_model(sync: Sync, model: bytearray, todo: list[tuple[str, int, int, int]]) -> None:
    """Do `todo` to the back end and to `model`; everything read must agree, and so must the whole at the end."""
    for what, offset, length, seed in todo:
        end = offset + length
        cut = offset % 7 * 512 + 512
        if what == "read":
            assert sync.read(offset, length, cut) == model[offset:end]
        elif what in ("write", "fua"):
            data = bytes((seed + index) % 256 for index in range(length))
            sync.write(offset, data, cut, cut + 24, fua=what == "fua")
            model[offset:end] = data
        elif what == "zero":
            sync.zero(offset, length)
            model[offset:end] = bytes(length)
        elif what == "discard":
            sync.discard(offset, length)
            model[offset:end] = bytes(length)
        elif what == "flush":
            sync.flush()
        else:
            mapped, extent = sync.backend.allocated(offset, length)
            assert 0 < extent <= length
            if not mapped:
                assert not any(model[offset : offset + extent]), "data where the back end says there is none"
    assert sync.read(0, len(model)) == model
