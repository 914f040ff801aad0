"""The command line trusts nobody: not the runtime folder, not what answers on a control socket, not what it says."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hba.cli import output
from hba.cli.main import COMMANDS, run
from hba.control.client import MAX_DEPTH, ControlClient
from hba.control.methods import METHODS
from hba.errors import ControlError
from hba.rules import RULES
from hba.visible import visible
from tests.cli.strangers import Answer, Stranger, reply, stranger
from tests.control.fakes import serving

# Every command that asks an adapter, each subject and subcommand (of `inject` one of each that print alike).
ASKING = [
    ("ls",),
    ("show",),
    *(("show", name) for name in ("regs", "queues", "luns", "irq", "dma", "counters", "verifier", "config", "all")),
    ("lun", "ls"),
    ("lun", "add", "1", "--memory", "--size", "1M"),
    ("lun", "remove", "1"),
    ("lun", "eject", "1"),
    ("lun", "insert", "1", "--memory", "--size", "1M"),
    ("lun", "resize", "1", "1M"),
    ("lun", "read-only", "1"),
    ("inject", "scsi", "0", "000000000000"),
    ("inject", "machine", "sleep"),
    ("inject", "rescan"),
    ("inject", "tracing", "on"),
    ("events", "--count", "1"),
    ("trace",),
    ("trace", "--last", "3"),
    ("bench", "fake0"),
]
ALONE = {"serve", "check", "explain", "doctor", "systemd", "version"}  # they ask nobody


def test_every_command_is_here() -> None:
    assert {words[0] for words in ASKING} | ALONE == set(COMMANDS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("HBA_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("HBA_DEBUG", raising=False)
    return folder


@pytest.fixture
def other(folder: Path) -> Iterator[Stranger]:
    with stranger(folder / "fake0.ctl") as found:
        yield found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shell(*words: str, terminal: bool = False) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    with redirect_stdout(out), redirect_stderr(err):
        code = run(words)
    return code, out.getvalue(), err.getvalue()


def refused(words: tuple[str, ...], message: str) -> None:
    """It ends with one line that says why (`ls` lists the adapter as silent)."""
    code, out, err = shell(*words)
    assert "Traceback" not in err
    assert message in err, (out, err)
    if words[0] == "ls":
        assert code == 0 and err.startswith("silent: ")
    else:
        assert code == 9 and err.startswith("error: ") and err.count("\n") == 1


# -- the runtime folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_somebody_elses_folder_is_refused(
    folder: Path, other: Stranger, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    code, out, err = shell(*words)
    assert (code, out) == (6, "")
    assert f"{folder} belongs to user {folder.stat().st_uid}; set HBA_RUNTIME_DIR to one of your own" in err
    assert shell(*words[:1], "fake0", *words[1:])[0] == 6 or words[0] in ("ls", "lun", "inject", "bench")


@pytest.mark.parametrize("words", [("ls",), ("show",), ("show", "fake0"), ("lun", "remove", "1", "--adapter", "fake0")])
def test_an_open_folder_and_a_link_are_refused(folder: Path, other: Stranger, words: tuple[str, ...]) -> None:
    folder.chmod(0o755)
    code, _, err = shell(*words)
    assert code == 6 and f"open to others (mode 755); run: chmod 700 {folder}" in err
    folder.chmod(0o700)
    folder.rename(folder.parent / "real")
    folder.symlink_to(folder.parent / "real")
    code, _, err = shell(*words)
    assert code == 6 and "is not a folder" in err


def test_a_folder_that_is_missing_is_no_adapter(folder: Path) -> None:
    folder.rmdir()
    assert shell("ls") == (0, f"no adapter runs ({folder} has none)\n", "")
    code, _, err = shell("show")
    assert code == 9 and err.startswith("error: no adapter runs")
    code, _, err = shell("show", "fake0")
    assert code == 9 and err.startswith('error: no adapter "fake0" runs')


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def iterdir(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    code, _, err = shell("ls")
    assert code == 6 and "cannot be read (Permission denied); set HBA_RUNTIME_DIR" in err


def test_names_that_no_file_can_have(folder: Path) -> None:
    for name in ("x" * 300, "/" + "x" * 300, "no/such/place"):
        code, _, err = shell("show", name)
        assert code == 9 and err.startswith("error: no adapter")


# -- what comes -----------------------------------------------------------------------------------------------------


def always(*parts: bytes) -> Answer:
    return lambda request: iter(parts)


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (always(b"SSH-2.0\n"), "is no hba adapter"),
        (always(b"\xff\xfe\n"), "is no hba adapter"),
        (always(b"[1]\n"), "a line that is no object"),
        (always(b'{"id": 7, "result": 1}\n'), "a reply to '7', which was not asked"),
        (always(b'{"id": true, "result": 1}\n'), "a reply to 'True', which was not asked"),
        (always(b'{"result": 1}\n'), "a reply to 'None', which was not asked"),
        (lambda request: iter([reply(request)]), "a reply without a result"),
        (lambda request: iter([reply(request, result=json.loads("[" * 99 + "]" * 99))]), f"more than {MAX_DEPTH} deep"),
        (always(b"[" * 1_000_000 + b"\n"), "is no hba adapter"),
        (always(b'{"id": 1, "resu', b""), "has closed the connection"),
        (always(b""), "has closed the connection"),
        (lambda request: iter([reply(request, error=[1])]), "[1]"),
        (lambda request: iter([reply(request, error={"message": "no", "next_step": {"a": 1}})]), "no; {'a': 1}"),
        (always(b'{"id": null, "error": {"message": "what?"}}\n'), "what?"),
    ],
)
def test_what_is_no_answer(other: Stranger, words: tuple[str, ...], answer: Answer, message: str) -> None:
    other.answer = answer
    refused(words, message)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"", "has closed the connection"),
        (b"{", "has closed the connection"),
        (b"{}\n", "speaks control protocol None"),
        (b'{"protocol": 1}\n', "missing required field `adapter`"),
        (b'{"protocol": 1, "adapter": [], "pid": 1}\n', "Expected `str`, got `array`"),
        (b'{"protocol": 1, "adapter": "x", "pid": "1"}\n', "Expected `int`, got `str`"),
        (b'{"error": 7}\n', "7"),
    ],
)
def test_what_is_no_greeting(other: Stranger, greeting: bytes, message: str) -> None:
    other.greeting = greeting
    refused(("ls",), message)
    code, _, err = shell("show", "fake0")
    assert code == 9 and message in err


def endless(part: bytes) -> Answer:
    def answer(request: dict[str, Any]) -> Iterator[bytes]:
        while True:
            yield part

    return answer


@pytest.mark.parametrize("words", [("ls",), ("show",), ("events",), ("trace",)])
def test_a_line_without_end(other: Stranger, words: tuple[str, ...]) -> None:
    other.answer = endless(b"x" * 65536)
    refused(words, "a line without end")


def test_events_instead_of_a_reply_are_kept_up_to_a_limit(other: Stranger) -> None:
    other.answer = endless(b'{"event": "storage"}\n' * 4096)
    refused(("show",), "sends events and does not answer")


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_one_that_never_answers(other: Stranger, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """Every command has its limit; here they are all as short as none of them is."""
    real = ControlClient.__init__

    def impatient(self: ControlClient, path: Path, timeout: float | None = 10.0) -> None:
        assert timeout is not None
        real(self, path, 0.01)

    monkeypatch.setattr(ControlClient, "__init__", impatient)
    refused(words, "does not answer")


def test_one_that_answers_a_byte_at_a_time(other: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the whole reply: here every look at the clock is a second later."""
    other.answer = endless(b"x")
    seconds = count()
    monkeypatch.setattr("hba.control.client.time.monotonic", lambda: float(next(seconds)))
    refused(("show", "fake0"), "does not answer")


