"""Errors have one shape, and say what was meant."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hba.control.parts import Parts
from hba.errors import EXITS
from hba.lab import launch
from hba.storage.file import FileBackend
from hba.terminal import entry
from tests.cli.shape import check_error
from tests.cli.strangers import stranger
from tests.cli.test_commands import Shell, folder, parts, shell
from tests.cli.test_programs import ADAPTER, Place, event, place

__all__ = ["folder", "parts", "place", "shell"]  # fixtures


NO_JSON = (("lun",), ("lun", "add", "0", "--set"))  # it has no such option, or takes it for a value


def told(shell: Shell, code: int, *words: str) -> str:
    """The message, which is the same as text and as an object."""
    assert shell(*words) == code, (shell.out, shell.err)
    message = check_error(shell.err, code, words)
    if "--" not in words:
        assert shell(*words, "--json") == code
        assert check_error(shell.err, code, words, as_json=True) == message or words in NO_JSON
    return message


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("shwo",), "show"),
        (("lun", "lsx"), "ls"),
        (("lun", "ad", "0"), "add"),
        (("show", "--jsn"), "--json"),
        (("lun", "add", "0", "--raed-only"), "--read-only"),
        (("lun", "add", "0", "--type", "dsk"), "disk"),
        (("bench", "--port", "scsi-port"), "scsiport"),
        (("show", "rgs"), "regs"),
        (("show", "fake0", "rgs"), "regs"),
        (("show", "queus", "fake0"), "queues"),
        (("explain", "MB-5"), "MB-05"),
    ],
)
def test_what_was_meant(shell: Shell, parts: Parts, words: tuple[str, ...], meant: str) -> None:
    message = told(shell, 2, *words)
    assert "did you mean" in message and meant in message.partition("did you mean")[2].split("?")[0]
    assert message.endswith("--help`")


def test_an_adapter_that_was_meant(shell: Shell, parts: Parts) -> None:
    assert 'no adapter "fak0" runs; did you mean "fake0"?' in told(shell, 9, "show", "fak0")


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("lun",),
        ("show", "a", "b", "c"),
        ("show", "--bogus"),
        ("lun", "add"),
        ("lun", "add", "x"),
        ("lun", "resize", "1"),
        ("lun", "add", "0", "--set"),
        ("serve",),
        ("check",),
        ("events", "--count", "0"),
        ("trace", "--last", "x"),
        ("--colour",),
    ],
)
def test_wrong_usage_is_one_line_with_the_next_step(shell: Shell, words: tuple[str, ...]) -> None:
    assert "`hba " in told(shell, 2, *words)


def test_nothing_at_all_is_wrong_usage(shell: Shell) -> None:
    assert shell() == 2
    assert check_error(shell.err, 2, ()) == "missing command; see `hba --help`"


@pytest.mark.parametrize("words", [("show", "fake0", "queues"), ("show", "queues", "fake0")])
def test_adapter_and_subject_in_either_order(shell: Shell, parts: Parts, words: tuple[str, ...]) -> None:
    assert "adapter" in shell.json(*words)


def test_two_words_the_wrong_adapter(shell: Shell) -> None:
    assert told(shell, 9, "show", "queues", "lab-1").startswith('no adapter "lab-1" runs')


def test_what_a_store_asks_for_is_asked_in_options(shell: Shell, parts: Parts, tmp_path: Path) -> None:
    """The store's own words, as a configuration says them, come from the adapter."""

    def open_file(storage: object) -> object:
        return FileBackend(storage.path, parts.loop, None)  # type: ignore[attr-defined, arg-type]

    parts.open_store = parts.open_medium = open_file  # type: ignore[assignment]
    message = told(shell, 9, "lun", "add", "0", "--file", str(tmp_path / "none.img"))
    assert "say --size to make it" in message and "create = true" not in message
    message = told(shell, 9, "lun", "add", "0", "--file", "/dev/null")
    assert "= true" not in message


def test_a_dead_socket_is_told_without_advice_to_do_the_same(shell: Shell, folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "dead.ctl"))
    dead.close()
    assert shell("ls") == 0
    assert "silent: " in shell.err and "hba ls" not in shell.err
    assert "`hba ls` shows which run" in told(shell, 9, "show", "dead")
    with stranger(folder / "other.ctl") as other:
        other.greeting = b"{}\n"
        assert shell("ls") == 0 and "hba ls" not in shell.err


