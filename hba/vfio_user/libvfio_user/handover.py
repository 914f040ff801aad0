"""A client that we have accepted becomes the library's.

Left to itself the library accepts a client and waits for its VERSION, for ever, and everybody in this process with it.
So we accept, wait in the event loop, and play the client's part towards the library: on a connection of our own we say
what the client said, and pass on what the library answers. Then the client's socket takes the place of that connection
under the number of the library's descriptor (dup2(2)), which vfu_get_poll_fd tells.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from tempfile import TemporaryDirectory

from hba.peer import peer_pid
from hba.vfio_user.framing import close_fds, descriptors, send_message
from hba.vfio_user.libvfio_user.binding import Context, Library, Unusable

LONGEST = 1 << 16  # bytes of a VERSION; usual are some hundreds
_FDS = socket.CMSG_SPACE(8 * struct.calcsize("i"))


def make_context(library: Library) -> Context:
    """A context nobody but `Handover` can connect to: its socket has no name any more. Raises OSError."""
    with TemporaryDirectory(prefix="hba-") as folder:  # of mode 0700
        return Context(library, f"{folder}/s")


class Handover:
    """The descriptors of a context that is set up, and what is put in their place. Raises `Unusable` when
    vfu_get_poll_fd does not give the listening socket.

    What it needs itself it opens at once: that there are no descriptors left must not keep it from hanging up.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._listener_fd = context.poll_fd()
        if not _is_socket(self._listener_fd, listens=True):
            raise Unusable("vfu_get_poll_fd gives no listening socket before a client has come")
        self._dead, other = socket.socketpair()
        other.close()
        self._nowhere, self._drain = socket.socketpair()
        self._drain.setblocking(False)

    def close(self) -> None:
        for sock in (self._dead, self._nowhere, self._drain):
            sock.close()

    def negotiate(self, client: socket.socket, version: bytes, fds: list[int]) -> int:
        """Let the library answer the VERSION of `client`, with the descriptors that came with it (which stay ours), and
        serve it from then on. Returns the bytes of the answer.

        Raises OSError when it refuses, and `Unusable` when it does something unheard of; the client has its answer, if
        there was one.
        """
        listener, near = _pair()
        with listener, near:
            os.dup2(listener.fileno(), self._listener_fd, inheritable=False)
            near.settimeout(0)
            send_message(near, [version], fds)
            try:
                self._context.attach()
            except OSError:
                _pass_on(near, client)
                raise
            if not _is_socket(self._context.poll_fd(), listens=False):
                raise Unusable("vfu_get_poll_fd does not give the client's socket when one has come")
            length = _pass_on(near, client)
            self.put(client)
            return length

    def put(self, sock: socket.socket) -> None:
        """Let the library use this socket for its client, if it has one."""
        fd = self._context.poll_fd()
        if fd != self._listener_fd:
            os.dup2(sock.fileno(), fd, inheritable=False)

    def divert(self) -> None:
        """What the library says next goes nowhere; until `put`."""
        self.put(self._nowhere)

    def drain(self) -> None:
        """Forget what has gone there."""
        try:
            self._drain.recv(LONGEST)
        except BlockingIOError:
            pass

    def hang_up(self) -> None:
        """Let the library see that its client has gone, and be ready for another one."""
        if self._context.poll_fd() == self._listener_fd:
            return
        self.put(self._dead)
        try:
            self._context.run()
        except OSError:
            pass  # ENOTCONN, as it should be


def _pair() -> tuple[socket.socket, socket.socket]:
    """A listening socket, and one that has connected to it and is the only one that ever can."""
    listener = socket.socket(socket.AF_UNIX)
    near = socket.socket(socket.AF_UNIX)
    with TemporaryDirectory(prefix="hba-") as folder:
        listener.bind(f"{folder}/s")
        listener.listen(1)
        near.connect(f"{folder}/s")
    return listener, near


def _pass_on(near: socket.socket, client: socket.socket) -> int:
    """What the library has said, to the client: how many bytes."""
    try:
        answer, ancillary, _, _ = near.recvmsg(LONGEST, _FDS)
    except BlockingIOError:
        return 0
    fds = descriptors(ancillary)
    try:
        if answer:
            send_message(client, [answer], fds)
    finally:
        close_fds(fds)
    return len(answer)


def _is_socket(fd: int, *, listens: bool) -> bool:
    """Whether it is a UNIX socket, and one that listens, or else one with ourselves at the other end."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as sock:
            listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            if sock.family != socket.AF_UNIX or listening != listens:
                return False
            return listens or peer_pid(sock) == os.getpid()
    except OSError:
        return False
