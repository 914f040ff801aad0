"""The guest's serial console on our terminal."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from hba.lab.connect import connect
from hba.lab.guest import Guest

LEAVE = b"\x1d"  # Ctrl-]


def attach(guest: Guest, path: Path) -> None:
    """Connect terminal and console until the guest ends or the user presses Ctrl-] .

    Without a terminal, standard input is fed to the guest until it ends, and the guest is waited for. Raises what
    `guest.alive` raises when QEMU fails or the server dies.
    """
    with contextlib.closing(connect(path, guest.alive)) as line, _raw_terminal():
        _write(_last_line(guest))
        on_terminal = sys.stdin.isatty()
        sources = [line.fileno(), sys.stdin.fileno()]
        while True:
            ready, _, _ = select.select(sources, [], [], 0.5)
            if line.fileno() in ready:
                data = _receive(line)
                if not data:
                    break
                _write(data)
            if sys.stdin.fileno() in ready:
                typed = _typed()
                if LEAVE in typed or (not typed and on_terminal):  # or the terminal has been closed
                    return
                elif not typed:
                    sources.remove(sys.stdin.fileno())
                else:
                    line.sendall(typed)
            if not ready:
                if not guest.running:
                    break
                guest.alive()
    guest.wait(10)


def _last_line(guest: Guest) -> bytes:
    """What the guest has printed since its last line's end: a prompt, most likely, that came before us."""
    try:
        return guest.sockets.console_log.read_bytes()[-500:].rpartition(b"\n")[2]
    except OSError:
        return b""


def _typed() -> bytes:
    try:
        return os.read(sys.stdin.fileno(), 4096)
    except OSError:
        return b""


def _receive(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except ConnectionError:
        return b""


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C too; the terminal is put back whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin, termios.TCSADRAIN)  # what has been typed already is the guest's too
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        print(flush=True)
