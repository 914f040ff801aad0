"""Child processes that cannot outlive us.

Every child runs in its own session, so that a Ctrl-C on the terminal reaches only us and we decide the order
in which things end; and with a parent-death signal, so that even `kill -9` on us leaves nothing running.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hba.errors import HbaError

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


class CommandFailed(HbaError):
    """A tool we ran ended with an error; the message has its last lines."""


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    cwd: Path | None = None,
    death_signal: int = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own; the kernel sends it `death_signal` when this thread ends.

    `env` is added to our own environment. Must be called from the main thread: the parent-death signal is
    bound to the thread that forked (prctl(2)).
    """
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return subprocess.Popen(
        [str(word) for word in argv],
        env=None if env is None else {**os.environ, **env},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=in_child,
    )


def stop(child: subprocess.Popen[bytes], grace: float = 5.0) -> int:
    """End the child and its whole process group: SIGTERM, then SIGKILL after `grace` seconds."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            pass
    # The leader may have left children of its own behind, whether it ended by itself or not.
    _signal_group(child.pid, signal.SIGKILL)
    return child.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    input_file: Path | None = None,
) -> str:
    """Run a tool to its end and return its output (standard output and error together).

    `on_line` sees every line as it comes. Raises `CommandFailed` with the last lines when the tool fails, and
    stops the tool with all its children when we are interrupted.
    """
    with contextlib.ExitStack() as stack:
        stdin: int | IO[Any] = subprocess.DEVNULL
        if input_file is not None:
            stdin = stack.enter_context(input_file.open("rb"))
        try:
            child = spawn(
                argv,
                env={"LC_ALL": "C.UTF-8", **(env or {})},  # what it says, we may have to understand
                cwd=cwd,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                death_signal=signal.SIGTERM,
            )
        except FileNotFoundError as error:
            raise CommandFailed(f"{argv[0]}: not installed ({error.strerror})") from error
        lines: deque[str] = deque(maxlen=10_000)
        try:
            assert child.stdout is not None
            for raw in child.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                lines.append(line)
                if on_line is not None:
                    on_line(line)
            code = child.wait()
        except BaseException:
            stop(child, grace=15)
            raise
        finally:
            if child.stdout is not None:
                child.stdout.close()
    if code != 0:
        tail = "\n  ".join([line for line in lines if line.strip()][-15:])
        raise CommandFailed(f"{Path(str(argv[0])).name} ended with {describe_exit(code)}:\n  {tail}")
    return "\n".join(lines)


def describe_exit(code: int) -> str:
    """Say what a return code of subprocess means: `exit code 3`, `signal SIGKILL`."""
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