def test_the_reply_to_a_call_that_was_given_up_is_no_stranger(other: Stranger, folder: Path) -> None:
    late: list[bytes] = []

    def answer(request: dict[str, Any]) -> Iterator[bytes]:
        line = reply(request, result=request["id"])
        if late:
            yield late.pop() + line
        else:
            late.append(line)

    other.answer = answer
    with ControlClient(folder / "fake0.ctl", 0.05) as client:
        with pytest.raises(ControlError, match="does not answer"):
            client.call("ping")
        client._timeout = 60
        assert client.call("ping") == 2


def test_a_trace_that_does_not_go_on(other: Stranger) -> None:
    page = {"start": 0, "next": 0, "recorded": 5, "events": []}
    other.answer = lambda request: iter([reply(request, result=page)])
    refused(("trace",), "its trace has more, and does not give it")


def test_what_is_printed_is_not_more_than_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    """A reply of n bytes must not become n² of them."""
    output.generic([{f"key{number}": number} for number in range(2000)])
    output.table(("a", "b"), [["x" * 100_000, 1], *([number, 2] for number in range(1000))])
    output.pairs([("n" * 100_000, 1), *((str(number), 2) for number in range(1000))])
    output.line(output.hexadecimal(1, 10**15))
    assert len(capsys.readouterr().out) < 2_000_000


