"""Reports of a run, read back with somebody else's eyes: JUnit as XML, KTAP by its rules, artifacts as files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.errors import GuestError, StorageError
from hba.lab import junit, ktap, verdict
from hba.lab.case import Case
from hba.lab.findings import Finding, Group

GROUP = Group(
    "lab-1",
    Finding("MB-05", "violation", "touched [it]", "mine.py:7 in hw_start_io", "#3 READ(10)", ["submitted", "started"]),
    "smoke/test_2.py::test_x",
    44,
)
TEXTS = st.text(max_size=60)
CASES = st.lists(st.builds(Case, TEXTS, st.sampled_from(["passed", "failed", "skipped"]), st.just(0.5), TEXTS, TEXTS))


def test_findings_are_failures_that_name_the_rule_the_place_and_the_count() -> None:
    (case,) = verdict.cases([GROUP], "violation")
    report = ElementTree.Element("testsuites")
    junit.add(report, "verifier", [case])
    (suite,) = report
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    failure = suite.find("testcase/failure")
    assert failure is not None
    said = f"{failure.get('message')}\n{failure.text}"
    for part in (
        "MB-05",
        "touched [it]",
        "mine.py:7 in hw_start_io",
        "44 x",
        "test_2.py::test_x",
        "#3 READ(10)",
        "started",
    ):
        assert part in said
    assert verdict.cases([GROUP], "never") == []


@given(CASES)
def test_any_text_makes_a_report_that_can_be_read(cases: list[Case]) -> None:
    report = ElementTree.Element("testsuites")
    junit.add(report, "host", cases)
    again = ElementTree.fromstring(ElementTree.tostring(report))
    assert len(list(again.iter("testcase"))) == len(cases)
    assert len(list(again.iter("failure"))) == sum(case.outcome == "failed" for case in cases)


@given(TEXTS, CASES, st.booleans())
def test_ktap_by_its_rules(name: str, cases: list[Case], passed: bool) -> None:
    lines = ktap.render(name, cases, passed).splitlines()
    assert lines[:3] == ["KTAP version 1", "1..1", "  KTAP version 1"]
    assert lines[4] == f"  1..{len(cases)}"
    results = [match for line in lines if (match := re.fullmatch(r"  (ok|not ok) (\d+)( [^#]*)?( ?# SKIP.*)?", line))]
    assert [match[2] for match in results] == [str(number) for number in range(1, len(cases) + 1)]
    assert [match[1] == "not ok" for match in results] == [case.outcome == "failed" for case in cases]
    assert [match[4] is not None for match in results] == [case.outcome == "skipped" for case in cases]
    assert lines[-1].startswith("ok 1" if passed else "not ok 1")
    others = {id(line) for line in lines[5:-1]} - {id(match.string) for match in results}
    assert all(line.startswith("  # ") for line in lines[5:-1] if id(line) in others)


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        junit.write_text(tmp_path / "file" / "x", "")


@pytest.mark.parametrize("report", [b"", b"<testsuite", b"\xff\0"])
def test_a_broken_report(report: bytes) -> None:
    with pytest.raises(GuestError, match="no XML"):
        junit.parse(report)
