"""The whole path: `launch --suite smoke` with a real guest, for both port models."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hba.lab import paths
from tests.engines import require
from tests.guest.launching import Launch

pytestmark = pytest.mark.qemu

# Kept after the run, for people and for CI; not under version control.
RESULTS = paths.PROJECT / "results"


@pytest.mark.parametrize(
    ("port_model", "machine"),
    [("scsiport", "pc"), ("storport", "pc"), ("storport", "q35")],
)
def test_the_smoke_suite_passes(tmp_path: Path, port_model: str, machine: str) -> None:
    report = RESULTS / f"smoke-{port_model}-{machine}.xml"
    run(
        tmp_path,
        report,
        *("--port-model", port_model, "--machine", machine, "--fail-on", "violation"),
    )


@pytest.mark.parametrize("port_model", ["scsiport", "storport"])
def test_the_smoke_suite_passes_below_the_class_driver(tmp_path: Path, port_model: str) -> None:
    """With what disk.sys does between the guest and the port."""
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 << 20)  # what the suite asks for
    config = tmp_path / "config.toml"
    config.write_text(
        f"[[adapter]]\ntype = 'pvscsi'\nname = 'smoke-{port_model}'\nport = '{port_model}'\n"
        f"socket = '{tmp_path}/adapter.sock'\nclass_driver = {{ enabled = true }}\n"
        f"[[adapter.lun]]\nstorage = {{ kind = 'file', path = '{disk}' }}\n"
    )
    run(tmp_path, tmp_path / "report.xml", "--config", os.fspath(config), "--fail-on", "violation")


@pytest.mark.parametrize("port_model", ["scsiport", "storport"])
def test_the_smoke_suite_passes_with_the_other_engine(tmp_path: Path, port_model: str) -> None:
    require("libvfio-user")
    run(tmp_path, tmp_path / "report.xml", "--port-model", port_model, "--engine", "libvfio-user")


def test_the_smoke_suite_passes_on_the_peer(tmp_path: Path) -> None:
    """What the suite asks is what QEMU's own PVSCSI model gives, too."""
    run(tmp_path, tmp_path / "report.xml", "--device", "builtin-pvscsi")


def run(folder: Path, report: Path, *arguments: str) -> None:
    launch = Launch(folder, "--suite", "smoke", "--junit", os.fspath(report), *arguments)
    try:
        code = launch.wait(900)
        assert code == 0, launch.said()
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        assert len(cases) >= 17
        assert not [case.get("name") for case in cases if case.find("skipped") is not None]
        assert launch.left_behind() == []
    finally:
        launch.close()