# -- any answer -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "result", "\x1b[2J", "\u202e", "é", ""]) | st.text(max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
) | st.sampled_from([10**400, -(10**400), 1e308, 2**64])  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an adapter answers to every method that commands call."""
    path = tmp_path_factory.mktemp("truth") / "fake0.ctl"
    unit = {"target": 1, "storage": {"kind": "memory", "size": "1M"}}
    with serving(path) as parts, ControlClient(path) as client:
        assert parts.verifier is not None and parts.recorder is not None
        parts.verifier.report(next(iter(RULES)), "the sky fell", where="slot 9", history=("one", "two"), height=3)
        parts.recorder.add("submit", 4, {"a": 1})
        found = {"lun.add": client.call("lun.add", unit=unit)}
        for method in METHODS:
            if method.name.startswith("show."):
                found[method.name] = client.call(method.name)
        found["lun.ls"] = client.call("lun.ls")
        found["trace.read"] = client.call("trace.read")
        found["events.subscribe"] = client.call("events.subscribe")
    found["show.irq"] = found["show.all"]["irq"] = IRQ
    found["show.dma"] = found["show.all"]["dma"] = [{"iova": 0, "size": 4096, "access": "rw", "by": "mmap"}]
    found["show.queues"] = found["show.all"]["queues"] = QUEUES
    found["show.regs"]["bars"] = [{"index": 0, "space": "memory", "size": 4096, "address": 0, "enabled": True}]
    ids = ("vendor", "device", "subsystem_vendor", "subsystem", "class_code", "revision")
    found["show.regs"]["identity"] = dict.fromkeys(ids, 1)
    for name in ("eject", "insert", "resize", "read_only"):
        found[f"lun.{name}"] = found["lun.add"]
    found["lun.remove"] = {"target": 1, "lun": 0, "announcement": {"state": "none", "why": "because"}}
    found["inject.scsi"] = INJECTED
    found["inject.machine"] = SEQUENCE
    found["inject.rescan"] = {"units": [{**found["lun.ls"][0], "device_type": 0, "pages": [0, 0x83]} | FOUND]}
    found["inject.tracing"] = {"enabled": True, "called": True, "model": "storport"}
    return found


INJECTED = {
    "id": 3, "function": "EXECUTE_SCSI", "unit": "0:1:0", "completed": True, "srb_status": 0xC4, "status": "ERROR",
    "frozen": True, "autosense": True, "scsi_status": 2, "length": 4, "data": "00ff4142", "sense": "7000",
    "sense_text": "POWER ON OCCURRED", "return_code": 0, "took": 1000, "where": "", "blocked": [],
}  # fmt: skip
SEQUENCE = {
    "id": 4, "what": "sleep", "completed": True, "pending": "", "state": "asleep",
    "steps": [{"what": "FLUSH", "unit": "0:1:0", "outcome": "SUCCESS"}],
}  # fmt: skip
FOUND = {"unit": "0:1:0", "vendor": "HBA", "product": "DISK", "revision": "1", "serial": "2"}
IRQ = {
    "mode": "msi",
    "sent": {"msi": 3},
    "indexes": [
        {"name": "msi", "vectors": 1, "connected": [0], "masked": [], "pending": [], "resample": False},
    ],
}
REQUEST = {"number": 7, "where": "ISSUED", "function": 0, "cdb": "28", "length": 4096, "tag": 3, "age_ms": 3}
QUEUES = {
    "adapter": {
        "type": "pvscsi",
        "rings": {"state_page": 4096, "request": {"entries": 32, "prod": 5, "cons": 3, "pages": [8192]}},
        "messages": {"waiting": 3, "next": ["added 1:0"], "stuck": "no room"},
    },
    "port": {
        "model": "storport",
        "started": True,
        "outstanding": 1,
        "stuck": ["LU 0:1:0 paused"],
        "last_crash": "x",
        "adapter": {"state": "BUSY"},
        "units": [
            {"address": "0:1:0", "depth": 20, "outstanding": [REQUEST], "queue": [REQUEST], "timeout_left": 48,
             "blocked": ["frozen"], "frozen": True, "frozen_by": "#6", "frozen_ms": 2, "retrying": "#5"},
        ],
    },
}  # fmt: skip
EVENTS = [
    {"event": "verifier", "data": {"severity": "violation", "rule": "MB-01", "message": "m", "where": "w"}},
    {"event": "trace", "data": {"time": 1, "kind": "submit", "srb": 4, "detail": {"a": 1}}},
    {"event": "storage", "data": {"target": 0, "lun": 0, "event": "gone"}},
    {"event": "inject", "data": {"request": INJECTED, "sequence": None}},
    {"event": "inject", "data": {"request": None, "sequence": SEQUENCE}},
]


def telling(truth: dict[str, Any], event: dict[str, Any] | None = None) -> Answer:
    """An adapter that answers with `truth`."""

    def answer(request: dict[str, Any]) -> Iterator[bytes]:
        yield reply(request, result=truth[request["method"]])
        if request["method"] == "events.subscribe":
            yield json.dumps(EVENTS[0] if event is None else event).encode() + b"\n"
            yield b""

    return answer


@pytest.mark.parametrize("words", ASKING[:-1], ids=" ".join)
def test_the_truth_is_understood(other: Stranger, truth: dict[str, Any], words: tuple[str, ...]) -> None:
    """So that what follows tests more than the first field."""
    for event in EVENTS:
        other.answer = telling(truth, event)
        assert shell(*words)[::2] == (0, "")


def survives(words: tuple[str, ...], as_json: bool) -> None:
    code, out, err = shell(*words, *(["--json"] if as_json else []))
    assert code in (0, 4, 9), (code, out, err)
    assert "Traceback" not in err
    harmless(out + err)


def harmless(text: str) -> None:
    bad = {character for character in text if not character.isprintable()} - {"\n"}
    assert not bad, (bad, text)


ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
@ANY
@given(parts=st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"{", b'{"id": 1, "result": ']), max_size=5))
def test_any_bytes(other: Stranger, words: tuple[str, ...], parts: list[bytes]) -> None:
    raw = b"".join(parts)
    other.answer = always(*([raw] if raw else []), b"")
    survives(words, as_json=False)
    other.answer = lambda request: iter([b'{"id": %d, "result": ' % request["id"] + raw + b"}\n", b""])
    survives(words, as_json=False)


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
@ANY
@given(value=JSON, as_json=st.booleans(), shape=st.sampled_from(["result", "error", "event", "greeting"]))
def test_any_json(other: Stranger, words: tuple[str, ...], value: Any, as_json: bool, shape: str) -> None:
    def answer(request: dict[str, Any]) -> Iterator[bytes]:
        if shape == "event":
            yield json.dumps({"event": value}).encode() + b"\n"
            yield json.dumps({"event": "trace", "data": value}).encode() + b"\n"
        yield reply(request, **{"error" if shape == "error" else "result": value})
        if request["method"] == "events.subscribe":
            yield json.dumps({"event": "verifier", "data": value}).encode() + b"\n"
            yield b""

    other.answer = answer
    greeting = other.greeting
    if shape == "greeting":
        other.greeting = json.dumps({"protocol": 1, "adapter": "x", "pid": 1, "error": value}).encode() + b"\n"
    survives(words, as_json)
    other.greeting = greeting


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something in it replaced by something else, or missing."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: item for name, item in value.items() if name != key}
        return draw(st.sampled_from([rest, value])) if not draw(st.integers(0, 5)) else value | {
            key: draw(changed(value[key]))
        }  # fmt: skip
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(JSON)


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
@settings(ANY, max_examples=60)
@given(data=st.data(), as_json=st.booleans())
def test_the_truth_changed_a_little(
    other: Stranger, truth: dict[str, Any], words: tuple[str, ...], data: st.DataObject, as_json: bool
) -> None:
    event = data.draw(st.sampled_from(EVENTS).flatmap(changed))
    told: dict[str, Any] = {}

    def answer(request: dict[str, Any]) -> Iterator[bytes]:
        yield reply(request, result=told[request["method"]])
        if request["method"] == "events.subscribe":
            yield json.dumps(event).encode() + b"\n"
            yield b""

    for name in METHODS_OF[words[0]]:
        told[name] = data.draw(changed(truth[name]))
    if words[0] in ("lun", "show", "inject"):
        told = {name: data.draw(changed(truth[name])) for name in truth if name.startswith(words[0])}
    other.answer = answer
    survives(words, as_json)


METHODS_OF = {
    "ls": ("show.summary",),
    "show": (),
    "lun": (),
    "inject": (),
    "events": ("events.subscribe",),
    "trace": ("trace.read",),
    "bench": ("show.summary", "lun.ls"),
}


# -- what is printed ------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\r\n\t\x00\x7f\x9b31m\x85\u202e\u2066\u200b\u2028[red][link=x]\\[bold]"


def evil(value: Any) -> Any:
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, list):
        return [evil(item) for item in value]
    if isinstance(value, dict):
        return {key: evil(item) for key, item in value.items()} | {EVIL: EVIL}
    return value


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(item)


def test_visible() -> None:
    assert visible("µ plain ü 漢 [x]") == "µ plain ü 漢 [x]"
    assert visible("\x1b[2J\r\n\x9b\x7f") == r"\x1b[2J\r\n\x9b\x7f"
    assert visible("\u202e\u2066\u2028\U000e0041\udc80") == r"\u202e\u2066\u2028\U000e0041\udc80"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_nothing_speaks_to_the_terminal(
    other: Stranger, truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")  # no colours of our own
    wrong = evil(truth)
    if words[0] == "bench":
        wrong["show.summary"]["connected"] = True
    for event in EVENTS:
        other.answer = telling(wrong, {"event": event["event"], "data": evil(event["data"])})
        code, out, err = shell(*words, terminal=terminal)
        assert code == (9 if words[0] == "bench" else 0), err
        printed = (out + err).replace("\x1b[1m", "").replace("\x1b[0m", "")  # our headings, on a terminal
        harmless(printed)
        shown = visible(EVIL).partition(r"\n")[2]
        assert shown in printed or terminal  # where rich shortens it
    if words[0] != "bench":
        code, out, err = shell(*words, "--json")
        assert code == 0
        harmless(out + err)
        assert out.isascii()
        found = [json.loads(line) for line in out.splitlines()] if words[0] in ("events", "trace") else json.loads(out)
        assert any(EVIL in text for text in strings(found))


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_nor_does_a_refusal(other: Stranger, words: tuple[str, ...]) -> None:
    other.answer = lambda request: iter([reply(request, error={"message": EVIL, "next_step": EVIL})])
    code, out, err = shell(*words)
    harmless(out + err)
    assert r"\x1b]0;owned\x07\r" in err and code == (0 if words[0] == "ls" else 9)


def test_nor_do_the_names_of_adapters_and_sockets(folder: Path, other: Stranger) -> None:
    other.greeting = json.dumps({"protocol": 1, "adapter": EVIL, "pid": 1}).encode() + b"\n"
    with stranger(folder / "second.ctl"), socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "\x1b[2J.ctl"))
        code, out, err = shell("show")
        harmless(out + err)
        assert code == 9 and "several adapters run" in err and r"\x1b]0;owned" in err
        code, out, err = shell("show", "\x1b[2K")
        harmless(out + err)
        assert code == 9 and r'no adapter "\x1b[2K" runs' in err


def test_a_character_that_the_terminal_does_not_have(
    other: Stranger, truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hba.cli.main import main

    told = {**truth, "show.summary": truth["show.summary"] | {"name": "漢"}}
    other.answer = telling(told)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "argv", ["hba", "ls"])
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0 and rb"\u6f22" in raw.getvalue()
