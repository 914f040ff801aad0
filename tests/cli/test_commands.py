"""The command line against adapters that are fakes behind real control sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hba import __version__
from hba.adapters.registry import ADAPTERS
from hba.cli import main
from hba.cli.main import COMMANDS, run
from hba.contract import SCHEMA_VERSION
from hba.control.methods import METHODS
from hba.control.parts import Parts
from hba.errors import StorageError
from hba.rules import RULES
from tests.control.fakes import FakeAdapter, serving


class Shell:
    """Runs command lines in this process: `code`, `out`, `err` of the last one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        self.code = run(words)
        self.out, self.err = self._capsys.readouterr()
        return self.code

    def json(self, *words: str) -> Any:
        """What it prints, without the version."""
        assert self(*words, "--json") == 0, self.err
        value = json.loads(self.out)
        assert value.pop("schema_version") == SCHEMA_VERSION
        return value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("HBA_DEBUG", raising=False)
    return folder


@pytest.fixture
def shell(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def parts(folder: Path) -> Iterator[Parts]:
    with serving(folder / "fake0.ctl") as parts:
        yield parts


@pytest.fixture
def second(folder: Path) -> Iterator[Parts]:
    with serving(folder / "fake1.ctl", name="fake1") as parts:
        yield parts


# -- the frame ------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(shell: Shell) -> None:
    assert shell("--help") == 0
    for name, line in COMMANDS.items():
        assert name in shell.out
        assert line.split()[0] in shell.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(shell: Shell, name: str) -> None:
    assert shell(name, "--help") == 0
    assert "--json" in shell.out or name in ("lun", "inject")


@pytest.mark.parametrize(
    "words", [("bogus",), ("show", "a", "b"), ("show", "--bogus"), ("lun", "add", "x"), ("serve",)]
)
def test_wrong_usage(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell(*words) == 2
    assert shell.err.startswith("error: ") and shell.err.count("\n") == 1
    assert f"see `hba {words[0]}" in shell.err or words == ("bogus",)


def test_an_error_is_one_line_and_no_traceback(shell: Shell) -> None:
    assert shell("show") == 9
    assert shell.err.startswith("error: no adapter runs")
    assert "hba serve" in shell.err
    assert len(shell.err.splitlines()) == 1
    told = shell.err.removeprefix("error: ").rstrip()
    assert shell("show", "--json") == 9
    assert json.loads(shell.err) == {
        "schema_version": SCHEMA_VERSION,
        "error": {"code": 9, "kind": "control", "message": told},
    }
    assert shell("show", "--json", "--bogus") == 2
    assert json.loads(shell.err)["error"]["kind"] == "usage"


def test_a_defect_is_called_one(shell: Shell, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(value: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("hba.cli.output.print_json", crash)
    assert shell("show", "--json") == 70
    assert "internal error: KeyError: 'oops'" in shell.err
    assert "HBA_DEBUG=1" in shell.err
    assert "Traceback" not in shell.err
    monkeypatch.setenv("HBA_DEBUG", "1")
    assert shell("show", "--json") == 70
    assert "Traceback" in shell.err


def test_the_exit_code_is_the_errors(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **named: object) -> None:
        raise StorageError("no disk\nand no other")

    monkeypatch.setattr(main.cli, "main", fail)
    assert shell("ls") == 5
    assert shell.err == "error: no disk\nerror: and no other\n"


def test_ctrl_c(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.cli, "main", interrupt)
    assert shell("ls") == 130


def test_version(shell: Shell) -> None:
    assert shell("version") == 0
    assert __version__ in shell.out
    assert shell.json("version")["control_protocol"] == 1
    assert shell("--version") == 0


# -- which adapter --------------------------------------------------------------------------------------------------


def test_the_only_adapter_need_not_be_named(shell: Shell, parts: Parts) -> None:
    assert shell.json("show", "config")["name"] == "fake0"
    assert shell.json("show", "fake0", "config")["name"] == "fake0"
    assert shell.json("show", "fake0")["summary"]["name"] == "fake0"


def test_one_of_several_must_be_named(shell: Shell, parts: Parts, second: Parts) -> None:
    assert shell("show") == 9
    assert "several adapters run (fake0, fake1): say which one" in shell.err
    assert shell.json("show", "fake1", "config")["name"] == "fake1"
    assert shell.json("lun", "ls", "fake1") == {"units": []}


def test_a_name_nobody_has(shell: Shell, parts: Parts) -> None:
    assert shell("show", "fak0") == 9
    assert 'did you mean "fake0"?' in shell.err


def test_a_socket_left_by_a_dead_server(shell: Shell, folder: Path, parts: Parts) -> None:
    import socket

    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "dead.ctl"))
    dead.close()
    assert shell("ls") == 0
    assert "fake0" in shell.out
    assert "silent:" in shell.err
    assert "dead.ctl" in shell.err
    assert shell("show", "dead") == 9


# -- ls, show -------------------------------------------------------------------------------------------------------


def test_ls(shell: Shell, parts: Parts, second: Parts) -> None:
    assert shell("ls") == 0
    header, *rows = shell.out.splitlines()
    assert header.split()[:4] == ["NAME", "TYPE", "PORT", "MINIPORT"]
    assert [row.split()[0] for row in rows] == ["fake0", "fake1"]
    assert [row["name"] for row in shell.json("ls")["adapters"]] == ["fake0", "fake1"]


def test_ls_without_any(shell: Shell) -> None:
    assert shell("ls") == 0
    assert "no adapter runs" in shell.out
    assert shell.json("ls") == {"adapters": [], "silent": [], "removed": []}


SUBJECTS = ("regs", "queues", "luns", "irq", "dma", "counters", "verifier", "config")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_shown_as_text_and_json(shell: Shell, parts: Parts, subject: str) -> None:
    shell("lun", "add", "1:2", "--memory", "--size", "1M")
    assert shell("show", subject) == 0, shell.err
    assert shell.out
    shown = shell.json("show", subject)
    if subject != "counters":
        lists = {"luns": "units", "dma": "ranges"}
        assert (shown[lists[subject]] if subject in lists else shown) == shell.json("show", "all")[subject]


def test_the_glance_and_all(shell: Shell, parts: Parts) -> None:
    assert shell("show") == 0
    for word in ("fake0", "storport", "client", "requests 7", "submitted 7", "verifier"):
        assert word in shell.out
    assert shell("show", "all") == 0
    for subject in SUBJECTS:
        assert subject in shell.out.splitlines()


def test_findings_are_shown(shell: Shell, parts: Parts) -> None:
    rule = next(iter(RULES))
    assert parts.verifier is not None
    parts.verifier.report(rule, "the sky fell", where="slot 9", history=("one", "two"), height=3)
    assert shell("show", "verifier") == 0
    for word in (rule, "the sky fell", "slot 9", "two", "height 3", RULES[rule].title):
        assert word in shell.out


# -- lun ------------------------------------------------------------------------------------------------------------


def test_units_come_change_and_go(shell: Shell, parts: Parts) -> None:
    added = shell.json("lun", "add", "1:2", "--memory", "--size", "1M", "--removable", "--set", 'serial = "S1"')
    assert (added["target"], added["lun"], added["storage"]["size"]) == (1, 2, 1 << 20)
    assert shell("lun", "ls") == 0
    assert "0:1:2" in shell.out
    assert "1.0 MiB" in shell.out
    assert shell.json("lun", "resize", "1:2", "3M")["storage"]["size"] == 3 << 20
    assert shell.json("lun", "read-only", "1:2")["read_only"] is True
    assert shell.json("lun", "read-only", "1:2", "off")["read_only"] is False
    assert shell.json("lun", "eject", "1:2")["storage"] is None
    assert shell.json("lun", "insert", "1:2", "--storage", 'kind = "memory", size = "2M"')["storage"]["size"] == 2 << 20
    assert shell.json("lun", "remove", "1:2")["target"] == 1
    assert shell.json("lun", "ls") == {"units": []}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"state": "posted", "why": ""}, ""),
        ({"state": "waiting", "why": "the ring is full"}, "unit 0:3:0: the guest was not told yet: the ring is full"),
        ({"state": "none", "why": "no message ring"}, "unit 0:3:0: the guest was not told: no message ring"),
    ],
)
def test_whether_the_guest_was_told_is_said(shell: Shell, parts: Parts, told: dict[str, str], said: str) -> None:
    assert isinstance(parts.adapter, FakeAdapter)
    parts.adapter.told = told
    for words in (("add", "3", "--memory", "--size", "1M"), ("remove", "3")):
        assert shell("lun", *words) == 0
        assert [line for line in shell.out.splitlines() if "guest" in line] == ([said] if said else [])
    assert shell.json("lun", "add", "3", "--memory", "--size", "1M")["announcement"] == told
    assert shell.json("lun", "remove", "3") == {
        "unit": "0:3:0", "target": 3, "lun": 0, "announcement": told,
    }  # fmt: skip


