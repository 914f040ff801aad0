"""The host's end of the lab's agent in the guest (`qemu/guest/agent.py` has the protocol)."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hba.errors import GuestError
from hba.lab.connect import connect

PORT_NAME = "hba.lab.agent"


@dataclass(frozen=True)
class Result:
    """A command that ran in the guest to its end."""

    code: int
    stdout: bytes
    stderr: bytes


class Agent:
    """Commands and files of the guest, over the UNIX socket QEMU offers for the agent's port.

    `alive` is called while waiting; it raises when there is nothing left to wait for (a dead QEMU, say).
    """

    def __init__(self, path: Path, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._socket = connect(path, alive)
        self._received = bytearray()
        self._next_id = 1
        self.release = ""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def wait_ready(self, deadline: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait for the agent's greeting until `deadline` (monotonic seconds); `TimeoutError` after it."""
        message = self._line(deadline, on_wait)
        if message.get("event") != "ready":
            raise GuestError(f"the agent in the guest greets with {message!r}")
        self.release = str(message["release"])

    def ping(self, timeout: float = 10.0) -> None:
        """Return when the agent has answered."""
        self._call({"op": "ping"}, timeout=timeout)

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        timeout: float = 60.0,
        on_output: Callable[[bytes], None] | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command in the guest to its end.

        `on_output` sees both streams as they come. With `check`, an exit code other than 0 raises `GuestError`.
        """
        streams = {"stdout": bytearray(), "stderr": bytearray()}

        def collect(name: str, data: bytes) -> None:
            streams[name] += data
            if on_output is not None:
                on_output(data)

        request = {"op": "exec", "argv": list(argv), "env": dict(env or {}), "cwd": cwd}
        number = self._next_id
        try:
            answer, _ = self._call(request, stdin, timeout, collect)
        except TimeoutError as error:
            self._send({"id": self._take_id(), "op": "kill", "target": number}, b"")
            tail = bytes(streams["stdout"] + streams["stderr"]).decode(errors="replace")[-1000:]
            raise GuestError(f"`{' '.join(argv)}` in the guest took longer than {timeout:.0f} s\n{tail}") from error
        result = Result(int(answer["code"]), bytes(streams["stdout"]), bytes(streams["stderr"]))
        if check and result.code != 0:
            output = (result.stdout + result.stderr).decode(errors="replace")[-2000:]
            raise GuestError(f"`{' '.join(argv)}` in the guest ended with exit code {result.code}\n{output}")
        return result

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file in the guest, with the folders above it."""
        self._call({"op": "put", "path": path, "mode": mode}, content)

    def get(self, path: str) -> bytes:
        """Read a file of the guest; `GuestError` when it cannot be read."""
        return self._call({"op": "get", "path": path})[1]

    def poweroff(self) -> None:
        """Have the guest write out its caches and switch itself off."""
        self._call({"op": "poweroff"}, timeout=30)

    def _take_id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    def _call(
        self,
        request: dict[str, Any],
        payload: bytes = b"",
        timeout: float = 60.0,
        on_stream: Callable[[str, bytes], None] = lambda name, data: None,
    ) -> tuple[dict[str, Any], bytes]:
        number = self._take_id()
        deadline = time.monotonic() + timeout
        self._send({"id": number, **request}, payload)
        while True:
            message = self._line(deadline)
            content = self._payload(int(message.get("size", 0)), deadline)
            if message.get("id") != number:  # a late answer to a request given up
                continue
            if "stream" in message:
                on_stream(message["stream"], content)
            elif "error" in message:
                raise GuestError(f"the guest cannot {request['op']} {request.get('path', '')}: {message['error']}")
            else:
                return message, content

    def _send(self, message: dict[str, Any], payload: bytes) -> None:
        data = memoryview(json.dumps({**message, "size": len(payload)}).encode() + b"\n" + payload)
        while data:
            if select.select([], [self._socket], [], 0.5)[1]:
                try:
                    data = data[self._socket.send(data[:65536]) :]
                except OSError as error:
                    raise self._gone() from error
            else:
                self._alive()

    def _line(self, deadline: float, on_wait: Callable[[], None] = lambda: None) -> dict[str, Any]:
        while (end := self._received.find(b"\n")) < 0:
            self._more(deadline, on_wait)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise GuestError(f"the agent in the guest sends garbage: {line[:200]!r}") from error
        if not isinstance(message, dict):
            raise GuestError(f"the agent in the guest sends garbage: {line[:200]!r}")
        return message

    def _payload(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            self._more(deadline, lambda: None)
        payload = bytes(self._received[:size])
        del self._received[:size]
        return payload

    def _more(self, deadline: float, on_wait: Callable[[], None]) -> None:
        while not select.select([self._socket], [], [], 0.25)[0]:
            self._alive()
            on_wait()
            if time.monotonic() > deadline:
                raise TimeoutError
        try:
            data = self._socket.recv(1 << 20)
        except OSError as error:
            raise self._gone() from error
        if not data:
            raise self._gone()
        self._received += data

    def _gone(self) -> GuestError:
        """QEMU closed the line: say why if that is known."""
        time.sleep(0.2)  # its exit is a moment behind its socket's end
        self._alive()
        return GuestError("QEMU closed the agent's line")
