"""What `hba serve` prints: sentences for people, or one JSON object per line."""

from __future__ import annotations

import json
import sys
from typing import TextIO

from hba.contract import versioned
from hba.errors import EXIT_SERVER
from hba.terminal.telling import as_object, as_text
from hba.visible import visible


class Report:
    """Each call writes one line at once, so that lines of several processes do not mix."""

    def __init__(self, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._json = as_json
        self._out = out if out is not None else sys.stdout
        self._err = err if err is not None else sys.stderr

    def listening(self, adapter: str, socket: str, control: str, pid: int) -> None:
        """The adapter is ready for its client. `socket` is empty for a descriptor without a name."""
        if self._json:
            path = socket or None
            self._line({"event": "listening", "adapter": adapter, "socket": path, "control": control, "pid": pid})
        elif not socket:
            self._text(self._out, f"{adapter}: serves the socket it was given, which has no name (pid {pid})")
        else:
            device = json.dumps({"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket}})
            self._text(self._out, f"{adapter}: listening on {socket} (pid {pid})\n  QEMU: -device '{device}'")

    def stopped(self, adapter: str) -> None:
        """It ended as it was told to."""
        if self._json:
            self._line({"event": "stopped", "adapter": adapter})
        else:
            self._text(self._out, f"{adapter}: stopped")

    def restarting(self, adapter: str, message: str, number: int, most: int, window: float) -> None:
        """It died and is started again; whoever was connected has to connect anew."""
        if self._json:
            self._line({"event": "restarting", "adapter": adapter, "message": message, "number": number, "most": most})
        again = f"it is started again ({number} of {most} times in {window:.0f} s)"
        lost = "its client has to connect anew; memory units are empty, and units added at run time are gone"
        self._error(adapter, f"{visible(message)}; {again}; {lost}", EXIT_SERVER)

    def spinning(self, adapter: str, pid: int) -> None:
        """It uses the processor and answers nothing; it gets idle time alone now."""
        message = (
            f"it uses the processor and does not answer: a loop without end, in its miniport or a defect of hba "
            f"(process {pid}). It gets the lowest priority until it answers, so that the others keep their rate"
        )
        if self._json:
            self._line({"event": "spinning", "adapter": adapter, "message": message, "pid": pid})
        self._error(adapter, f"{message}; kill -KILL {pid} has it started again", EXIT_SERVER)

    def answers(self, adapter: str, restored: bool) -> None:
        """One that was spinning answers; `restored`: with the priority that it had."""
        if self._json:
            self._line({"event": "answers", "adapter": adapter, "restored": restored})
            return
        low = "but keeps the lowest priority: raising it is not permitted (RLIMIT_NICE; a unit: LimitNICE=+0)"
        has = "with the priority that it had" if restored else low
        self._text(self._err, f"{adapter}: answers again, {has}")

    def gave_up(self, adapter: str, message: str, deaths: int, window: float) -> None:
        """It died again and stays dead."""
        if self._json:
            self._line({"event": "gave-up", "adapter": adapter, "message": message, "deaths": deaths})
        self._error(adapter, f"it died {deaths} times in {window:.0f} s and stays dead", EXIT_SERVER)

    def failed(self, adapter: str, message: str, code: int) -> None:
        """It ended by itself; `code` is the exit code that says why (README, "Exit codes")."""
        if self._json:
            self._line({"event": "failed", "adapter": adapter, "message": message, "exit_code": code})
        self._error(adapter, message, code)

    def _error(self, adapter: str, message: str, code: int) -> None:
        subject = f"adapter {adapter}: "
        self._text(self._err, as_object(subject + message, code) if self._json else as_text(message, subject))

    def _line(self, message: dict[str, object]) -> None:
        self._text(self._out, json.dumps(versioned(message)))

    def _text(self, stream: TextIO, line: str) -> None:
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads any more; the adapter goes on
