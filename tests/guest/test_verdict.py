"""What a run says at its end cannot be misread: findings of the verifier are failures, by name, in every report."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.guest.launching import Launch

pytestmark = pytest.mark.qemu

NAUGHTY = """
[[adapter]]
type = "pvscsi"
name = "lab-1"
socket = "lab-1.sock"
port = "storport"
miniport = "hba.miniport.examples.naughty:NaughtyMiniport"
[adapter.miniport_options]
rules = ["MB-05"]
every = 10
[adapter.trace]
enabled = true
[[adapter.lun]]
storage = { kind = "memory", size = "64M" }
"""
EMPTY_DRIVE = """
[[adapter]]
type = "pvscsi"
name = "lab-1"
socket = "lab-1.sock"
[[adapter.lun]]
storage = { kind = "file", path = "disk.img", size = "64M", create = true }
[[adapter.lun]]
target = 1
type = "cdrom"
"""


def launch(folder: Path, config: str, *arguments: str) -> tuple[int, str]:
    """Exit code, and all that was said."""
    file = folder / "config.toml"
    file.write_text(config.replace('"lab-1.sock"', f'"{folder}/lab-1.sock"'))
    run = Launch(folder, "--config", os.fspath(file), "--suite", "smoke", *arguments)
    try:
        code = run.wait(900)
        assert run.left_behind() == []
        return code, run.said()
    finally:
        run.close()


def test_a_naughty_miniport_is_red_everywhere(tmp_path: Path) -> None:
    reports = ("--junit", f"{tmp_path}/junit.xml", "--ktap", f"{tmp_path}/ktap", "--artifacts", f"{tmp_path}/kept")
    code, said = launch(tmp_path, NAUGHTY, "-k", "test_1_driver", *reports)
    assert code == 1, said
    assert said.splitlines()[-1].startswith("FAIL smoke: "), said
    assert "PASS" not in said.replace("PASSED", "")
    (suite,) = (
        suite
        for suite in ElementTree.parse(tmp_path / "junit.xml").iter("testsuite")
        if suite.get("name") == "verifier"
    )
    failures = list(suite.iter("failure"))
    assert len(failures) == int(suite.get("failures", "0")) > 0
    for failure in failures:
        text = f"{failure.get('message')}\n{failure.text}"
        assert "MB-05" in text and "naughty.py:" in text and "during" in text
    ktap = (tmp_path / "ktap").read_text()
    assert "not ok 1 smoke" in ktap and "verifier: MB-05" in ktap
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    wanted = {"console.log", "kernel.log", "server.log", "findings.json", "trace-lab-1.json", "commands.txt"}
    assert wanted <= kept
    found = json.loads((tmp_path / "kept" / "findings.json").read_text())
    assert sum(group["count"] for group in found if group["first"]["rule"] == "MB-05") > 1
    assert json.loads((tmp_path / "kept" / "trace-lab-1.json").read_text())
    assert "qemu" in (tmp_path / "kept" / "commands.txt").read_text()


def test_an_empty_drive_is_no_disk_that_is_missing(tmp_path: Path) -> None:
    code, said = launch(tmp_path, EMPTY_DRIVE)
    assert code == 0, said
    assert said.splitlines()[-1].startswith("PASS smoke: "), said


def test_a_selection_of_nothing_costs_no_boot(tmp_path: Path) -> None:
    code, said = launch(tmp_path, EMPTY_DRIVE, "-k", "test_unbind_and_bnd")
    assert code == 2
    assert 'did you mean "test_unbind_and_bind"?' in said
    assert "booting" not in said


def test_memory_that_only_seems_to_be_shared(tmp_path: Path) -> None:
    """`share=off`: the file behind the descriptor never sees what the guest writes. It works, and is told why slow."""
    words = ("-object", "memory-backend-memfd,id=ram,size=768M,share=off", "-machine", "memory-backend=ram")
    options = ("--machine", "pc-private", "-k", "test_2_disks", "--artifacts", f"{tmp_path}/kept")
    code, said = launch(tmp_path, EMPTY_DRIVE, *options, "--", *words)
    assert code == 0, said
    assert "share=on" in (tmp_path / "kept" / "server.log").read_text()
