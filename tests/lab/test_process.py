"""Children end with us, and with all their own children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hba.lab import process
from hba.lab.process import CommandFailed


def gone(pid: int) -> bool:
    """Wait for the end of a process that is no child of ours."""
    try:
        other = psutil.Process(pid)
        if other.status() == psutil.STATUS_ZOMBIE:
            return True
        other.wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    return True


def test_stop_ends_the_whole_group() -> None:
    child = process.spawn(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    assert process.stop(child) == -signal.SIGTERM
    child.stdout.close()
    assert gone(grandchild)


def test_stop_insists() -> None:
    child = process.spawn(
        [
            sys.executable,
            "-c",
            # A child that ends by nothing but SIGKILL; the test itself never waits for it.
            "import signal; signal.signal(15, signal.SIG_IGN); print('x', flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert process.stop(child, grace=0.1) == -signal.SIGKILL
    child.stdout.close()


def test_what_a_finished_child_left_is_ended_too() -> None:
    child = process.spawn(["sh", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    child.wait()
    process.stop(child)
    child.stdout.close()
    assert gone(grandchild)


def test_a_child_does_not_outlive_a_killed_parent() -> None:
    script = (
        "import os, signal\nfrom hba.lab import process\n"
        "print(process.spawn(['sleep', '1000']).pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    assert gone(int(parent.stdout))


def test_a_childs_session_is_its_own() -> None:
    """A Ctrl-C on the terminal must reach us only."""
    child = process.spawn(["sleep", "1000"])
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        process.stop(child)


def test_run_gives_output_and_lines() -> None:
    lines: list[str] = []
    assert process.run(["sh", "-c", "echo one; echo two >&2"], on_line=lines.append) == "one\ntwo"
    assert lines == ["one", "two"]


def test_a_failing_tool_is_quoted() -> None:
    with pytest.raises(CommandFailed, match=r"(?s)sh ended with exit code 3:.*the reason"):
        process.run(["sh", "-c", "echo the reason; exit 3"])


def test_a_tool_that_is_not_there() -> None:
    with pytest.raises(CommandFailed, match="not installed"):
        process.run(["/no/such/tool"])


def test_an_interrupted_tool_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(["sh", "-c", f"sleep 1000 & echo $! > {pid_file}; echo go; wait"], on_line=interrupt)
    assert gone(int(pid_file.read_text()))


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "signal 99")])
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert process.describe_exit(code) == words