def test_a_file_is_given_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hba.cli.lun import storage_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.img").write_bytes(bytes(512))
    assert storage_of(Path("there.img"), False, None, None, True) == {
        "kind": "file",
        "path": str(tmp_path / "there.img"),
        "read_only": True,
    }
    assert storage_of(Path("new.img"), False, "1M", None, False) == {
        "kind": "file",
        "path": str(tmp_path / "new.img"),
        "size": "1M",
        "create": True,
    }
    assert storage_of(None, False, None, None, False) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "0", "--memory"), "--memory needs --size"),
        (("add", "0", "--memory", "--size", "1M", "--file", "x"), "exclude each other"),
        (("add", "0", "--storage", "kind = "), "no inline table of TOML"),
        (("add", "0", "--set", "= 3"), "no line of TOML"),
        (("add", "0:999"), "from 0 to 255"),
        (("insert", "0"), "say what to insert"),
    ],
)
def test_wrong_words_about_units(shell: Shell, parts: Parts, words: tuple[str, ...], message: str) -> None:
    assert shell("lun", *words) == 2
    assert message in shell.err


def test_refusals_of_the_adapter(shell: Shell, parts: Parts) -> None:
    assert shell("lun", "remove", "9") == 9
    assert shell.err == "error: there is no unit at 0:9:0; units: none\n"
    assert shell("lun", "add", "0", "--set", "blok_size = 1", "--memory", "--size", "1M") == 9
    assert 'did you mean "block_size"?' in shell.err


