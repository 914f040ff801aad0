"""The installed program as a user runs it: real processes, real adapters, real exit codes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hba.cli.results import OUTPUTS
from hba.peer import is_stopped
from tests.contract.checker import Checker

HBA = (sys.executable, "-m", "hba")
PATIENCE = 60  # seconds; only a defect takes that long

MEMORY = '[[adapter.lun]]\nstorage = { kind = "memory", size = "1M" }\n'
ADAPTER = '[[adapter]]\ntype = "pvscsi"\n'


class Place:
    """A folder with configurations, and a runtime folder; runs `hba` there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.env = {**os.environ, "HBA_RUNTIME_DIR": str(self.runtime)}
        self._servers: list[subprocess.Popen[str]] = []

    def config(self, text: str, name: str = "hba.toml") -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HBA, *words], env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def json(self, *words: str) -> Any:
        answer = self.run(*words, "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def serve(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [*HBA, "serve", *words, "--json"],
            env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip
        self._servers.append(server)
        return server

    def start(self, *words: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [*HBA, *words], env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._servers.append(program)
        return program

    def close(self) -> None:
        for server in self._servers:
            if server.poll() is None:
                server.kill()
            server.communicate()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def event(server: subprocess.Popen[str]) -> dict[str, Any]:
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line, server.stderr.read() if server.stderr else ""
    Checker().output(json.loads(line), OUTPUTS["hba serve"].kind)
    value: dict[str, Any] = json.loads(line)
    return value


def end(server: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    server.send_signal(number)
    return server.wait(PATIENCE)


@pytest.mark.parametrize("port", ["scsiport", "storport"])
def test_serve_show_and_stop(place: Place, port: str) -> None:
    server = place.serve(place.config(ADAPTER + f'port = "{port}"\n' + MEMORY))
    listening = event(server)
    assert listening == {
        "schema_version": 1,
        "event": "listening",
        "adapter": "pvscsi0",
        "socket": str(place.runtime / "pvscsi0.sock"),
        "control": str(place.runtime / "pvscsi0.ctl"),
        "pid": listening["pid"],
    }
    assert listening["pid"] != server.pid  # a process of its own, which can be started again
    (row,) = place.json("ls")["adapters"]
    assert (row["name"], row["port"], row["luns"], row["connected"]) == ("pvscsi0", port, 1, False)
    shown = place.json("show")
    assert shown["queues"]["port"]["model"] == port
    assert shown["luns"][0]["storage"]["size"] == 1 << 20
    assert "INTR_STATUS" in place.run("show", "regs").stdout
    assert end(server) == 0
    assert list(place.runtime.iterdir()) == []


def test_what_was_added_can_be_seen_and_goes_again(place: Place) -> None:
    server = place.serve(place.config(ADAPTER))
    event(server)
    image = place.folder / "new.img"
    assert place.json("lun", "add", "3", "--file", "new.img", "--size", "2M")["storage"]["path"] == str(image)
    assert image.stat().st_size == 2 << 20
    assert place.run("lun", "remove", "3").returncode == 0
    assert place.json("lun", "ls")["units"] == []
    assert end(server) == 0


def test_several_adapters_one_of_which_fails(place: Place) -> None:
    text = ADAPTER + MEMORY + ADAPTER + '[[adapter.lun]]\nstorage = { kind = "file", path = "none.img" }\n' + ADAPTER
    server = place.serve(place.config(text))
    events = sorted((event(server) for _ in range(3)), key=lambda item: item["adapter"])
    assert [item["event"] for item in events] == ["listening", "failed", "listening"]
    assert events[1]["exit_code"] == 5
    assert "none.img" in events[1]["message"]
    pids = {item["pid"] for item in events if "pid" in item}
    assert len(pids) == 2
    assert server.pid not in pids
    assert [row["name"] for row in place.json("ls")["adapters"]] == ["pvscsi0", "pvscsi2"]
    assert place.run("show").returncode == 9
    assert end(server, signal.SIGINT) == 5
    assert list(place.runtime.iterdir()) == []


def test_an_adapter_that_is_killed_leaves_the_others_up(place: Place) -> None:
    server = place.serve(place.config(ADAPTER + ADAPTER))
    pids = {item["adapter"]: item["pid"] for item in (event(server), event(server))}
    os.kill(pids["pvscsi0"], signal.SIGKILL)
    restarting = event(server)
    assert (restarting["event"], restarting["adapter"], restarting["number"]) == ("restarting", "pvscsi0", 1)
    assert "ended by SIGKILL: somebody killed it" in restarting["message"]
    again = event(server)
    assert (again["event"], again["adapter"]) == ("listening", "pvscsi0")
    assert again["pid"] not in pids.values()
    assert place.json("show", "pvscsi0")["summary"]["pid"] == again["pid"]
    assert place.json("show", "pvscsi1")["summary"]["pid"] == pids["pvscsi1"]
    assert end(server) == 0
    assert list(place.runtime.iterdir()) == []


def test_an_adapter_that_dies_again_and_again_stays_dead_and_leaves_no_sockets(place: Place) -> None:
    server = place.serve(place.config(ADAPTER))
    for number in range(1, 6):
        os.kill(event(server)["pid"], signal.SIGKILL)
        assert event(server)["number"] == number
    os.kill(event(server)["pid"], signal.SIGKILL)
    assert event(server)["event"] == "gave-up"
    assert event(server)["event"] == "failed"
    assert server.wait(PATIENCE) == 137
    assert list(place.runtime.iterdir()) == []
    assert server.stderr is not None
    assert "it died 6 times in 60 s and stays dead" in server.stderr.read()


def test_only_one_of_the_configured_adapters(place: Place) -> None:
    config = place.config(ADAPTER + ADAPTER)
    server = place.serve(config, "--adapter", "pvscsi1", "--socket-path", "other.sock")
    listening = event(server)
    assert (listening["adapter"], listening["socket"]) == ("pvscsi1", str(place.folder / "other.sock"))
    assert end(server) == 0
    assert place.run("serve", config, "--adapter", "nobody").returncode == 3
    assert place.run("serve", config, "--socket-path", "x").returncode == 2


def test_a_socket_handed_over(place: Place) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place.folder / "given.sock"))
    listener.listen()
    server = place.serve(place.config(ADAPTER), "--fd", str(listener.fileno()), pass_fds=[listener.fileno()])
    assert event(server)["socket"] == str(place.folder / "given.sock")
    listener.close()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(place.folder / "given.sock"))
    client.close()
    assert end(server) == 0
    assert place.run("serve", place.config(ADAPTER), "--fd", "99").returncode == 4


