"""Patterns on disks, and whether a disk holds data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hba.errors import StorageError
from hba.lab import disks, pattern

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    disks.make_file(path, 8 * MIB)
    return path


def test_a_new_disk_is_sparse_and_holds_nothing(disk: Path) -> None:
    assert disk.stat().st_size == 8 * MIB
    assert disk.stat().st_blocks == 0
    assert not disks.holds_data(disk)


def test_one_written_sector_is_data(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"x" * 512)
        os.fsync(file.fileno())
    assert disks.holds_data(disk)


def test_a_disk_is_not_made_over_another_file(disk: Path) -> None:
    with pytest.raises(StorageError, match="exists"):
        disks.make_file(disk, MIB)


def test_a_pattern_is_found_again(disk: Path) -> None:
    disks.write_pattern(disk, "seed", MIB, 64 * 1024)
    assert disks.check_pattern(disk, "seed", MIB, 64 * 1024) is None


def test_each_wrong_byte_is_found_and_named(disk: Path) -> None:
    disks.write_pattern(disk, "seed", MIB, 64 * 1024)
    at = MIB + 40_000
    with disk.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    why = disks.check_pattern(disk, "seed", MIB, 64 * 1024)
    assert why is not None and f"byte {at} " in why and "other data" in why


def test_what_was_never_written_is_told_from_what_is_wrong(disk: Path) -> None:
    why = disks.check_pattern(disk, "seed", 0, 4096)
    assert why is not None and "zeroes" in why


def test_a_shrunken_file(disk: Path) -> None:
    why = disks.check_pattern(disk, "seed", 8 * MIB - 4096, 8192)
    assert why is not None and "ends at byte" in why


def test_no_two_blocks_or_seeds_are_alike() -> None:
    blocks = {pattern.block(seed, number) for seed in "ab" for number in range(20)}
    assert len(blocks) == 40
    assert all(len(block) == pattern.BLOCK for block in blocks)


def test_the_pattern_is_the_same_for_ever() -> None:
    """Host and guest have different Pythons: the bytes must not depend on its version."""
    assert pattern.block("seed", 0)[:8].hex() == KNOWN


KNOWN = "6dee0042d479e340"


def test_how_much_of_a_stretch_takes_up_space(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"x" * MIB)
        os.fsync(file.fileno())
    assert disks.allocated(disk, 0, 8 * MIB) == MIB
    assert disks.allocated(disk, 0, 2 * MIB) == 0
    assert disks.allocated(disk, 2 * MIB + 4096, 4096) == 4096
    assert disks.allocated(disk, 2 * MIB + MIB // 2, 4 * MIB) == MIB // 2
    assert disks.allocated(disk, 4 * MIB, 4 * MIB) == 0
    assert disks.check_discarded(disk, 0, 8 * MIB, keeps=MIB) is None
    wrong = disks.check_discarded(disk, 0, 8 * MIB, keeps=MIB - 1)
    assert wrong is not None and f"{MIB} of the {8 * MIB} bytes" in wrong
