"""Both port models under a real guest: what the recorded trace shows, and what the verifier finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hba.cli.trace import Line, read
from hba.control.client import ControlClient
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress
from hba.miniport.examples import naughty
from hba.trace.invariants import nothing_lost, overlap, scsiport_dispatch

pytestmark = pytest.mark.qemu

FIO = (
    "fio --name=x --filename=/dev/sda --direct=1 --rw=randrw --bs=4k --iodepth=16 --ioengine=libaio --numjobs=2 "
    "--size=16m --offset_increment=16m --io_size=2m --verify=crc32c --verify_fatal=1 "
    "--group_reporting --output-format=terse"
)
MIXED = (
    "fio --name=x --filename=/dev/sda --direct=1 --rw=randrw --bssplit=4k/50:64k/30:512k/20 --iodepth=16 "
    "--ioengine=libaio --numjobs=2 --size=24m --io_size=8m --group_reporting --output-format=terse"
)


@contextmanager
def guest(
    folder: Path, model: str, *, extra: str = "", storage: str = "", machine: str = "pc"
) -> Iterator[tuple[Experiment, ControlClient]]:
    """A running guest whose adapter is traced; the disk is /dev/sda."""
    disk = folder / "disk.img"
    config = folder / "hba.toml"
    config.write_text(
        f"""
[[adapter]]
name = "models"
type = "pvscsi"
port = "{model}"
{extra}
[adapter.trace]
enabled = true
keep = 2000000
[[adapter.lun]]
target = 0
lun = 0
type = "disk"
[adapter.lun.storage]
kind = "file"
path = "{disk}"
size = "64M"
create = true
{storage}
"""
    )
    with Experiment(Options(config=config, machine=machine), Progress()) as experiment:
        experiment.start()
        with ControlClient(experiment.adapters[0].control) as control:
            yield experiment, control


def run(experiment: Experiment, command: str) -> str:
    """Run a command in the guest; its output. Fails with it when it fails."""
    result = experiment.guest.agent.exec(["sh", "-c", command], timeout=300)
    output = (result.stdout + result.stderr).decode(errors="replace")
    assert result.code == 0, output
    return output


def traced(control: ControlClient) -> list[Line]:
    """The whole trace of an adapter at rest."""
    lines = list(read(control))
    assert lines[0][0] <= lines[-1][0]
    return lines


def test_scsiport_starts_one_request_between_two_nexts(tmp_path: Path) -> None:
    with guest(tmp_path, "scsiport") as (experiment, control):
        run(experiment, FIO)
        events = traced(control)
        findings = control.call("show.verifier")
    assert overlap(events).started > 1000
    assert [kind for _, kind, _, _ in events].count("isr.enter") > 0
    assert scsiport_dispatch(events) == []
    assert nothing_lost(events, ended=False) == []
    assert findings["severities"].get("violation", 0) == 0, findings


def test_storport_overlaps_requests_and_completes_them_out_of_order(tmp_path: Path) -> None:
    # O_DIRECT on the host: every request waits for the disk, so long ones are overtaken by short ones.
    with guest(tmp_path, "storport", storage="direct = true") as (experiment, control):
        run(experiment, MIXED)
        events = traced(control)
        findings = control.call("show.verifier")
    found = overlap(events)
    assert found.started > 300
    assert found.deepest >= 2
    assert found.out_of_order > 0
    assert nothing_lost(events, ended=False) == []
    assert findings["severities"].get("violation", 0) == 0, findings


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_the_good_example_has_no_findings(tmp_path: Path, model: str) -> None:
    extra = 'miniport = "hba.miniport.examples.good:GoodMiniport"'
    with guest(tmp_path, model, extra=extra) as (experiment, control):
        run(experiment, FIO)
        findings = control.call("show.verifier")
    ours = {rule for rule in findings["counts"] if not rule.startswith("GD-")}
    assert ours == set(), findings


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_the_naughty_example_has_exactly_its_findings(tmp_path: Path, model: str) -> None:
    extra = 'miniport = "hba.miniport.examples.naughty:NaughtyMiniport"\n[adapter.miniport_options]\nevery = 10'
    with guest(tmp_path, model, extra=extra) as (experiment, control):
        run(experiment, FIO)
        findings = control.call("show.verifier")
    ours = {rule for rule in findings["counts"] if not rule.startswith("GD-")}
    assert ours == naughty.expected(model), findings


PATTERN = """
import os
data = bytes(range(256)) * 256
fd = os.open("/dev/sda", os.O_RDWR | os.O_DSYNC)
os.pwrite(fd, data, 1 << 20)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
assert os.pread(fd, len(data), 1 << 20) == data
"""


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_a_guest_whose_memory_is_not_shared(tmp_path: Path, model: str) -> None:
    """All DMA goes by message; the bytes are checked in the guest and in the file."""
    with guest(tmp_path, model, machine="pc-private") as (experiment, control):
        result = experiment.guest.agent.exec(["python3", "-c", PATTERN], timeout=120)
        assert result.code == 0, result.stderr.decode()
        counters = control.call("show.counters")["vfio_user"]
        findings = control.call("show.verifier")
    assert counters["dma_reads"] > 0
    assert counters["dma_writes"] > 0
    assert counters["dma_faults"] == 0
    assert findings["severities"].get("violation", 0) == 0, findings
    assert (tmp_path / "disk.img").read_bytes()[1 << 20 : (1 << 20) + 65536] == bytes(range(256)) * 256
