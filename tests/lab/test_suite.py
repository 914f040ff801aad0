"""Suites and their reports."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hba.config.load import load
from hba.errors import ConfigError, WrongUsage
from hba.lab import config, junit, paths, suite, verdict
from hba.lab.case import Case
from hba.lab.findings import Finding, Group
from hba.lab.observe import Seen
from hba.lab.suite import Outcome
from hba.storage.config import FileStorage, parse_size

REPORT = b"""<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="s.test_1_driver" name="test_good" time="0.5"/>
<testcase classname="s.test_1_driver" name="test_bad" time="1"><failure message="because">x</failure></testcase>
<testcase classname="s.test_1_driver" name="test_late" time="1"><error message="after all">x</error></testcase>
<testcase classname="s.test_1_driver" name="test_not" time="0"><skipped message="no disk"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("name", suite.names())
def test_every_suite_is_described(name: str) -> None:
    loaded = suite.load(name)
    assert loaded.title and loaded.timeout > 0
    assert list(loaded.folder.glob("test_*.py"))
    for pattern in (loaded.from_host, loaded.from_guest, *(gone.where for gone in loaded.discarded)):
        if pattern is not None:
            assert pattern.offset + pattern.size <= loaded.disk_size


@pytest.mark.parametrize("name", suite.names())
def test_the_disks_a_suite_brings_can_be_made(tmp_path: Path, name: str) -> None:
    loaded = suite.load(name)
    if not loaded.luns:
        return
    file = tmp_path / "config.toml"
    file.write_text(config.one_adapter(tmp_path, loaded.luns, "storport"))
    (adapter,) = load(file).adapters
    for unit in adapter.lun:
        assert isinstance(unit.storage, FileStorage)
        assert Path(unit.storage.path).name == unit.storage.path, "the file is not in the experiment's folder"
        assert parse_size(unit.storage.size or 0) >= loaded.disk_size


def test_a_suite_that_is_not_there() -> None:
    with pytest.raises(WrongUsage, match=r"there are: .*smoke"):
        suite.load("nothing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'title = "x"',
        'title = "x"\ntimeout = "soon"',
        'title = "x"\ntimeout = 1\nfrom_host = { offset = 1, size = 4096 }',
    ],
)
def test_a_suite_that_is_described_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "suite.toml").write_text(text)
    monkeypatch.setattr(paths, "GUEST_TESTS", tmp_path)
    with pytest.raises(ConfigError, match=r"suite\.toml"):
        suite.load("bad")


def test_the_report_of_the_guest_is_counted() -> None:
    outcome = taken()
    assert [case.outcome for case in outcome.cases] == ["passed", "failed", "failed", "skipped"]
    assert outcome.cases[1].name == "test_1_driver: test_bad"
    assert outcome.cases[1].message == "because"
    assert not outcome.passed


def test_nothing_run_is_no_pass() -> None:
    assert not Outcome().passed


def test_what_goes_to_the_guest() -> None:
    with tarfile.open(fileobj=io.BytesIO(suite._packed(suite.load("smoke")))) as archive:
        names = archive.getnames()
    assert {"conftest.py", "adapter.py", "kernellog.py", "pattern.py", "pytest.ini", "smoke/suite.toml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert not [name for name in names if name.startswith("hba")]


def test_our_own_code_goes_to_the_guest_when_a_suite_asks_for_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(suite._packed(suite.load("host-devices")))) as archive:
        names = archive.getnames()
    assert {"hba/__main__.py", "hba/server/assemble.py", "host-devices/suite.toml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_the_report_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    junit.write(taken().junit, tmp_path / "new" / "report.xml")
    assert b"test_late" in (tmp_path / "new" / "report.xml").read_bytes()


def test_the_verdict_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = taken()
    verdict.print_outcome(suite.load("smoke"), outcome, 12.0)
    seen = Seen("one", "storport", "native", 1234, 5 << 20, 512, 7, counts={"MB-05": 2})
    seen.storage_errors.append("unit 0:0:0 (disk.img): storage errors: 3, the latest: No space left on device")
    group = Group("one", Finding("MB-05", "violation", "touched [it]", "mine.py:3"), "test_x", 2)
    verdict.print_seen(seen, [group])
    verdict.print_last(suite.load("smoke"), outcome)
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == (
        "FAIL smoke: 1 passed, 2 failed, 1 skipped; failed: test_1_driver: test_bad, test_1_driver: test_late"
    )
    assert "because" in said
    assert "1,234" in said and "5.0 MiB" in said and "violation MB-05: touched [it] at mine.py:3 (2 x)" in said
    assert "the latest: No space left on device" in said


def test_findings_make_the_verdict_red() -> None:
    outcome = Outcome([Case("test_1: test_x", "passed")])
    assert outcome.passed
    outcome.add(
        "verifier", verdict.cases([Group("one", Finding("MB-05", "violation", "touched"), "test_x")], "violation")
    )
    assert not outcome.passed
    assert outcome.count("failed") == 1
    assert outcome.junit.find("testsuite[@name='verifier']/testcase/failure") is not None


def test_the_tests_of_the_guest_as_they_come() -> None:
    shown: list[str] = []
    begun: list[str] = []
    feed = suite._lines(shown.append, begun.append)
    for piece in (
        b"collected 2 items\n\nsmoke/test_1.py::test_a[x y] ",
        b"PASSED [ 50%]\nsmoke/test_1.py::te",
        b"st_b FAILED\n",
    ):
        feed(piece)
    assert shown == [
        "collected 2 items",
        "",
        "smoke/test_1.py::test_a[x y] PASSED [ 50%]",
        "smoke/test_1.py::test_b FAILED",
    ]
    assert list(dict.fromkeys(begun)) == ["smoke/test_1.py::test_a[x y]", "smoke/test_1.py::test_b"]


def taken() -> Outcome:
    """The guest's report, as a run takes it."""
    outcome = Outcome()
    for _, cases in junit.parse(REPORT):
        outcome.cases += cases
    outcome.junit.extend(part for part, _ in junit.parse(REPORT))
    return outcome
