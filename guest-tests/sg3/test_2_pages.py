"""Mode pages and log pages."""

from __future__ import annotations

import re
import subprocess

import sg


def test_all_mode_pages(disk):
    said = sg.run("sg_modes", "--all", disk.generic)
    for page in ("Read-Write error recovery", "Caching", "Control", "Informational exceptions"):
        assert f">> {page}" in said, said
    block_size = disk.expected["block_size"]
    assert f"WP={int(disk.expected['read_only'])}" in said
    descriptor = re.search(r"Density code=0x0\n 00((?: +[0-9a-f]{2}){8})", said)
    assert descriptor and int("".join(descriptor[1].split()[5:]), 16) == block_size


def test_changeable_default_and_saved_values(disk):
    for control in ("current", 1, 2, 3):
        number = 0 if control == "current" else control
        said = sg.run("sg_modes", "--all", f"--control={number}", disk.generic)
        assert ">> Caching" in said


def test_the_cache_can_be_switched(disk):
    """The guest changes WCE, reads it back, and the kernel sees it."""

    def enabled() -> bool:
        raw = sg.run_binary("sg_modes", "--raw", "--dbd", "--page=8", disk.generic)
        return bool(raw[8 + 2] & 0x04)

    def switch(on: bool) -> None:
        page = bytearray(sg.run_binary("sg_modes", "--raw", "--dbd", "--page=8", disk.generic)[8:28])
        page[0] &= 0x3F
        page[2] = (page[2] & ~0x04) | (0x04 if on else 0)
        sg.run("sg_wr_mode", "--page=8", "--contents=" + ",".join(f"{byte:x}" for byte in page), disk.generic)

    before = enabled()
    for on in (not before, before):
        switch(on)
        assert enabled() == on
        data = bytes([on + 1]) * 4096
        disk.write(0, data)
        assert disk.read(0, 4096) == data
    # What may not be changed is refused: the whole page with one bit of what is not changeable.
    page = bytearray(sg.run_binary("sg_modes", "--raw", "--dbd", "--page=8", disk.generic)[8:28])
    page[0] &= 0x3F
    page[2] ^= 0x40
    contents = ",".join(f"{byte:x}" for byte in page)
    sg.run("sg_wr_mode", "--page=8", f"--contents={contents}", disk.generic, code=sg.ILLEGAL_REQUEST)


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
