"""Findings while a suite runs: none is lost, none counted twice, each with the test in which it came."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.control.client import ControlClient
from hba.control.events import EventHub
from hba.control.methods.verifier import plain
from hba.control.parts import Parts
from hba.lab.findings import BEFORE, Findings, failing
from hba.lab.server import Adapter
from tests.control.fakes import serving


def breach(parts: Parts, rule: str = "MB-05", message: str = "touched", severity: str | None = None) -> None:
    """A finding, in the adapter's own thread."""
    verifier = parts.verifier
    assert verifier is not None
    parts.loop.call_from_thread(
        lambda: verifier.report(rule, message, severity=severity, where="my.py:7 in go") and None
    )


def publish(parts: Parts) -> None:
    """As a server does it."""
    assert parts.verifier is not None
    parts.verifier.subscribers.append(lambda finding: parts.events.publish("verifier", plain(finding)))


def test_alike_findings_are_one_with_the_test_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.ctl"
    with serving(path) as parts:
        publish(parts)
        breach(parts, message="before anybody listened")
        settle(path)
        findings = Findings([Adapter("a", tmp_path / "a.sock", path)])
        breach(parts, "MB-01", "at the start")
        settle(path)
        findings.test("t.py::test_one")
        for number in range(3):
            breach(parts, message=f"touched byte {number} of 0x{number:x}f00")
        breach(parts, "ST-01", "odd", severity="warning")
        settle(path)
        findings.test("t.py::test_two")
        breach(parts, message="touched byte 9 of 0x77")
        settle(path)
        groups = findings.end()
    told = [(group.first.rule, group.first.severity, group.count, group.during) for group in groups]
    assert told == [
        ("MB-01", "violation", 1, BEFORE),
        ("MB-05", "violation", 4, "t.py::test_one"),
        ("ST-01", "warning", 1, "t.py::test_one"),
    ]
    assert groups[1].title == "violation MB-05: touched byte 0 of 0x0f00 at my.py:7 in go (4 x)"
    assert "hba explain MB-05" in groups[1].text
    assert [len(failing(groups, level)) for level in ("violation", "warning", "never")] == [2, 3, 0]


def test_what_was_lost_on_the_way_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.ctl"
    with serving(path) as parts:  # which publishes nothing: all is lost
        findings = Findings([Adapter("a", tmp_path / "a.sock", path)])
        for _ in range(5):
            breach(parts)
        settle(path)
        (group,) = findings.end()
    assert (group.count, group.first.severity, group.first.rule) == (5, "violation", "")
    assert failing([group], "violation")


def test_a_connection_that_was_given_up_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.ctl"
    hub = EventHub()
    with serving(path, events=hub) as parts:
        publish(parts)
        findings = Findings([Adapter("a", tmp_path / "a.sock", path)])
        findings._listeners[0].close()
        breach(parts)
        settle(path)
        findings.test("t.py::test_one")
        breach(parts, "MB-01", "later")
        settle(path)
        groups = findings.end()
    assert sum(group.count for group in groups) == 2
    assert {group.first.rule for group in groups} == {"", "MB-01"}


def settle(path: Path) -> None:
    """What was asked of the adapter's thread has been done."""
    with ControlClient(path) as client:
        client.call("show.verifier", limit=0)


@pytest.mark.parametrize("level", ["violation", "warning", "never"])
def test_no_adapter_of_ours(level: str) -> None:
    assert Findings([]).end() == []
