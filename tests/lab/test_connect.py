"""Connecting to a socket whose owner is slow."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hba.errors import GuestError
from hba.lab.connect import connect


def test_a_socket_that_is_made_and_listened_on_later(tmp_path: Path) -> None:
    path = tmp_path / "s"
    tries: list[int] = []
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def alive() -> None:
        tries.append(1)
        if len(tries) == 2:
            server.bind(str(path))  # there, but nobody listens: refused
        elif len(tries) == 4:
            server.listen()

    connect(path, alive).close()
    assert len(tries) == 4
    server.close()


def test_whoever_is_waited_for_has_died(tmp_path: Path) -> None:
    def alive() -> None:
        raise GuestError("QEMU has ended")

    with pytest.raises(GuestError, match="has ended"):
        connect(tmp_path / "s", alive)


def test_nobody_ever_listens(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="does not listen"):
        connect(tmp_path / "s", lambda: None, timeout=0.0)
