"""What is left to do of a request that was found to be right."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hba.vfio_user.device import Done, RequestError


class Plan:
    """`reply` and `fds` are the reply's body and descriptors. `act`, if any, carries the request out; when `reply` is
    None it returns the body (a register read), and the request cannot be acknowledged before.

    `begin` instead of `act` carries out what takes a while: nothing else of the client is looked at until its `done` is
    called.
    """

    __slots__ = ("act", "begin", "fds", "reply")

    def __init__(
        self,
        reply: bytes | None = b"",
        act: Callable[[], bytes | None] | None = None,
        fds: tuple[int, ...] = (),
        begin: Callable[[Done], None] | None = None,
    ) -> None:
        self.reply = reply
        self.act = act
        self.fds = fds
        self.begin = begin


def check_argsz(what: str, argsz: int, size: int) -> None:
    """Raises `RequestError` for a request that leaves less room for its answer than the fixed part of that needs."""
    if argsz < size:
        raise RequestError(errno.EINVAL, f"{what}: argsz {argsz}, at least {size} expected")
