"""Programs that only look."""

from __future__ import annotations

import re
from pathlib import Path


def test_smartctl(disk, run):
    said = run("smartctl", "--all", disk.node)
    expected = disk.expected
    for line in (
        rf"Vendor: +{expected['vendor']}$",
        rf"Product: +{expected['product']}$",
        rf"Serial number: +{expected['serial']}$",
        rf"User Capacity: +{expected['size']:,} bytes",
        rf"Logical block size: +{expected['block_size']} bytes",
        "LU is thin provisioned, LBPRZ=1",
        "SMART Health Status: OK",
        r"Current Drive Temperature: +\d+ C",
        r"Percentage used endurance indicator: \d+%",
        r"^read: .* 0$",
        r"^write: .* 0$",
    ):
        assert re.search(line, said, re.MULTILINE), f"no {line!r} in\n{said}"


def test_smartctl_self_test(disk, run):
    run("smartctl", "--test=short", disk.node)
    said = run("smartctl", "--log=selftest", disk.node)
    assert "Background short" in said and "Completed" in said, said


def test_lsscsi(disk, run):
    lines = [line.split() for line in run("lsscsi", "--generic").splitlines()]
    mine = next(words for words in lines if words[-2] == disk.node)
    assert mine[-1] == disk.generic
    assert mine[0].strip("[]").split(":")[2:] == [str(disk.target), str(disk.lun)]
    assert mine[1] == "disk" and mine[2] == disk.expected["vendor"]
    long = run("lsscsi", "--size", "--protection", "--long")
    assert "state=running" in long


def test_hdparm(disk, run):
    assert "readonly      =  0 (off)" in run("hdparm", disk.node)
    sectors = disk.expected["size"] // 512
    assert f"sectors = {sectors}" in run("hdparm", "-g", disk.node)
    said = run("hdparm", "-t", "--direct", disk.node)
    assert float(re.search(r"= +([\d.]+) [kM]B/sec", said)[1]) > 0


def test_udev_names_it(disk):
    names = {path.name for path in Path("/dev/disk/by-id").iterdir() if path.resolve() == Path(disk.node)}
    assert any(name.startswith("wwn-0x") for name in names), names
    assert any(disk.expected["serial"] in name or name.startswith("scsi-") for name in names), names


def test_the_kernel_knows_its_features(disk):
    queue = Path(disk.udev.sys_path, "queue")

    def number(name: str) -> int:
        return int((queue / name).read_text())

    assert number("rotational") == 0
    assert number("discard_max_bytes") > 0 and number("discard_granularity") >= 4096
    assert number("write_zeroes_max_bytes") > 0
    assert (queue / "write_cache").read_text().strip() == "write back"
    assert number("fua") == 1
