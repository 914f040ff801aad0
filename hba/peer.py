"""Who is at the other end of a UNIX socket (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import select
import socket
import struct
from pathlib import Path

from hba.visible import visible

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def peer_pid(sock: socket.socket) -> int:
    """The process at the other end (of a connection that nobody has accepted yet: the one that listens); 0 where the
    kernel does not say."""
    try:
        said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(said)[0])
    except OSError:
        return 0


def has_hung_up(sock: socket.socket) -> bool:
    """The other end is closed, whether all it has sent was read or not."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(0))


def called(pid: int) -> str:
    """`pid 4711 (qemu-system-x86)`; the number alone where the name cannot be had (proc(5), /proc/pid/comm)."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", errors="replace").strip()
    except OSError:
        name = ""
    return f"pid {pid} ({visible(name)})" if name else f"pid {pid}"


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, Ctrl-Z) or a debugger holds the process (proc(5), /proc/pid/stat)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in "Tt"