# -- with servers -----------------------------------------------------------------------------------------------------


def test_storage_that_is_not_there_names_unit_and_line(place: Place) -> None:
    config = place.config(ADAPTER + '\n[[adapter.lun]]\ntarget = 3\nstorage = { kind = "file", path = "none.img" }\n')
    answer = place.run("serve", config)
    assert answer.returncode == 5
    assert f"{config}:6: lun 0:3:0: {place.folder}/none.img does not exist" in check_error(answer.stderr, 5, ("serve",))
    answer = place.run("serve", config, "--json")
    assert f"{config}:6: lun 0:3:0: " in check_error(answer.stderr, 5, ("serve",), as_json=True)
    answer = place.run("bench", config, "--json")
    assert f"{config}:6: lun 0:3:0: " in check_error(answer.stderr, 5, ("bench",), as_json=True)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\n1 / 0\n", 2),
        ("\n\ndef f(:\n", 3),
        ("import no_such_thing_at_all\n", 1),
        ("import json\n\njson.loads('')\n", 3),
        ("import sys\nsys.exit(1)\n", 2),
    ],
)
def test_a_miniport_that_cannot_be_imported_names_its_line(place: Place, source: str, line: int) -> None:
    place.env["PYTHONPATH"] = str(place.folder)
    (place.folder / "mine.py").write_text(source)
    config = place.config(ADAPTER + 'miniport = "mine:Mine"\n')
    for command in ("check", "serve"):
        answer = place.run(command, config)
        message = check_error(answer.stderr, 3, (command, config))
        assert answer.returncode == 3
        assert f"{config}:3: " in message and f"{place.folder}/mine.py:{line}: " in message


def test_a_benchmark_of_an_adapter_that_is_busy(place: Place) -> None:
    server = place.serve(place.config(ADAPTER + '[[adapter.lun]]\nstorage = { kind = "memory", size = "1M" }\n'))
    listening = event(server)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listening["socket"])
        answer = place.run("bench", "pvscsi0", "--seconds", "0.1")
        message = check_error(answer.stderr, answer.returncode, ("bench", "pvscsi0"))
    assert answer.returncode == 4 and "the adapter is busy with another client" in message


# -- scripts/launch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--junit", "x"), "--junit"),
        (("-k", "x"), "-k "),
        (("--dataloss",), "--dataloss"),
        (("--suite", "smoke", "--disk", "x"), "--disk"),
        (("--machine", "foo"), "--machine foo"),
        (("--machine", "q3"), 'did you mean "q35"?'),
        (("--suite", "smok"), 'did you mean "smoke"?'),
        (("--kernal", "6.1"), 'did you mean "--kernel"?'),
        (("--port-model", "storpor"), 'did you mean "storport"?'),
        (("--memory", "0"), "--memory"),
        (("--disk", "x", "--config", "y"), "--disk"),
        (("--device", "builtin-pvscsi", "--port-model", "storport"), "--port-model"),
        (("--device", "builtin-pvscsi", "--adapter", "pvscsi"), "--adapter"),
        (("--config", "x", "--adapter", "pvscsi"), "--adapter"),
        (("--modules", "x"), "--modules"),
    ],
)
def test_wrong_usage_of_launch(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert launch.run(words) == 2
    assert said in check_error(capsys.readouterr().err, 2, words)


# -- exit codes -------------------------------------------------------------------------------------------------------


def test_the_codes_are_one_table(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert len({known.code for known in EXITS}) == len({known.kind for known in EXITS}) == len(EXITS)
    rows = "\n".join(f"| {known.code} | {known.kind} | {known.meaning} |" for known in EXITS)
    table = f"| code | kind | meaning |\n|---|---|---|\n{rows}\n"
    for name in ("README.md", "docs/cli.md"):
        text = (Path(__file__).parents[2] / name).read_text("utf-8")
        assert table in text, f"{name} should have:\n{table}"
    lines = entry.exit_codes().splitlines()[2:]
    shell("--help")
    assert [line for line in lines if line.strip() not in shell.out] == []
    assert launch.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in lines if line.strip() not in shown] == []
