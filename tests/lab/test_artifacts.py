"""What is kept of runs: the newest, where nobody asked for a folder; all there is, where somebody did."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hba.errors import HbaError
from hba.lab.artifacts import RUNS, Artifacts
from hba.lab.experiment import Experiment
from hba.lab.observe import Seen
from tests.lab.test_reports import GROUP


def experiment(folder: Path) -> Experiment:
    """One whose guest has died."""
    folder.mkdir(exist_ok=True)
    (folder / "console.log").write_text("panic")

    class Dead(SimpleNamespace):
        @property
        def guest(self) -> object:
            raise HbaError("it has died")

    return cast(Experiment, Dead(folder=folder, adapters=[], commands=[["hba", "serve"], ["qemu", "-m", "1 G"]]))


def test_what_there_is_of_a_guest_that_died(tmp_path: Path) -> None:
    kept = Artifacts(tmp_path / "kept", tmp_path / "runs")
    assert kept.keep(experiment(tmp_path / "x")) == ["commands.txt", "console.log"]
    assert "qemu -m '1 G'" in (tmp_path / "kept" / "commands.txt").read_text()
    assert not (tmp_path / "runs").exists()


def test_what_was_found(tmp_path: Path) -> None:
    seen = Seen("lab-1", "storport", "native", 1, 2, 3, 4, everything={"summary": {"name": "lab-1"}})
    names = Artifacts(tmp_path / "kept", tmp_path).keep(experiment(tmp_path / "x"), [seen], [GROUP])
    assert {"findings.json", "adapters.json"} <= set(names)
    assert "MB-05" in (tmp_path / "kept" / "findings.json").read_text()


def test_the_newest_runs_stay(tmp_path: Path) -> None:
    base = tmp_path / "runs"
    for number in range(RUNS + 3):
        (base / f"run-20000101-000000-{number:06}").mkdir(parents=True)
    run = Artifacts(None, base)
    run.keep(experiment(tmp_path / "x"))
    names = sorted(path.name for path in base.iterdir())
    assert len(names) == RUNS
    assert names[-1] == run.folder.name
    assert names[0] == "run-20000101-000000-000004"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HbaError, match="cannot be written"):
        Artifacts(tmp_path / "file" / "x", tmp_path).keep(experiment(tmp_path / "x"))
