"""A suite's results as JUnit XML: pytest's own for the guest's half, and a `testsuite` for each of ours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from hba.errors import GuestError, StorageError
from hba.lab.case import Case

# What XML 1.0 (section 2.2) has no place for.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse(report: bytes) -> list[tuple[ElementTree.Element, list[Case]]]:
    """The suites of pytest's report, each with its cases. `GuestError` when it is none."""
    try:
        root = ElementTree.fromstring(report)
    except ElementTree.ParseError as error:
        raise GuestError(f"the suite's report is no XML: {error}") from error
    return [(suite, [_case(element) for element in suite.iter("testcase")]) for suite in root.iter("testsuite")]


def _case(element: ElementTree.Element) -> Case:
    where = re.sub(r"^.*\.", "", element.get("classname", ""))
    case = Case(f"{where}: {element.get('name', '?')}", "passed", float(element.get("time", "0") or 0))
    for child in element:
        if child.tag in ("failure", "error"):
            case.outcome, case.message, case.details = "failed", child.get("message", ""), child.text or ""
        elif child.tag == "skipped" and case.outcome == "passed":
            case.outcome, case.message = "skipped", child.get("message", "")
    return case


def add(report: ElementTree.Element, name: str, cases: Sequence[Case]) -> None:
    """A suite of our own cases."""
    suite = ElementTree.SubElement(report, "testsuite", name=name)
    for case in cases:
        title = case.name.removeprefix(f"{name}: ")
        element = ElementTree.SubElement(
            suite, "testcase", classname=name, name=_text(title), time=f"{case.seconds:.3f}"
        )
        if case.outcome == "failed":
            ElementTree.SubElement(element, "failure", message=_text(case.message)).text = _text(case.text)
        elif case.outcome == "skipped":
            ElementTree.SubElement(element, "skipped", message=_text(case.message))
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.outcome == "failed" for case in cases)))
    suite.set("skipped", str(sum(case.outcome == "skipped" for case in cases)))
    suite.set("errors", "0")


def describe(report: ElementTree.Element, facts: Mapping[str, str]) -> None:
    """Say in every suite what it was run on."""
    for suite in report.iter("testsuite"):
        properties = suite.find("properties")
        if properties is None:
            properties = ElementTree.Element("properties")
            suite.insert(0, properties)
        for name, value in facts.items():
            ElementTree.SubElement(properties, "property", name=name, value=_text(value))


def write(report: ElementTree.Element, path: Path) -> None:
    """Write the report to `path`, whose folder is made."""
    ElementTree.indent(report)
    write_text(path, ElementTree.tostring(report, encoding="unicode", xml_declaration=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a report of any kind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: the report cannot be written: {error.strerror}; name another file") from error


def _text(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
