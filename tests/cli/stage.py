"""Every command where it can be run a thousand times: one adapter that is a fake, and nothing that takes long or stays.

What is left out is what a command starts: servers, guests, measurements. Its command line, its questions to the
adapter, and all it prints are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from hba.bench import guest, levels, measure, own_server, ports
from hba.cli import machine
from hba.cli.main import cli
from hba.cli.results import Level
from hba.config.model import adapter_config
from hba.control.client import ControlClient
from hba.control.parts import Parts
from hba.errors import EXIT_OK, GuestError
from hba.lab import doctor, launch, prepare
from hba.lab.case import Case
from hba.lab.doctor import Check
from hba.lab.findings import Finding, Group
from hba.lab.observe import Seen
from hba.lab.suite import Outcome
from hba.lab.verdict import print_last, print_outcome, print_seen
from hba.rules import RULES
from hba.server import process, supervisor
from hba.server.report import Report
from tests.control.fakes import FakeSnapshot, serving

LONG = "/run/user/1000/hba/a-folder-of-some-length/a-socket-with-a-name-of-its-own.sock"
PROGRAMS = {"hba": cli, "scripts/launch": launch.command, "python -m hba.lab.prepare": prepare.command}
UNIT = {
    "address": "0:1:0", "depth": 20, "outstanding": [], "queued": 0, "started": 9, "completed": 9, "timeout_left": 48,
    "blocked_by": ["paused by the miniport", "the link is down", "not powered"],
}  # fmt: skip
RATES = {
    "commands_per_s": 1e5,
    "mb_per_s": 400.0,
    "cpu_us_per_command": 9.5,
    "latency_us": {"p50": 1.0, "p99": 2.0, "max": 3.0},
}


def commands() -> list[tuple[str, tuple[str, ...], click.Command]]:
    """Program, the words that lead to a command, and the command, for every one there is."""
    found = []
    for program, top in PROGRAMS.items():
        queue: list[tuple[tuple[str, ...], click.Command]] = [((), top)]
        while queue:
            words, command = queue.pop(0)
            if isinstance(command, click.Group):
                context = click.Context(command)
                for name in command.list_commands(context):
                    inner = command.get_command(context, name)
                    assert inner is not None
                    queue.append(((*words, name), inner))
            found.append((program, words, command))
    return found


@contextmanager
def staged(folder: Path) -> Iterator[Parts]:
    """An adapter `fake0` that runs, with a unit and findings; its runtime folder is in `folder`."""
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HBA_RUNTIME_DIR", str(runtime))
        for name in ("HBA_DEBUG", "NO_COLOR", "COLUMNS", "HBA_ACCEL"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        _without_what_is_started(patch)
        config = adapter_config()(type="pvscsi", name="fake0", socket=LONG)
        engine = FakeSnapshot(state="listening", bytes_received=1)
        port = FakeSnapshot(model="storport", counters={"submitted": 7}, units=[UNIT])
        serve = serving(runtime / "fake0.ctl", config=config, engine=engine, port=port)
        with serve as parts, ControlClient(runtime / "fake0.ctl") as client:
            assert parts.verifier is not None and parts.recorder is not None
            parts.verifier.report(next(iter(RULES)), "the sky fell … 漢", where="slot 9", history=("one",), height=3)
            parts.recorder.add("submit", 4, {"a": 1})
            client.call("lun.add", unit={"target": 1, "storage": {"kind": "memory", "size": "1M"}})
            yield parts


def _without_what_is_started(patch: pytest.MonkeyPatch) -> None:
    def listening(*_: object) -> int:
        Report().listening("pvscsi0", LONG, LONG, 4711)
        return EXIT_OK

    def measured(*_: object, progress: Callable[[str], None], **__: object) -> dict[str, Any]:
        progress("4 KiB random reads …")
        case = {"name": "4 KiB random reads, depth 32", "adapter": RATES, "loop": RATES, "ratio": 0.5}
        return {"cases": [case] * 3, "memory": {"uss": 1 << 20, "pss": 1 << 20}, "idle_cpu_percent": 0.1}

    def compared(*_: object, **__: object) -> list[dict[str, Any]]:
        numbers = dict.fromkeys(("port_share", "report_ratio", "trace_ratio"), 1.0)
        return [{"model": "storport", "depth": 1, "cpu_us": dict.fromkeys(ports.KINDS, 9.5), **numbers}]

    def of_levels(*_: object, progress: Callable[[str], None], **__: object) -> list[dict[str, Any]]:
        progress("storport: 4 KiB random reads …")
        numbers = dict.fromkeys((name for name in Level.__annotations__ if name not in ("port", "level")), 1.5)
        return [{"port": "storport", "level": level, **numbers} for level in levels.LEVELS]

    def in_a_guest(*, progress: Callable[[str], None], rounds: int, seconds: float, **_: object) -> dict[str, Any]:
        progress("booting the guest …")
        ours, theirs = guest.Side([1.0], [50.0], [30.0], [0.1], [0.2]), guest.Side([2.0], [60.0])
        name = "4 KiB random reads, depth 32"
        case = {"name": name, "length": 4096, "depth": 32, "adapter": ours.result(), "qemu": theirs.result()}
        about = {"type": "pvscsi", "cpus": 1, "accelerator": "tcg", "kernel": "6.12.117+deb13-amd64"}
        about |= {"port": "storport", "verifier": "report", "compiled": True, "rounds": rounds, "seconds": seconds}
        return {**about, "cases": [{**case, "ratio": 0.5}] * 4}

    def refused(*_: object, **__: object) -> Any:
        raise GuestError("nothing is started here; use another stage")

    def launched(options: object, task: launch.Task) -> int:
        from hba.lab import suite

        if task.suite is not None:
            cases = [Case("test_1: a name of a test", "passed", 1.0), Case("test_2: …", "failed", 2.0, "why\nreally …")]
            chosen, outcome = suite.load(task.suite), Outcome(cases)
            print_outcome(chosen, outcome, 3.0)
            group = Group("fake0", Finding("MB-05", "violation", "touched …", "mine.py:3"), "test_1", 2)
            print_seen(Seen("fake0", "storport", "native", 1, 2, 3, 4, counts={"MB-05": 2}), [group])
            print_last(chosen, outcome)
        return EXIT_OK

    patch.setattr(supervisor, "supervise", listening)
    patch.setattr(process, "serve", listening)
    patch.setattr(own_server, "start", refused)
    patch.setattr(measure, "measure", measured)
    patch.setattr(ports, "measure", compared)
    patch.setattr(levels, "measure", of_levels)
    patch.setattr(guest, "measure", in_a_guest)
    patch.setattr(machine, "examine", lambda: [Check("python", "good", LONG)])
    patch.setattr(doctor, "examine", lambda: [Check("KVM", "limited", "is not there …", "do something about it")])
    patch.setattr(launch, "_launch", launched)
    patch.setattr(prepare, "prepare", lambda kernels: None)
    event = {"event": "storage", "data": {"target": 0, "lun": 0, "event": "…"}}
    patch.setattr(ControlClient, "events", lambda self, timeout=None: iter([event]))
