"""One adapter in this process, with a fake adapter: start, end, and every way to fail."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.config.model import AdapterConfig, adapter_config
from hba.contract import SCHEMA_VERSION
from hba.control.client import ControlClient
from hba.control.parts import Parts
from hba.errors import SocketError, StorageError
from hba.loop import EventLoop
from hba.runtime import control_path
from hba.server.process import serve
from hba.server.report import Report
from tests.control.fakes import make_parts


class FakeAdapter:
    def __init__(self, parts: Parts, log: list[str], on_start: Callable[[], None]) -> None:
        self.parts = parts
        self.log = log
        self.on_start = on_start

    def start(self) -> None:
        self.log.append("start")
        self.on_start()

    def close(self) -> None:
        self.log.append("close")


class Bench:
    """Runs `serve` with a fake, and keeps what it printed."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.log: list[str] = []
        self.on_start: Callable[[EventLoop], None] = lambda loop: None
        self.on_assemble: Callable[[], None] = lambda: None

    def run(self, as_json: bool = True) -> int:
        def assemble(config: AdapterConfig, directory: Path, loop: EventLoop) -> FakeAdapter:
            self.on_assemble()
            parts = make_parts(loop, config.name)
            return FakeAdapter(parts, self.log, lambda: self.on_start(loop))

        config = adapter_config()(type="pvscsi", name="fake0", socket="/run/x.sock")
        return serve(config, Path(), Report(as_json, self.out, self.err), assemble)

    @property
    def lines(self) -> list[dict[str, object]]:
        """What was reported, without the version of the lines."""
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        assert [line.pop("schema_version") for line in lines] == [SCHEMA_VERSION] * len(lines)
        return lines


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(tmp_path / "run"))
    comm = Path("/proc/self/comm").read_text()
    yield Bench()
    Path("/proc/self/comm").write_text(comm)


def kill_soon(number: int) -> Callable[[EventLoop], None]:
    return lambda loop: loop.call_soon(lambda: os.kill(os.getpid(), number))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(bench: Bench, number: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    bench.on_start = kill_soon(number)
    assert bench.run() == 0
    control = str(control_path("fake0"))
    assert bench.lines == [
        {"event": "listening", "adapter": "fake0", "socket": "/run/x.sock", "control": control, "pid": os.getpid()},
        {"event": "stopped", "adapter": "fake0"},
    ]
    assert bench.log == ["start", "close"]
    assert not Path(control).exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_before_the_loop_turns_is_not_lost(bench: Bench) -> None:
    bench.on_start = lambda loop: os.kill(os.getpid(), signal.SIGTERM)
    assert bench.run() == 0


def test_the_control_socket_ends_it_well(bench: Bench) -> None:
    def ask() -> None:
        with ControlClient(control_path("fake0")) as client:
            client.call("server.stop")

    thread = threading.Thread(target=ask)
    bench.on_start = lambda loop: thread.start()
    assert bench.run() == 0
    thread.join()


def test_people_get_sentences(bench: Bench) -> None:
    bench.on_start = kill_soon(signal.SIGTERM)
    assert bench.run(as_json=False) == 0
    assert bench.out.getvalue().splitlines() == [
        f"fake0: listening on /run/x.sock (pid {os.getpid()})",
        """  QEMU: -device '{"driver": "vfio-user-pci", "socket": {"type": "unix", "path": "/run/x.sock"}}'""",
        "fake0: stopped",
    ]


def fail(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_what_cannot_be_assembled_says_why(bench: Bench) -> None:
    bench.on_assemble = fail(StorageError("disk.img is gone; put it back"))
    assert bench.run() == 5
    assert bench.lines == [
        {"event": "failed", "adapter": "fake0", "message": "disk.img is gone; put it back", "exit_code": 5}
    ]
    message = "adapter fake0: disk.img is gone; put it back"
    assert json.loads(bench.err.getvalue())["error"] == {"code": 5, "kind": "storage", "message": message}
    assert bench.log == []


def test_people_are_told_in_a_line(bench: Bench) -> None:
    bench.on_assemble = fail(StorageError("disk.img is gone; put it back"))
    assert bench.run(as_json=False) == 5
    assert bench.err.getvalue() == "error: adapter fake0: disk.img is gone; put it back\n"


def test_what_cannot_start_is_closed(bench: Bench) -> None:
    error = fail(SocketError("taken"))
    bench.on_start = lambda loop: error()
    assert bench.run() == 4
    assert bench.log == ["start", "close"]
    assert not control_path("fake0").exists()


def test_a_defect_is_reported_and_still_closes(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        raise KeyError("a defect")

    bench.on_start = lambda loop: loop.call_soon(crash)
    assert bench.run() == 70
    assert bench.log == ["start", "close"]
    assert "internal error: KeyError" in bench.err.getvalue()
    assert "Traceback" in capfd.readouterr().err


def test_an_adapter_that_runs_already_is_left_alone(bench: Bench) -> None:
    other = Bench()

    def start_other(loop: EventLoop) -> None:
        assert other.run() == 4
        loop.call_soon(lambda: os.kill(os.getpid(), signal.SIGTERM))

    bench.on_start = start_other
    assert bench.run() == 0
    assert other.log == ["close"]


def test_a_runtime_folder_open_to_others_is_refused(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o755)
    assert bench.run() == 6
    assert "chmod 700" in bench.err.getvalue()


def test_nobody_reads_the_report(bench: Bench) -> None:
    read, write = os.pipe()
    os.close(read)
    bench.out = os.fdopen(write, "w")  # type: ignore[assignment]
    bench.on_start = kill_soon(signal.SIGTERM)
    assert bench.run() == 0
    with pytest.raises(BrokenPipeError):
        bench.out.close()
