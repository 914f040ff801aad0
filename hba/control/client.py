"""The other end of the control socket: blocking, for the command line, the lab and tests.

Whoever listens there is not trusted: what comes is bounded in size, depth and time, and anything that is no line of the
protocol is a `ControlError`. What a result holds is the caller's to check.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from hba.control.protocol import MAX_BACKLOG, PROTOCOL, encode
from hba.errors import ControlError
from hba.peer import is_stopped, peer_pid

MAX_DEPTH = 64  # of lists and objects in each other; what adapters say has a fraction of it
_TIMEVAL = struct.Struct("@ll")
_EVENT_COST = 256  # bytes that an event takes at least while it is kept, however short its line was


class CallRefused(ControlError):
    """The adapter answered, and the answer is no. `code` as in `hba.control.protocol`."""

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(f"{message.rstrip('.')}; {next_step}" if next_step else message)
        self.code = code
        self.message = message
        self.next_step = next_step


class _Greeting(msgspec.Struct):
    adapter: str
    pid: int


class ControlClient:
    """A connection to one adapter.

    `timeout` (seconds) bounds connecting with the greeting, and every reply; None waits for ever. Raises `ControlError`
    when nobody listens at `path`, when the adapter does not answer in time, when it is gone, and when what it sends is
    none of the protocol. `adapter` is its name, `pid` its process, both as it says.
    """

    def __init__(self, path: str | Path, timeout: float | None = 10.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that are known to have no end of line
        self._events: deque[tuple[int, dict[str, Any]]] = deque()  # what each costs to keep, and itself
        self._kept = 0  # what all of them cost
        self._last_id = 0
        self._unanswered: set[int] = set()  # calls that were given up; their replies may come yet
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._connect()
            greeting = self._line(self._deadline(timeout))
        except (ConnectionRefusedError, FileNotFoundError) as error:
            self._socket.close()
            why = "it has ended" if isinstance(error, ConnectionRefusedError) else error.strerror
            raise NobodyThere(f"no adapter answers at {path} ({why})") from error
        except NoAnswer:
            self._socket.close()
            raise
        except (OSError, ControlError) as error:
            self._socket.close()
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ControlError(f"no adapter answers at {path} ({why})") from error
        try:
            self.adapter, self.pid = self._greeted(greeting)
        except ControlError:
            self._socket.close()
            raise

    def _connect(self) -> None:
        """Where others stand in line, wait among them: a socket with a time-out of Python's would be sent away at once
        (connect(2), EAGAIN)."""
        if self._timeout is not None:
            whole = int(self._timeout)
            limit = _TIMEVAL.pack(whole, max(1, int((self._timeout - whole) * 1_000_000)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self._socket.connect(str(self.path))
        except BlockingIOError as error:
            raise NoAnswer(
                f"the adapter at {self.path} takes no connection, and others wait for one as well: it is stopped, "
                "or in a call that does not end; `hba ls` names its process"
            ) from error
        self._socket.settimeout(self._timeout)

    def _greeted(self, greeting: dict[str, Any]) -> tuple[str, int]:
        """The adapter's name and process."""
        if "error" in greeting:
            raise _refusal(greeting["error"])
        if greeting.get("protocol") != PROTOCOL:
            raise ControlError(
                f"the adapter at {self.path} speaks control protocol {str(greeting.get('protocol'))[:40]}, "
                f"this hba speaks {PROTOCOL}; use the hba that started it"
            )
        try:
            known = msgspec.convert(greeting, _Greeting)
        except msgspec.ValidationError as error:
            raise self._stranger(f"its greeting: {error}") from error
        return known.adapter, known.pid

    def call(self, method: str, **params: Any) -> Any:
        """The result of `method`. Raises `CallRefused` for an error reply. Events that come meanwhile are kept."""
        self._last_id += 1
        number = self._last_id
        deadline = self._deadline(self._timeout)
        self._unanswered.add(number)
        self._socket.settimeout(self._timeout)
        try:
            self._socket.sendall(encode({"id": number, "method": method, "params": params}))
        except TimeoutError as error:
            raise NoAnswer(self._silence()) from error
        except OSError as error:
            raise Gone(f"the adapter at {self.path} is gone ({error.strerror})") from error
        while True:
            message = self._line(deadline)
            if "event" in message:
                self._keep(message)
            elif self._answered(message) == number:
                if "error" in message:
                    raise _refusal(message["error"])
                if "result" not in message:
                    raise self._stranger("a reply without a result")
                return message["result"]

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Events of the subscribed topics, as `{"event": topic, "data": ...}`, for ever.

        With a `timeout` (seconds) it ends when nothing comes for that long. Raises `ControlError` when the adapter
        goes.
        """
        while True:
            while self._events:
                cost, event = self._events.popleft()
                self._kept -= cost
                yield event
            try:
                message = self._line(self._deadline(timeout))
            except TimeoutError:
                return
            if "event" in message:
                yield message
            else:
                self._answered(message)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answered(self, message: dict[str, Any]) -> int:
        """Which call of ours a reply answers."""
        number = message.get("id")
        if number is None and "error" in message:  # it could not tell what we asked
            raise _refusal(message["error"])
        if type(number) is not int or number not in self._unanswered:
            raise self._stranger(f"a reply to {str(number)[:40]!r}, which was not asked")
        self._unanswered.remove(number)
        return number

    def _keep(self, event: dict[str, Any]) -> None:
        """Events wait until somebody wants them, as many as the adapter itself would let wait for us."""
        cost = _EVENT_COST + len(encode(event))
        self._kept += cost
        self._events.append((cost, event))
        if self._kept > MAX_BACKLOG:
            raise ControlError(f"the adapter at {self.path} sends events and does not answer")

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else time.monotonic() + timeout

    def _line(self, deadline: float | None = None) -> dict[str, Any]:
        """The next line; waits until `deadline` (monotonic seconds), for ever without one."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_BACKLOG:
                raise self._stranger("a line without end")
            self._buffer += self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        try:
            message = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._stranger(str(error)) from error
        if not isinstance(message, dict):
            raise self._stranger("a line that is no object")
        if _depth_exceeds(message, MAX_DEPTH):
            raise self._stranger(f"a line nested more than {MAX_DEPTH} deep")
        return message

    def _receive(self, deadline: float | None) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise NoAnswer(self._silence())
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError as error:
            raise NoAnswer(self._silence()) from error
        except OSError as error:
            raise Gone(f"the adapter at {self.path} is gone ({error.strerror})") from error
        if not data:
            raise Gone(f"the adapter at {self.path} has closed the connection")
        return data

    def _silence(self) -> str:
        pid = peer_pid(self._socket)
        if is_stopped(pid):
            return (
                f"the adapter at {self.path} does not answer: process {pid} is stopped; kill -CONT {pid} continues it"
            )
        return f"the adapter at {self.path} does not answer (process {pid})"

    def _stranger(self, what: str) -> ControlError:
        return ControlError(f"what answers at {self.path} is no hba adapter, or not of this version ({what})")


class NobodyThere(ControlError):
    """There is no socket, or one that a process left when it ended."""


class Gone(ControlError):
    """It was there, and has ended or hung up."""


class NoAnswer(ControlError, TimeoutError):
    """Connected, but nothing came in time."""


def _refusal(error: Any) -> CallRefused:
    if not isinstance(error, dict):
        return CallRefused("", str(error))
    return CallRefused(str(error.get("code", "")), str(error.get("message", "")), str(error.get("next_step", "") or ""))


def _depth_exceeds(value: Any, most: int) -> bool:
    """Whether lists and objects lie more than `most` deep in each other; who prints them goes down recursively."""
    level = [value]
    for _ in range(most):
        parts = [item.values() if isinstance(item, dict) else item for item in level]
        level = [part for some in parts for part in some if isinstance(part, dict | list)]
        if not level:
            return False
    return True
