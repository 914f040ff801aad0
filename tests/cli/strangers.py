"""What listens on a control socket and is no adapter, or an adapter that means harm."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GREETING = b'{"hba": "x", "protocol": 1, "adapter": "fake0", "pid": 1}\n'

# What is said to a request (None: nothing); ends with b"" when the connection is to be closed after it.
Answer = Callable[[dict[str, Any]], Iterator[bytes] | None]


def reply(request: dict[str, Any], **what: Any) -> bytes:
    return json.dumps({"id": request["id"], **what}).encode() + b"\n"


class Stranger:
    """Serves one client after the other; `greeting` and `answer` may be changed between two of them."""

    def __init__(self, path: Path) -> None:
        self.greeting = GREETING
        self.answer: Answer = lambda request: None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rb") as requests:
                try:
                    self._serve(peer, requests)
                except OSError:
                    pass  # the client has seen enough

    def _serve(self, peer: socket.socket, requests: Any) -> None:
        peer.sendall(self.greeting)
        if not self.greeting.endswith(b"\n"):
            return
        for line in requests:
            for part in self.answer(json.loads(line)) or ():
                if not part:
                    return
                peer.sendall(part)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextmanager
def stranger(path: Path) -> Iterator[Stranger]:
    found = Stranger(path)
    try:
        yield found
    finally:
        found.close()
