"""QEMU's monitor (QMP), for code that is not asynchronous."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from hba.errors import GuestError

# What QEMU says, and what to do about it.
_ADVICE = {
    "does not support hotplugging": "; machine pc can plug devices while the guest runs, of q35 only what is behind a "
    "pcie-root-port can be plugged"
}


def _advice(said: str) -> str:
    return next((advice for words, advice in _ADVICE.items() if words in said), "")


class Monitor:
    """A connection to one QEMU's monitor socket."""

    def __init__(self, path: Path) -> None:
        self._runner = asyncio.Runner()
        self._client = QMPClient("lab")
        self._events = EventListener()
        self._client.register_listener(self._events)
        try:
            self._runner.run(asyncio.wait_for(self._client.connect(str(path)), 10))
        except (QMPError, TimeoutError, OSError) as error:
            self._runner.close()
            raise GuestError(f"QEMU's monitor does not answer: {error}") from error

    def execute(self, command: str, arguments: dict[str, Any] | None = None, timeout: float = 30.0) -> Any:
        """Run a QMP command and return its answer; `GuestError` when QEMU refuses it or is gone."""
        try:
            return self._runner.run(asyncio.wait_for(self._client.execute(command, arguments), timeout))
        except ExecuteError as error:
            raise GuestError(f"QEMU refuses {command}: {error}{_advice(str(error))}") from error
        except (QMPError, TimeoutError, OSError) as error:
            raise GuestError(f"QEMU's monitor does not answer {command}: {type(error).__name__} {error}") from error

    def events(self) -> list[dict[str, Any]]:
        """The events that came since the last call, in QMP's own shape."""
        self._runner.run(asyncio.sleep(0))
        return [dict(message) for message in self._events.clear()]

    def close(self) -> None:
        """Disconnect; QEMU may be gone already."""
        try:
            self._runner.run(asyncio.wait_for(self._client.disconnect(), 5))
        except (QMPError, TimeoutError, OSError, EOFError):
            pass
        self._runner.close()
