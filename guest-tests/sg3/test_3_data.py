"""Commands that check, copy, fill, and take away."""

from __future__ import annotations

import os

import pytest
import sg

FIRST, COUNT = 1024, 256  # blocks the tests may use; aligned for any granularity


@pytest.fixture
def data(disk):
    """Known bytes in blocks FIRST ... FIRST + COUNT."""
    size = disk.expected["block_size"]
    content = os.urandom(COUNT * size)
    disk.write(FIRST * size, content)
    return content


@pytest.fixture
def at(disk):
    """What blocks hold now."""
    size = disk.expected["block_size"]
    return lambda first, count: disk.read(first * size, count * size)


@pytest.fixture
def file(tmp_path):
    """A file with these bytes."""

    def make(content: bytes):
        path = tmp_path / "data"
        path.write_bytes(content)
        return path

    return make


@pytest.mark.parametrize("form", [[], ["--16"]], ids=["10", "16"])
def test_verify(disk, data, file, form):
    size = disk.expected["block_size"]
    where = [*form, f"--lba={FIRST}"]
    sg.run("sg_verify", *where, f"--count={COUNT}", disk.generic)
    eight = [*where, "--count=8", f"--ndo={8 * size}"]
    sg.run("sg_verify", *eight, f"--in={file(data[: 8 * size])}", disk.generic)
    wrong = bytearray(data[: 8 * size])
    wrong[-1] ^= 1
    sg.run("sg_verify", *eight, "--quiet", f"--in={file(wrong)}", disk.generic, code=sg.MISCOMPARE)
    # BYTCHK 11b: one block against each.
    same = [*where, "--count=8", f"--ndo={size}", "--ebytchk=3", "--quiet"]
    sg.run("sg_verify", *same, f"--in={file(data[:size])}", disk.generic, code=sg.MISCOMPARE)
    sg.run("sg_write_same", f"--lba={FIRST}", "--num=8", f"--in={file(data[:size])}", disk.generic)
    sg.run("sg_verify", *same, f"--in={file(data[:size])}", disk.generic)


def test_verify_past_the_end(disk, blocks):
    sg.run("sg_verify", f"--lba={blocks - 4}", "--count=4", disk.generic)
    sg.run("sg_verify", f"--lba={blocks - 4}", "--count=5", disk.generic, code=sg.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("form", ["--10", "--16"])
def test_write_same(disk, data, at, file, form):
    size = disk.expected["block_size"]
    block = os.urandom(size)
    sg.run("sg_write_same", form, f"--lba={FIRST + 8}", "--num=64", f"--in={file(block)}", disk.generic)
    assert at(FIRST + 8, 64) == block * 64
    assert at(FIRST, 8) == data[: 8 * size] and at(FIRST + 72, 8) == data[72 * size : 80 * size]
    sg.run("sg_write_same", form, f"--lba={FIRST + 8}", "--num=64", f"--xferlen={size}", disk.generic)
    assert at(FIRST + 8, 64) == bytes(64 * size)


@pytest.mark.parametrize("form", ["--10", "--16"])
def test_write_same_unmaps(disk, data, at, form):
    size = disk.expected["block_size"]
    assert sg.status_of(disk.generic, FIRST, COUNT) == {0}
    sg.run("sg_write_same", form, "--unmap", f"--lba={FIRST}", f"--num={COUNT}", f"--xferlen={size}", disk.generic)
    assert at(FIRST, COUNT) == bytes(COUNT * size)
    assert sg.status_of(disk.generic, FIRST, COUNT) == {1}


def test_write_same_without_data(disk, data, at):
    sg.run("sg_write_same", "--16", "--ndob", f"--lba={FIRST}", f"--num={COUNT}", disk.generic)
    assert at(FIRST, COUNT) == bytes(len(data))


def test_unmap(disk, data, at):
    size = disk.expected["block_size"]
    # Two ranges in one command, with 64 blocks between them that stay.
    lbas, counts = f"{FIRST},{FIRST + 128}", "64,128"
    sg.run("sg_unmap", "--force", f"--lba={lbas}", f"--num={counts}", disk.generic)
    assert at(FIRST, 64) == bytes(64 * size)
    assert at(FIRST + 64, 64) == data[64 * size : 128 * size]
    assert at(FIRST + 128, 128) == bytes(128 * size)
    assert sg.status_of(disk.generic, FIRST, 64) == {1}
    assert sg.status_of(disk.generic, FIRST + 64, 64) == {0}
    assert sg.status_of(disk.generic, FIRST + 128, 128) == {1}


def test_unmap_past_the_end(disk, blocks):
    sg.run("sg_unmap", "--force", f"--lba={blocks - 1}", "--num=2", disk.generic, code=sg.LBA_OUT_OF_RANGE)


def test_compare_and_write(disk, data, at, file):
    size = disk.expected["block_size"]
    old, new = data[:size], os.urandom(size)
    command = ["sg_compare_and_write", "--quiet", f"--lba={FIRST}", "--num=1", f"--xferlen={2 * size}"]
    sg.run(*command, f"--in={file(old + new)}", disk.generic)
    assert at(FIRST, 1) == new
    # The old bytes are not there any more: nothing is written, and the sense data say so.
    sg.run(*command, f"--in={file(old + bytes(size))}", disk.generic, code=sg.MISCOMPARE)
    assert at(FIRST, 1) == new


def test_extended_copy(disk, data, at):
    size = disk.expected["block_size"]
    sg.run(
        "sg_xcopy", f"if={disk.generic}", f"of={disk.generic}", f"bs={size}", f"skip={FIRST}",
        f"seek={FIRST + 4 * COUNT}", f"count={COUNT}", "iflag=xcopy",
    )  # fmt: skip
    assert at(FIRST + 4 * COUNT, COUNT) == data


def test_synchronize_cache(disk):
    sg.run("sg_sync", disk.generic)
    sg.run("sg_sync", "--16", f"--lba={FIRST}", f"--count={COUNT}", disk.generic)


def test_write_atomic(disk, at, file):
    size = disk.expected["block_size"]
    content = os.urandom(8 * size)
    sg.run("sg_write_x", "--atomic=0", f"--lba={FIRST}", "--num=8", f"--in={file(content)}", disk.generic)
    assert at(FIRST, 8) == content
