"""`hba bench --guest`: what it asks for, what it makes of the answers, and once, short, the whole of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hba import compiled
from hba.bench import guest
from hba.cli.results import OUTPUTS
from hba.contract import versioned
from hba.errors import ConfigError, GuestError
from hba.lab.agent import Result
from tests.contract.checker import Checker

CONFIG = """
[[adapter]]
type = "pvscsi"
name = "mine"
port = "scsiport"
poll = { window = 500 }
[[adapter.lun]]
storage = { kind = "memory", size = "1M" }
"""


class Fio:
    """A guest with an agent that answers as fio does."""

    def __init__(self, output: str) -> None:
        self.agent = self
        self.output = output
        self.asked: list[str] = []

    def exec(self, argv: list[str], **_options: Any) -> Result:
        self.asked = argv
        return Result(0, self.output.encode(), b"")


def bench(output: str) -> tuple[Any, Fio]:
    made: Any = guest._Bench.__new__(guest._Bench)
    made._guest = fio = Fio(output)
    return made, fio


def said(direction: str, iops: float, total: int) -> str:
    return "fio: some warning\n" + json.dumps({"jobs": [{direction: {"iops": iops, "total_ios": total}}]})


@pytest.mark.parametrize("job", guest.JOBS, ids=lambda job: job.name)
def test_a_job_is_what_its_name_says(job: guest.Job) -> None:
    made, fio = bench(said("write" if job.writes else "read", 1234.5, 99))
    assert made._fio(job, "/dev/sdx", 2.0) == 1234.5
    size, depth = job.name.split(" ")[0], job.name.rsplit(" ", 1)[1]
    assert f"--bs={int(size) << 10}" in fio.asked
    assert f"--iodepth={depth}" in fio.asked
    assert f"--rw={'randwrite' if 'writes' in job.name else 'randread'}" in fio.asked
    assert "--filename=/dev/sdx" in fio.asked


@pytest.mark.parametrize(
    ("output", "words"),
    [("", "nobody understands"), ("{}", "nobody understands"), (said("read", 0, 0), "did nothing")],
)
def test_a_fio_that_fails_is_an_error_of_the_guest(output: str, words: str) -> None:
    made, _ = bench(output)
    with pytest.raises(GuestError, match=words):
        made._fio(guest.JOBS[0], "/dev/sdx", 2.0)


def test_a_side_tells_medians() -> None:
    side = guest.Side(rates=[1.0, 9.0, 2.0], kicks=[0.5, 0.1, 0.2])
    result = side.result()
    assert result["commands_per_s"] == 2.0
    assert result["kicks_per_command"] == 0.2
    assert result["server_cpu_us_per_command"] is None


def test_the_adapter_is_the_first_of_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG)
    adapter = guest.adapter_of(path)
    assert adapter["port"] == "scsiport"
    assert adapter["poll"] == {"window": 500}
    path.write_text(CONFIG.replace("window", "widow"))
    with pytest.raises(ConfigError, match="window"):
        guest.adapter_of(path)


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--guest", "no-file"], "configuration file"), (["--guest", "--rounds", "3"], "rounds")]
)
def test_what_it_does_not_take_is_said(arguments: list[str], words: str) -> None:
    ran = subprocess.run([sys.executable, "-m", "hba", "bench", *arguments], capture_output=True, text=True)
    assert ran.returncode == 2
    assert words in ran.stderr


@pytest.mark.qemu
@pytest.mark.parametrize("port", ["storport", "scsiport"])
def test_both_devices_are_measured_in_one_guest(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "JOBS", guest.JOBS[1:4:2])
    report = guest.measure(adapter={"port": port}, size=16 << 20, rounds=2, seconds=0.5)
    assert report["port"] == port
    assert report["compiled"] == compiled.in_use()
    assert [case["depth"] for case in report["cases"]] == [32, 32]
    for case in report["cases"]:
        assert len(case["adapter"]["rates"]) == len(case["qemu"]["rates"]) == 2
        assert case["ratio"] > 0
        assert 0 < case["adapter"]["kicks_per_command"] <= 1.5
        assert 0 < case["adapter"]["interrupts_per_command"] <= 1.5
        assert case["qemu"]["kicks_per_command"] is None
    Checker().output(versioned(report), OUTPUTS["hba bench --guest"].kind)
