"""Every command with `--json`, run: its output is what its schema says, and all of that does come."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hba.bench import guest, levels, ports
from hba.cli import machine
from hba.cli.main import run
from hba.cli.results import OUTPUTS, ErrorLine, Output
from hba.control.parts import Parts
from hba.errors import EXIT_STORAGE
from hba.lab import doctor
from hba.server.report import Report
from hba.terminal.telling import as_object
from tests.cli.stage import commands
from tests.contract.adapter import CAUSES, NAME, config, find, running, within
from tests.contract.checker import Checker

EVERY = 5_000_000  # ns


class Terminal:
    """Runs commands in this process and checks what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.checker = Checker()
        self.run: set[str] = set()

    def __call__(self, name: str, *words: str) -> None:
        """The command `name` of the table, with `words` besides."""
        asked = [word for word in name.split()[1:] if not word.isupper()]
        code = run([*asked, *words, "--json"])
        out, err = self._capsys.readouterr()
        assert code == 0, err
        self.check(name, out)

    def check(self, name: str, out: str) -> None:
        output: Output = OUTPUTS[name]
        values = list(map(json.loads, out.splitlines())) if output.lines else [json.loads(out)]
        assert values
        for value in values:
            self.checker.output(value, output.kind)
        self.run.add(name)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(runtime))
    return Terminal(capsys)


@pytest.fixture
def parts(tmp_path: Path, terminal: Terminal) -> Iterator[Parts]:
    with running(tmp_path / "run", config("storport")) as parts:
        yield parts


def test_every_command_prints_what_its_schema_says(
    terminal: Terminal, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _smaller(monkeypatch)
    _about_adapters(terminal, parts, tmp_path / "run")
    _about_units(terminal)
    _injected(terminal)
    _lines(terminal, parts)
    terminal("hba check", _file(tmp_path))
    terminal("hba explain")
    terminal("hba explain RULE", "MB-05")
    terminal("hba doctor")
    terminal("hba systemd")
    terminal("hba version")
    terminal("hba bench", "--seconds", "0.1", "--size", "16")
    terminal("hba bench", NAME, "--unit", "4:0", "--seconds", "0.1")  # which is no file
    terminal("hba bench --ports")
    terminal("hba bench --levels", "--seconds", "0.1", "--size", "16")
    terminal("hba bench --guest")
    assert terminal.run == set(OUTPUTS)
    kinds = [output.kind for output in OUTPUTS.values()]
    assert sorted(terminal.checker.unseen(kinds, module="hba.cli.results")) == []  # the others are for test_methods.py


def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of what takes long: of measurements, and of what is tried on this machine for guests."""
    small = partial(ports.measure, models=("storport",), depths=(1,), rounds=1, commands=32)
    monkeypatch.setattr(ports, "measure", small)
    monkeypatch.setattr(levels, "measure", partial(levels.measure, models=("storport",)))
    monkeypatch.setattr(guest, "measure", _a_guest)  # the real one is in tests/bench/test_guest.py
    monkeypatch.setattr(doctor, "examine", lambda: [machine._python()])


def _a_guest(**_asked: object) -> dict[str, object]:
    """What is measured in a guest, without one."""
    ours = guest.Side([1.0, 2.0], [50.0], [30.0], [0.1], [0.2])
    case = {"adapter": ours.result(), "qemu": guest.Side([1.0], [60.0]).result(), "ratio": 1.5}
    about = {"port": "storport", "verifier": "report", "compiled": True, "rounds": 2, "seconds": 1.0}
    about |= {"type": "pvscsi", "cpus": 1, "accelerator": "tcg", "kernel": "6.12"}
    return {**about, "cases": [{"name": "reads", "length": 4096, "depth": 1, **case}]}


def _about_adapters(terminal: Terminal, parts: Parts, runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(runtime / "dead.ctl"))
    within(parts, lambda: find(parts))
    terminal("hba ls")
    terminal("hba ls", "--clean")
    for name in OUTPUTS:
        if name.startswith("hba show"):
            terminal(name)


def _about_units(terminal: Terminal) -> None:
    terminal("hba lun ls")
    terminal("hba lun add", "9", "--memory", "--size", "1M", "--removable")
    terminal("hba lun resize", "9", "2M")
    terminal("hba lun read-only", "9")
    terminal("hba lun eject", "9")
    terminal("hba lun insert", "9", "--memory", "--size", "1M")
    terminal("hba lun remove", "9")


def _injected(terminal: Terminal) -> None:
    terminal("hba inject scsi", "0", "12000000ff00", "--length", "255")
    terminal("hba inject io-control", "0", "--code", "0x1b0500", "--length", "4")
    terminal("hba inject wmi")
    terminal("hba inject power", "D0", "0")
    terminal("hba inject pnp", "query-capabilities")
    terminal("hba inject send", "flush", "0")
    terminal("hba inject rescan")
    terminal("hba inject tracing", "on")
    terminal("hba inject dump", "0")
    terminal("hba inject machine", "rebalance")
    terminal("hba inject remove", "0")


def _lines(terminal: Terminal, parts: Parts) -> None:
    for topic, cause in CAUSES.items():
        within(parts, partial(_again, parts, cause, topic))
        terminal("hba events", "--topic", topic, "--count", "1")
    terminal("hba trace", "--last", "100")
    out = io.StringIO()
    report = Report(as_json=True, out=out, err=io.StringIO())
    report.listening("a", "/a.sock", "/a.ctl", 1)
    report.listening("a", "", "/a.ctl", 1)
    report.restarting("a", "ended by SIGKILL", 1, 5, 60.0)
    report.spinning("a", 1)
    report.answers("a", True)
    report.gave_up("a", "ended by SIGKILL", 6, 60.0)
    report.failed("a", "no such file", EXIT_STORAGE)
    report.stopped("a")
    terminal.check("hba serve", out.getvalue())


def _again(parts: Parts, cause: Callable[[Parts], object], topic: str) -> None:
    """Over and over, once somebody listens."""
    seen = False

    def tick() -> None:
        nonlocal seen
        listening = bool(parts.events._listeners[topic])
        if listening:
            cause(parts)
        if listening or not seen:
            parts.loop.clock.call_later(EVERY, tick)
        seen |= listening

    tick()


def _file(folder: Path) -> str:
    path = folder / "good.toml"
    path.write_text(config("scsiport"))
    return str(path)


def test_errors_are_what_their_schema_says() -> None:
    checker = Checker()
    checker.output(json.loads(as_object("the disk is full; make room", EXIT_STORAGE)), ErrorLine)
    assert checker.unseen([ErrorLine]) == set()


def test_every_command_with_json_is_in_the_table() -> None:
    have = {
        " ".join((program, *words))
        for program, words, command in commands()
        if any(parameter.name == "as_json" for parameter in command.params)
    }
    assert {
        name for name in have if not any(name == known or known.startswith(f"{name} ") for known in OUTPUTS)
    } == set()
    assert have
