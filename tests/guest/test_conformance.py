"""Other people's tests pass inside a real guest: libiscsi's, sg3_utils, and everyday tools.

`docs/conformance.md` says what each suite asks and why what is skipped is skipped.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hba.lab import paths
from tests.guest.launching import Launch

pytestmark = pytest.mark.qemu

# Kept after the run, for people and for CI; not under version control.
RESULTS = paths.PROJECT / "results"

# Hundreds of processes in an emulated guest take minutes: one model by default, both with HBA_FULL=1. The smoke suite
# always runs under both.
MODELS = ["storport", "scsiport"] if os.environ.get("HBA_FULL") else ["storport"]

# Skips of libiscsi's tests, by the reason the tool gives; docs/conformance.md explains them.
ACCEPTABLE_SKIPS = re.compile(
    r"Not an iSCSI device|Multipath unavailable|(Logical unit|LUN|Media) is not removable|"
    r"Logical unit is not write-protected|--dataloss flag is not set|the tool crashes on any /dev/sg|"
    r"SANITIZE CRYPTO_ERASE is not implemented|BLK_TO_BLK_OFF_SEG_DESCR not supported|LBPPB < 2|"
    r"No alignment restrictions|WRITESAME1[06] does not support 0-blocks|wants reserved power conditions"
)


def report_of(folder: Path, suite: str, port_model: str, timeout: float) -> list[ElementTree.Element]:
    """Run a suite that must pass; its cases."""
    report = RESULTS / f"{suite}-{port_model}.xml"
    arguments = ("--suite", suite, "--port-model", port_model, "--fail-on", "violation", "--junit", os.fspath(report))
    launch = Launch(folder, *arguments)
    try:
        code = launch.wait(timeout)
        assert code == 0, launch.said()
        assert launch.left_behind() == []
        return list(ElementTree.parse(report).getroot().iter("testcase"))
    finally:
        launch.close()


@pytest.mark.parametrize("port_model", MODELS)
@pytest.mark.parametrize("suite", ["sg3", "tools"])
def test_nothing_fails_and_nothing_is_skipped(tmp_path: Path, suite: str, port_model: str) -> None:
    cases = report_of(tmp_path, suite, port_model, 1800)
    assert len(cases) >= 20
    assert not [case.get("name") for case in cases if case.find("skipped") is not None]


@pytest.mark.parametrize("port_model", MODELS)
def test_libiscsi(tmp_path: Path, port_model: str) -> None:
    cases = report_of(tmp_path, "libiscsi", port_model, 3600)
    skips = {case.get("name"): case.find("skipped") for case in cases}
    strange = {
        name: skip.get("message")
        for name, skip in skips.items()
        if skip is not None and not ACCEPTABLE_SKIPS.search(skip.get("message", ""))
    }
    assert not strange
    passed: set[str] = set()
    for case in cases:
        found = re.fullmatch(r"test_scsi\[\w+-(SCSI\..+)\]", case.get("name", ""))
        if found and skips[case.get("name")] is None:
            passed.add(found[1])
    assert len(passed) >= 140
