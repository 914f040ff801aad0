"""Scatter lists as they lie in memory: what is read of them, where they end, what is said of those that are none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.scatter import MAX_ELEMENTS, BadScatterList, read_scatter_list
from hba.pci.memory import GuestMemory

CHAIN = st.SG_FLAG_CHAIN_ELEMENT


class Ram:
    def __init__(self) -> None:
        self.fd = os.memfd_create("ram")
        os.ftruncate(self.fd, 4 << 20)
        self.memory = GuestMemory()
        self.memory.enabled = True
        self.memory.map(0, 4 << 20, 3, os.dup(self.fd), 0)

    def put(self, address: int, *elements: tuple[int, int, int]) -> None:
        os.pwrite(self.fd, b"".join(st.SG_ELEMENT.pack(*element) for element in elements), address)

    def read(self, address: int, length: int) -> list[tuple[int, int]]:
        return read_scatter_list(self.memory, address, length)

    def refusal(self, address: int, length: int) -> str:
        with pytest.raises(BadScatterList) as caught:
            self.read(address, length)
        return str(caught.value)


@pytest.fixture
def ram() -> Iterator[Ram]:
    ram = Ram()
    yield ram
    ram.memory.unmap_all()
    os.close(ram.fd)


def test_neighbours_are_one_and_the_last_is_cut(ram: Ram) -> None:
    ram.put(0x1000, (0x0, 512, 0), (512, 512, 0), (0x5000, 0, 0), (0x9000, 100, 0), (0x8000, 4096, 0), (0x7000, 1, 0))
    assert ram.read(0x1000, 1) == [(0, 1)]
    assert ram.read(0x1000, 512) == [(0, 512)]
    assert ram.read(0x1000, 513) == [(0, 513)]
    assert ram.read(0x1000, 1124) == [(0, 1024), (0x9000, 100)]
    assert ram.read(0x1000, 1125) == [(0, 1024), (0x9000, 100), (0x8000, 1)]
    assert ram.read(0x1000, 1124 + 4096) == [(0, 1024), (0x9000, 100), (0x8000, 4096)]
    assert ram.read(0x1000, 1125 + 4096) == [(0, 1024), (0x9000, 100), (0x8000, 4096), (0x7000, 1)]


def test_a_list_the_guest_lets_be_read_only(ram: Ram) -> None:
    ram.put(0x1000, (0x4000, 512, 0))
    ram.memory.map(4 << 20, 4 << 20, 1, os.dup(ram.fd), 0)
    assert ram.read((4 << 20) + 0x1000, 512) == [(0x4000, 512)]


def test_an_empty_element_does_not_part_neighbours(ram: Ram) -> None:
    ram.put(0x1000, (0x4000, 512, 0), (0x9000, 0, 0), (0x4200, 512, 0))
    assert ram.read(0x1000, 1024) == [(0x4000, 1024)]


def test_a_segment_ends_with_its_page(ram: Ram) -> None:
    """Whole elements of it: what is behind is another page, and not looked at."""
    ram.put(0x1FE0, (0x4000, 1, 0), (0x5000, 1, 0), (0x6000, 1, 0))
    assert ram.read(0x1FE0, 2) == [(0x4000, 1), (0x5000, 1)]
    assert ram.refusal(0x1FE0, 3) == "the list ends 1 bytes before the transfer does"
    ram.put(0x1FE8, (0x4000, 1, 0))
    assert ram.read(0x1FE8, 1) == [(0x4000, 1)]
    assert ram.refusal(0x1FE8, 2) == "the list ends 1 bytes before the transfer does"
    ram.put(0x1FF0, (0x4000, 1, 0))
    assert ram.read(0x1FF0, 1) == [(0x4000, 1)]
    for address in (0x1FF1, 0x1FF8, 0x1FFF):
        assert ram.refusal(address, 1) == (
            f"a segment at 0x{address:x} has no room for an element before the end of its page"
        )


@pytest.mark.parametrize(("pages", "there"), [(1, True), (st.SG_MAX_SEGMENTS, True), (st.SG_MAX_SEGMENTS + 1, False)])
def test_so_many_segments_and_no_more(ram: Ram, pages: int, there: bool) -> None:
    for page in range(1, pages):
        ram.put(0x1000 * page, (0x1000 * (page + 1), 77, CHAIN), (0, 9, 0))
    ram.put(0x1000 * pages, (0x300000, 5, 0))
    if there:
        assert ram.read(0x1000, 5) == [(0x300000, 5)]
    else:
        assert ram.refusal(0x1000, 5) == "more than 128 chained segments"


@pytest.mark.parametrize("more", [0, 1])
def test_so_many_pieces_and_no_more(ram: Ram, more: int) -> None:
    total = MAX_ELEMENTS + more
    at, number = 0x1000, 0
    while number < total:
        pieces = [(0x200000 + 2 * (number + index), 1, 0) for index in range(min(255, total - number))]
        number += len(pieces)
        ram.put(at, *pieces, (at + 0x1000, 0, CHAIN))
        at += 0x1000
    if more:
        assert ram.refusal(0x1000, total) == f"more than {MAX_ELEMENTS} pieces of memory"
    else:
        found = ram.read(0x1000, total)
        assert len(found) == MAX_ELEMENTS and found[-1] == (0x200000 + 2 * (total - 1), 1)
