"""SANITIZE and FORMAT UNIT: nothing of what was there is left. Last, since they leave an empty disk."""

from __future__ import annotations

import os

import pytest
import sg

MIB = 1 << 20


@pytest.fixture
def filled(disk):
    """The disk with something at its start, in its middle and at its end; where."""
    places = [0, disk.expected["size"] // 2, disk.expected["size"] - MIB]
    for place in places:
        disk.write(place, os.urandom(MIB))
    return places


# udev may look at the disk while it is being sanitized or formatted. It is NOT READY then, as SBC has it, and the
# kernel logs that.
pytestmark = pytest.mark.expects_kernel_messages(
    r"Read Capacity\(1[06]\) failed|Sense Key : Not Ready|Add\. Sense: .*(sanitize|format|in progress)"
)


def sanitize(disk, *arguments: str) -> None:
    sg.run("sg_sanitize", "--quick", "--wait", *arguments, disk.generic)


def test_sanitize_overwrite(disk, filled, tmp_path):
    block = disk.expected["block_size"]
    pattern = tmp_path / "pattern"
    pattern.write_bytes(b"\x5a\xa5\x0f\xf0" * (block // 4))
    sanitize(disk, "--overwrite", f"--pattern={pattern}", f"--ipl={block}")
    for place in filled:
        assert disk.read(place, MIB) == b"\x5a\xa5\x0f\xf0" * (MIB // 4)


def test_sanitize_overwrite_inverts(disk, filled):
    sanitize(disk, "--overwrite", "--zero", "--invert", "--count=2")
    found = disk.read(filled[1], MIB)
    assert found in (bytes(MIB), b"\xff" * MIB)
    assert all(disk.read(place, MIB) == found for place in filled)


def test_sanitize_block_erase(disk, filled):
    sanitize(disk, "--block")
    for place in filled:
        assert disk.read(place, MIB) == bytes(MIB)
    assert {status for _, _, status in sg.extents(disk.generic)} == {1}


def test_sanitize_that_is_polled(disk, filled):
    """With IMMED the program returns at once; TEST UNIT READY tells when it is over."""
    sg.run("sg_sanitize", "--quick", "--early", "--block", disk.generic)
    for _ in range(100):
        said = sg.run("sg_requests", disk.generic)
        if "No Sense" in said or "No additional sense" in said:
            break
    sg.run("sg_turs", "--number=3", disk.generic)
    assert disk.read(filled[0], MIB) == bytes(MIB)


def test_sanitize_by_cryptography_is_refused(disk):
    """Nothing here is encrypted: the command is neither listed nor done."""
    listed = {entry["name"] for entry in sg.ask("sg_opcodes", disk.generic)["all_command_descriptor"]}
    assert "Sanitize, cryptographic erase" not in listed
    sg.run("sg_sanitize", "--quick", "--wait", "--crypto", disk.generic, code=sg.ILLEGAL_REQUEST)


@pytest.mark.parametrize("wait", [["--wait"], []], ids=["wait", "polled"])
def test_format(disk, filled, wait):
    sg.run("sg_format", "--format", "--quick", *wait, disk.generic)
    for place in filled:
        assert disk.read(place, MIB) == bytes(MIB)
    said = sg.run("sg_readcap", disk.generic)
    assert f"Logical block length={disk.expected['block_size']} bytes" in said


def test_format_reports(disk, blocks):
    said = sg.run("sg_format", disk.generic)
    assert f"Number of blocks={blocks}" in said
    assert f"Block size={disk.expected['block_size']}" in said


def test_another_block_size_is_refused(disk):
    other = 4096 if disk.expected["block_size"] == 512 else 512
    sg.run("sg_format", "--format", "--quick", f"--size={other}", disk.generic, code=sg.INVALID_PARAMETER)
    assert f"length={disk.expected['block_size']} bytes" in sg.run("sg_readcap", disk.generic)