def test_a_connection_handed_over_has_no_name(place: Place) -> None:
    ours, theirs = socket.socketpair()
    server = place.serve(place.config(ADAPTER), "--fd", str(theirs.fileno()), pass_fds=[theirs.fileno()])
    assert event(server)["socket"] is None
    theirs.close()
    (adapter,) = place.json("ls")["adapters"]
    assert adapter["socket"] is None
    ours.close()
    end(server)


def test_events_end_with_the_server(place: Place) -> None:
    server = place.serve(place.config(ADAPTER))
    event(server)
    followed = place.start("events", "--json")
    assert followed.stdout is not None
    units = iter(range(1, 60))
    while not select.select([followed.stdout], [], [], 0)[0]:  # it may not have subscribed yet
        assert place.run("lun", "add", str(next(units)), "--memory", "--size", "1M").returncode == 0
    assert json.loads(followed.stdout.readline())["event"] == "hotplug"
    assert end(server) == 0
    assert followed.wait(PATIENCE) == 0
    assert followed.stderr is not None and "has ended" in followed.stderr.read()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("nonsense", 3, "not valid TOML"),
        (ADAPTER + "prot = 1\n", 3, 'did you mean "port"?'),
        (ADAPTER + 'miniport = "no.such:Thing"\n', 3, "no.such"),
        (ADAPTER + f'socket = "{"x" * 200}"\n', 4, "bytes"),
        (ADAPTER + 'socket = "/none/such/x.sock"\n', 4, "/none/such"),
        (ADAPTER + '[[adapter.lun]]\nstorage = { kind = "file", path = "none.img" }\n', 5, "none.img"),
    ],
)
def test_what_cannot_be_served_says_why(place: Place, text: str, code: int, message: str) -> None:
    answer = place.run("serve", place.config(text))
    assert answer.returncode == code
    assert message in answer.stderr
    assert all(line.startswith("error: ") for line in answer.stderr.splitlines())
    assert not list(place.runtime.glob("*"))


def test_a_socket_that_is_taken(place: Place) -> None:
    first = place.serve(place.config(ADAPTER + 'name = "a"\nsocket = "s"\n'))
    event(first)
    answer = place.run("serve", place.config(ADAPTER + 'name = "b"\nsocket = "s"\n', "b.toml"))
    assert answer.returncode == 4
    assert "taken" in answer.stderr
    answer = place.run("serve", place.config(ADAPTER + 'name = "a"\nsocket = "t"\n', "c.toml"))
    assert answer.returncode == 4
    assert place.json("show")["summary"]["socket"] == str(place.folder / "s")
    assert end(first) == 0


