"""A client that maps its memory privately is found out, and only such a one."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.peer import peer_pid
from hba.vfio_user import sharing
from hba.vfio_user.sharing import Sharing

SIZE = 1 << 16


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("ram")
    os.ftruncate(number, SIZE)
    yield number
    os.close(number)


def test_a_private_mapping(fd: int) -> None:
    with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE) as memory:
        memory[0] = 1
        assert Sharing(os.getpid()).is_private(fd)


def test_a_shared_one(fd: int) -> None:
    with mmap.mmap(fd, SIZE, mmap.MAP_SHARED):
        assert not Sharing(os.getpid()).is_private(fd)
        with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE):
            assert not Sharing(os.getpid()).is_private(fd), "it shares the file, whatever else it does with it"


def test_what_cannot_be_told_is_believed(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Sharing(os.getpid()).is_private(fd), "no mapping of it"
    with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE):
        assert not Sharing(0).is_private(fd)
        assert not Sharing(1 << 22).is_private(fd), "no such process"
        monkeypatch.setattr(sharing, "_FILES", 0)
        assert not Sharing(os.getpid()).is_private(fd)


def test_the_answer_stays(fd: int) -> None:
    asked = Sharing(os.getpid())
    with mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE):
        assert asked.is_private(fd)
    assert asked.is_private(fd)


def test_who_is_at_the_other_end(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_pid(one) == os.getpid()
    with socket.socket(socket.AF_INET) as internet:
        assert peer_pid(internet) == 0
