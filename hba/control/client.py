"""The other end of the control socket: blocking, for the command line, the lab and tests."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from hba.control.protocol import MAX_BACKLOG, PROTOCOL, encode
from hba.errors import ControlError


class CallRefused(ControlError):
    """The adapter answered, and the answer is no. `code` as in `hba.control.protocol`."""

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(f"{message}. {next_step}" if next_step else message)
        self.code = code
        self.message = message
        self.next_step = next_step


class ControlClient:
    """A connection to one adapter.

    `timeout` (seconds) bounds connecting and every reply; None waits for ever. Raises `ControlError` when nobody
    listens at `path`, when the adapter does not answer in time, or when it is gone.
    """

    def __init__(self, path: str | Path, timeout: float | None = 10.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._buffer = bytearray()
        self._events: deque[dict[str, Any]] = deque()
        self._last_id = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self.greeting = self._line()
        except (OSError, ControlError) as error:
            self._socket.close()
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ControlError(f"no adapter answers at {path} ({why}); `hba ls` shows the running ones") from error
        if "error" in self.greeting:
            self._socket.close()
            raise _refusal(self.greeting["error"])
        if self.greeting.get("protocol") != PROTOCOL:
            self._socket.close()
            raise ControlError(
                f"the adapter at {path} speaks control protocol {self.greeting.get('protocol')}, "
                f"this hba speaks {PROTOCOL}; use the hba that started it"
            )

    @property
    def adapter(self) -> str:
        """The name of the adapter."""
        return str(self.greeting["adapter"])

    @property
    def pid(self) -> int:
        return int(self.greeting["pid"])

    def call(self, method: str, **params: Any) -> Any:
        """The result of `method`. Raises `CallRefused` for an error reply. Events that come meanwhile are kept."""
        self._last_id += 1
        try:
            self._socket.sendall(encode({"id": self._last_id, "method": method, "params": params}))
        except OSError as error:
            raise ControlError(f"the adapter at {self.path} is gone ({error.strerror})") from error
        while True:
            message = self._line()
            if "event" in message:
                self._events.append(message)
            elif message.get("id") == self._last_id:
                if "error" in message:
                    raise _refusal(message["error"])
                return message.get("result")
            elif message.get("id") is None and "error" in message:
                raise _refusal(message["error"])

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Events of the subscribed topics, as `{"event": topic, "data": ...}`, for ever.

        With a `timeout` (seconds) it ends when nothing comes for that long. Raises `ControlError` when the adapter
        goes.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            self._socket.settimeout(timeout)
            try:
                message = self._line()
            except TimeoutError:
                return
            finally:
                self._socket.settimeout(self._timeout)
            if "event" in message:
                yield message

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_BACKLOG:
                raise ControlError(f"what answers at {self.path} is no hba adapter")
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError as error:
                raise NoAnswer(f"the adapter at {self.path} does not answer") from error
            except OSError as error:
                raise ControlError(f"the adapter at {self.path} is gone ({error.strerror})") from error
            if not data:
                raise ControlError(f"the adapter at {self.path} has closed the connection")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise ControlError(f"what answers at {self.path} is no hba adapter ({error})") from error
        if not isinstance(message, dict):
            raise ControlError(f"what answers at {self.path} is no hba adapter")
        return message


class NoAnswer(ControlError, TimeoutError):
    """Connected, but nothing came in time."""


def _refusal(error: Any) -> CallRefused:
    if not isinstance(error, dict):
        return CallRefused("", str(error))
    return CallRefused(str(error.get("code", "")), str(error.get("message", "")), str(error.get("next_step", "") or ""))
