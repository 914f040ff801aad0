"""A guest: one QEMU process, its monitor, its console and the agent inside."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hba.errors import GuestError
from hba.lab import kvm, machine, process
from hba.lab.accelerator import Accelerator
from hba.lab.agent import Agent
from hba.lab.monitor import Monitor
from hba.lab.qemu import Qemu

# No line on the console for this long while booting means that the guest hangs (it says something at least
# every few seconds, even on a slow host without KVM).
SILENCE = 60.0
# QEMU's own message on a failing start is on its standard error.
_ERRORS = "qemu.log"


class Guest:
    """A running QEMU. `others_alive` raises when something else the guest depends on has died.

    Under KVM everything that waits raises `KvmFailure` as soon as QEMU reports that KVM gave up on the guest: QEMU
    itself keeps running then, with a console that stays as it is. So does `wait_for_agent` when the guest has not said
    a word after `first_line` seconds.
    """

    def __init__(
        self,
        qemu: Qemu,
        command: Sequence[str],
        sockets: machine.Sockets,
        others_alive: Callable[[], None] = lambda: None,
        *,
        accelerator: Accelerator = "tcg",
        first_line: float = 60.0,
    ) -> None:
        self.sockets = sockets
        self._accelerator = accelerator
        self._first_line = first_line
        sockets.remove()  # those of a guest that was started before this one
        self._others_alive = others_alive
        self._agent: Agent | None = None
        self._monitor: Monitor | None = None
        self._errors = sockets.folder / _ERRORS
        with self._errors.open("wb") as errors:
            self.process: subprocess.Popen[bytes] = process.spawn(command, env=qemu.env, stdout=errors, stderr=errors)
        try:
            self._wait_for(sockets.monitor, 30.0)
        except BaseException:
            process.stop(self.process)
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether QEMU still runs."""
        return self.process.poll() is None

    @property
    def agent(self) -> Agent:
        """The agent; only after `wait_for_agent`."""
        assert self._agent is not None, "the agent has not answered yet"
        return self._agent

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor, connected when first asked for."""
        if self._monitor is None:
            self._monitor = Monitor(self.sockets.monitor)
        return self._monitor

    def alive(self) -> None:
        """Raise `GuestError` with the cause when the guest cannot go on."""
        self._others_alive()
        if self._accelerator == "kvm":
            cause = kvm.complaint(self._errors.read_text(errors="replace"))
            if cause is not None:
                raise kvm.KvmFailure(cause)
        if not self.running:
            code = process.describe_exit(self.process.returncode)
            said = self._errors.read_text(errors="replace").strip()
            message = f"QEMU has ended ({code})"
            if said:
                message += f": {said[-1500:]}"
            raise GuestError(message + self.last_console_lines())

    def wait_for_agent(self, timeout: float = 180.0, on_line: Callable[[str], None] = lambda line: None) -> Agent:
        """Wait until the guest has booted as far as its agent.

        Raises `GuestError` naming the cause, with the last lines of the console, when QEMU or the server dies, the
        guest panics, nothing appears on the console for `SILENCE` seconds or `timeout` seconds are over.
        """
        self._wait_for(self.sockets.agent, 30.0)
        agent = self._agent = Agent(self.sockets.agent, self.alive)
        started = last_sign = time.monotonic()
        seen = 0

        def watch_console() -> None:
            nonlocal last_sign, seen
            size = self._console_size()
            if size != seen:
                with self.sockets.console_log.open("rb") as log:
                    log.seek(seen)
                    lines = log.read().decode(errors="replace").splitlines()
                if lines and lines[-1].strip():
                    on_line(lines[-1].strip())
                seen, last_sign = size, time.monotonic()
            silent = time.monotonic() - last_sign
            if self._accelerator == "kvm" and not seen and silent > self._first_line:
                raise kvm.KvmFailure(f"nothing on its console for {self._first_line:.0f} s")
            if silent > SILENCE:
                raise GuestError(
                    f"the guest hangs: nothing on its console for {SILENCE:.0f} s" + self.last_console_lines()
                )

        try:
            agent.wait_ready(started + timeout, watch_console)
        except TimeoutError as error:
            raise GuestError(
                f"the guest's agent has not answered within {timeout:.0f} s" + self.last_console_lines()
            ) from error
        return agent

    def last_console_lines(self, count: int = 20) -> str:
        """The end of the guest's console as a paragraph for an error message; empty when it said nothing."""
        lines = self._console().splitlines()
        if not lines:
            return "\nThe guest's console shows nothing."
        return "\nThe guest's console ends:\n" + "\n".join(f"  | {line}" for line in lines[-count:])

    def wait(self, timeout: float | None = None) -> None:
        """Wait until QEMU ends by itself; `GuestError` when it does not within `timeout` or something dies."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.25)
                return
            self._others_alive()
            if deadline is not None and time.monotonic() > deadline:
                raise GuestError(f"the guest still runs after {timeout:.0f} s" + self.last_console_lines())

    def wait_for_console(self, words: Sequence[str], timeout: float) -> str:
        """The console so far, once it shows one of `words`; `GuestError` when it does not within `timeout`."""
        deadline = time.monotonic() + timeout
        while True:
            said = self._console()
            if any(word in said for word in words):
                return said
            self.alive()
            if time.monotonic() > deadline:
                firmware = self.sockets.firmware_log.read_text(errors="replace").splitlines()[-10:]
                raise GuestError(
                    f"the guest's console shows none of {', '.join(words)} within {timeout:.0f} s"
                    + self.last_console_lines()
                    + "\nThe firmware's log ends:\n"
                    + "\n".join(f"  | {line}" for line in firmware)
                )
            time.sleep(0.05)

    def shut_down(self) -> None:
        """Switch the guest off in an orderly way if it answers; then `kill`."""
        if self.running and self._agent is not None and self._agent.release:
            with contextlib.suppress(GuestError, TimeoutError, OSError):
                self._agent.poweroff()
                self.wait(20)
        self.kill()

    def kill(self) -> None:
        """End QEMU whatever state it is in, and close what belongs to it."""
        process.stop(self.process)
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def _console(self) -> str:
        try:
            return self.sockets.console_log.read_bytes().decode(errors="replace")
        except OSError:
            return ""

    def _console_size(self) -> int:
        try:
            return self.sockets.console_log.stat().st_size
        except OSError:
            return 0

    def _wait_for(self, path: Path, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not path.exists():
            self.alive()
            if time.monotonic() > deadline:
                raise GuestError(f"QEMU has not started within {timeout:.0f} s")
            time.sleep(0.02)