def test_a_server_that_was_killed_can_be_started_again(place: Place) -> None:
    config = place.config(ADAPTER)
    first = place.serve(config)
    pid = event(first)["pid"]
    first.send_signal(signal.SIGSTOP)  # or it would start the adapter again
    os.waitid(os.P_PID, first.pid, os.WSTOPPED)
    os.kill(pid, signal.SIGKILL)
    end(first, signal.SIGKILL)
    assert place.json("ls")["silent"]
    assert "hba ls --clean" in place.run("show").stderr
    second = place.serve(config)
    event(second)
    assert len(place.json("ls")["adapters"]) == 1
    assert place.json("ls", "--clean")["removed"] == []
    assert end(second) == 0


def test_sockets_of_the_dead_can_be_removed(place: Place) -> None:
    server = place.serve(place.config(ADAPTER))
    pid = event(server)["pid"]
    server.send_signal(signal.SIGSTOP)  # or it would start the adapter again
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)
    os.kill(pid, signal.SIGKILL)
    end(server, signal.SIGKILL)
    assert {path.suffix for path in place.runtime.iterdir()} >= {".ctl", ".sock"}
    assert place.json("ls", "--clean")["removed"] == [str(place.runtime / "pvscsi0.ctl")]
    assert not [path for path in place.runtime.iterdir() if path.suffix in (".ctl", ".sock")]


def test_a_stopped_adapter_is_no_adapter_that_is_not_there(place: Place) -> None:
    server = place.serve(place.config(ADAPTER))
    pid = event(server)["pid"]
    os.kill(pid, signal.SIGSTOP)
    while not is_stopped(pid):
        os.sched_yield()
    answer = place.run("show")
    assert answer.returncode == 9
    assert f"does not answer: process {pid} is stopped; kill -CONT {pid}" in answer.stderr
    assert place.json("ls", "--clean")["removed"] == []
    os.kill(pid, signal.SIGCONT)
    assert place.run("show").returncode == 0
    assert end(server) == 0


def test_a_reader_that_leaves_is_told_to_the_shell_and_to_nobody_else(place: Place) -> None:
    answer = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" explain --json | true', "-", *HBA],
        env=place.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (141, "")


@pytest.mark.parametrize("words", [("hba",), ("hba.lab.launch", "--list-suites"), ("hba", "explain")])
def test_output_that_goes_nowhere(place: Place, words: tuple[str, ...]) -> None:
    """As `| head -0` and `>&-`, and with a character set that has little."""
    command = [sys.executable, "-m", *words]
    ours, theirs = os.pipe()
    os.close(ours)
    pipe = subprocess.PIPE
    ended = subprocess.run(command, env=place.env, stdout=theirs, stderr=pipe, text=True, timeout=PATIENCE)
    os.close(theirs)
    assert (ended.returncode, ended.stderr) == (141, "") or len(words) == 1
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "-", *command], env=place.env, stderr=pipe, text=True, timeout=PATIENCE
    )
    assert ended.returncode == (2 if len(words) == 1 else 0), ended.stderr
    env = {**place.env, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, encoding="ascii", timeout=PATIENCE)
    assert ended.returncode == (2 if len(words) == 1 else 0), ended.stderr


def test_a_disk_that_is_full(place: Place) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*HBA, "explain", "MB-05"], env=place.env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 5
    assert ended.stderr.startswith("error: standard output: No space left on device; ")
    assert len(ended.stderr.splitlines()) == 1


def test_what_a_back_end_says_of_itself(place: Place) -> None:
    answer = place.run("serve", "--print-capabilities")
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["type"]


def test_doctor_says_what_to_do(place: Place) -> None:
    answer = place.run("doctor", "--json")
    report = json.loads(answer.stdout)
    Checker().output(json.loads(answer.stdout), OUTPUTS["hba doctor"].kind)
    assert answer.returncode == (0 if report["good"] else 1)
    assert {item["state"] for item in report["checks"]} <= {"good", "limited", "missing"}
    assert all(item["next_step"] for item in report["checks"] if item["state"] == "missing")
    assert {"python", "compiled", "KVM", "libnbd", "disk space"} <= {item["name"] for item in report["checks"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_benchmark_that_is_interrupted_says_so_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, as_json: bool
) -> None:
    command = [sys.executable, "-m", "hba", "bench", "--size", "16", "--seconds", "600", *["--json"] * as_json]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        while not list(tmp_path.glob("*/disk.img")):
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(number)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number and out == b""
    words = f"interrupted by {number.name} while measuring; everything is cleaned up"
    if as_json:
        assert json.loads(said)["error"]["message"] == words
    else:
        assert said.decode() == f"{words}\n"
    assert list(tmp_path.iterdir()) == []