# -- events, explain, check -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["events", "watch"])
def test_events_are_followed(shell: Shell, parts: Parts, name: str) -> None:
    rule = next(iter(RULES))
    assert parts.verifier is not None

    def attach() -> Any:
        def tell() -> None:
            parts.events.publish("trace", {"time": 1_500_000_000, "kind": "submit", "srb": 4, "detail": None})

        parts.loop.call_soon(tell)
        return lambda: None

    parts.events.source("trace", attach)
    assert shell(name, "--topic", "trace", "--count", "1") == 0
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} fake0 trace  1\.500000 submit #4 -\n", shell.out)
    told = shell.json(name, "-t", "trace", "--count", "1")
    assert (told["adapter"], told["data"]["srb"]) == ("fake0", 4)
    assert datetime.fromisoformat(told["time"]).tzinfo is not None
    assert rule


def test_explain_one_and_all(shell: Shell) -> None:
    rule = next(iter(RULES.values()))
    assert shell("explain", rule.id.lower()) == 0
    assert shell.out.startswith(f"{rule.id}  {rule.title}")
    assert rule.source[:20] in shell.out
    assert shell.json("explain", rule.id)["text"] == rule.text
    assert {item["id"] for item in shell.json("explain")["rules"]} == set(ADAPTERS.rules)
    assert shell("explain") == 0
    assert len(shell.out.splitlines()) == len(ADAPTERS.rules) + 1
    assert shell("explain", rule.id[:-1]) == 2
    assert "did you mean" in shell.err


def test_check_prints_the_schema_of_configurations(shell: Shell) -> None:
    assert shell("check", "--schema") == 0
    assert json.loads(shell.out)["required"] == ["adapter"]
    assert shell("check", "--schema", "x.toml") == 2
    assert "it takes no CONFIG" in shell.err
    assert shell("check") == 2
    assert "missing argument 'CONFIG'" in shell.err


def test_check(shell: Shell, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('[[adapter]]\ntype = "pvscsi"\n')
    assert shell("check", str(good)) == 0
    assert "good" in shell.out
    assert shell.json("check", str(good))["adapters"][0]["name"] == "pvscsi0"
    bad = tmp_path / "bad.toml"
    bad.write_text('[[adapter]]\ntype = "pvscis"\nprot = 1\n')
    assert shell("check", str(bad)) == 3
    assert [line.split(": ")[2] for line in shell.err.splitlines()] == ["adapter[0].type", "adapter[0].prot"]
    good.write_text('[[adapter]]\ntype = "pvscsi"\nminiport = "no.such:Thing"\n')
    assert shell("check", str(good)) == 3
    assert "no.such" in shell.err


def test_every_show_method_has_a_place_on_the_command_line() -> None:
    from hba.cli.show import SUBJECTS as SHOWN

    methods = {method.name for method in METHODS if method.name.startswith("show.")}
    assert methods - {"show.all", "show.summary"} == {method for method, _ in SHOWN.values()}
