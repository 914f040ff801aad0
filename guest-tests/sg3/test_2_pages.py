"""Mode pages and log pages."""

from __future__ import annotations

import re
import subprocess

import pytest
import sg


def test_all_mode_pages(disk):
    said = sg.run("sg_modes", "--all", disk.generic)
    for page in ("Read-Write error recovery", "Caching", "Control", "Informational exceptions"):
        assert f">> {page}" in said, said
    block_size = disk.expected["block_size"]
    assert f"WP={int(disk.expected['read_only'])}" in said
    descriptor = re.search(r"Density code=0x0\n 00((?: +[0-9a-f]{2}){8})", said)
    assert descriptor and int("".join(descriptor[1].split()[5:]), 16) == block_size


@pytest.mark.parametrize("control", ["current", "changeable", "default"])
def test_values_of_every_kind(disk, control):
    number = ["current", "changeable", "default"].index(control)
    said = sg.run("sg_modes", "--all", f"--control={number}", disk.generic)
    assert f">> Caching, page_control: {control}" in said


def test_saved_values(disk):
    """One disk of the suite has a file for them; the other says that it saves nothing (PS is 0)."""
    page = sg.run_binary("sg_modes", "--raw", "--dbd", "--page=8", disk.generic)
    saves = bool(page[8] & 0x80)
    assert saves == (disk.expected["block_size"] == 512)
    if saves:
        assert ">> Caching, page_control: saved" in sg.run("sg_modes", "--all", "--control=3", disk.generic)
    else:
        sg.run("sg_modes", "--all", "--control=3", disk.generic, code=sg.ILLEGAL_REQUEST)


def test_the_cache_can_be_switched(disk, tmp_path):
    """The guest changes WCE and reads it back. (sg_wr_mode 1.48 understands no contents at all, so by CDB.)"""

    def page() -> bytearray:
        found = bytearray(sg.run_binary("sg_modes", "--raw", "--dbd", "--page=8", disk.generic)[8:28])
        found[0] &= 0x3F
        return found

    def select(contents: bytes, code: int = sg.GOOD) -> None:
        parameters = tmp_path / "parameters"
        parameters.write_bytes(bytes(8) + contents)
        size = 8 + len(contents)
        cdb = f"55 10 00 00 00 00 00 00 {size:02x} 00".split()
        sg.run("sg_raw", f"--send={size}", f"--infile={parameters}", disk.generic, *cdb, code=code)

    before = page()
    for on in (not before[2] & 0x04, bool(before[2] & 0x04)):
        changed = page()
        changed[2] = (changed[2] & ~0x04) | (0x04 if on else 0)
        select(changed)
        assert page() == changed
        data = bytes([on + 1]) * 4096
        disk.write(0, data)
        assert disk.read(0, 4096) == data
    # A bit that cannot be changed is refused, and nothing is changed.
    wrong = page()
    wrong[2] ^= 0x40
    select(wrong, code=sg.INVALID_PARAMETER)
    assert page() == before


def test_all_log_pages(disk):
    listed = sg.run("sg_logs", disk.generic)
    said = sg.run("sg_logs", "--all", disk.generic)
    pages = re.findall(r"^ +0x([0-9a-f]{2}) ", listed, re.MULTILINE)
    assert {"00", "02", "03", "05", "0d", "0e", "10", "11", "2f"} <= set(pages)
    for title in ("Temperature log page", "Start-stop cycle counter", "Solid state media", "Self-test results"):
        assert title in said
    for page in pages:
        sg.run("sg_logs", f"--page=0x{page}", disk.generic)


def test_counters_count(disk):
    def processed() -> int:
        said = sg.run("sg_logs", "--page=0x03", disk.generic)
        return int(re.search(r"Total bytes processed = (\d+)", said)[1])

    before = processed()
    disk.read(0, 1 << 20)
    assert processed() == before + (1 << 20)


def test_self_test(disk):
    sg.run("sg_senddiag", "--test", disk.generic)
    sg.run("sg_senddiag", "--selftest=1", disk.generic)
    assert "0x10" in subprocess.run(["sg_logs", disk.generic], capture_output=True, text=True).stdout
