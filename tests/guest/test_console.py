"""The guest's console on a terminal: what is typed reaches the guest, and the terminal comes back as it was."""

from __future__ import annotations

import os
import pty
import select
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.launching import Launch

pytestmark = pytest.mark.qemu


class Terminal:
    """A pseudo-terminal with `launch` on it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.launch = Launch(folder, *arguments, terminal=slave)
        self._slave = slave
        self.shown = b""

    def expect(self, words: bytes, timeout: float = 300) -> None:
        """Wait until `words` are shown after what was waited for before."""
        deadline = time.monotonic() + timeout
        while words not in self.shown:
            assert time.monotonic() < deadline, f"{words!r} is not shown:\n{self.shown.decode(errors='replace')}"
            if select.select([self.master], [], [], 0.5)[0]:
                self.shown += os.read(self.master, 65536)
            else:
                assert self.launch.process.poll() is None, self.shown.decode(errors="replace")
        self.shown = self.shown.partition(words)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        self.launch.close()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_a_shell_until_the_user_leaves(terminal: Terminal) -> None:
    terminal.expect(b"Ctrl-] leaves it")
    terminal.expect(b"root@guest")
    terminal.type(b"lsscsi\r")
    terminal.expect(b"/dev/sda")
    terminal.expect(b"root@guest")
    # In two pieces each, to tell what is printed from what is typed.
    terminal.type(b'sh -c \'trap "echo cau""ght; exit" INT; echo wai""ting; sleep 1000\'\r')
    terminal.expect(b"waiting")
    terminal.type(b"\x03")  # Ctrl-C is the guest's
    terminal.expect(b"caught")
    terminal.expect(b"root@guest")
    terminal.type(b"echo sum $((40 + 2))\r")
    terminal.expect(b"sum 42")
    terminal.type(b"\x1d")
    assert terminal.launch.wait(60) == 0
    assert terminal.settings() == terminal.before
    assert terminal.launch.left_behind() == []


def test_poweroff_ends_it(terminal: Terminal) -> None:
    terminal.expect(b"Ctrl-] leaves it")
    terminal.expect(b"root@guest")
    terminal.type(b"poweroff\r")
    assert terminal.launch.wait(60) == 0
    assert terminal.settings() == terminal.before
    assert terminal.launch.left_behind() == []
