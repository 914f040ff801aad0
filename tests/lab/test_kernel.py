"""Choosing kernels and modules."""

from __future__ import annotations

import io
import lzma
import zlib
from pathlib import Path

import pytest

from hba.errors import HbaError
from hba.lab import kernel
from hba.lab.cache import Cache
from hba.lab.kernel import ModuleTree, matching_releases
from hba.lab.progress import Progress

RELEASES = [
    "6.1.0-50-amd64",
    "6.1.0-9-amd64",
    "6.12.107+deb13-amd64",
    "6.12.94+deb13-amd64",
    "6.12.107+deb13-rt-amd64",
    "6.12.107+deb13-cloud-amd64",
    "7.2.12+deb13-amd64",
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("6.12", "6.12.107+deb13-amd64"),
        ("6.1", "6.1.0-50-amd64"),
        ("6.12.94", "6.12.94+deb13-amd64"),
        ("6.12.94+deb13-amd64", "6.12.94+deb13-amd64"),
        ("6.12.107+deb13-rt", "6.12.107+deb13-rt-amd64"),
        ("7", "7.2.12+deb13-amd64"),
    ],
)
def test_the_newest_of_a_version_is_taken(wanted: str, found: str) -> None:
    assert matching_releases(wanted, RELEASES)[-1] == found


@pytest.mark.parametrize("wanted", ["6.13", "6.12.1", "2"])
def test_a_version_is_no_prefix_of_a_number(wanted: str) -> None:
    assert matching_releases(wanted, RELEASES) == []


@pytest.mark.parametrize("wanted", ["", "latest", "6.12; rm -rf", "-x"])
def test_what_is_neither_file_nor_version(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(HbaError, match="neither a file nor a kernel version"):
        kernel.find(wanted, {"modules": {}}, Cache(Progress(io.StringIO()), tmp_path))


def module(depends: str = "") -> bytes:
    return b"\x7fELF..\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    base = tmp_path / "kernel"
    for name, content in {
        "drivers/scsi/vmw_pvscsi.ko": module("scsi_mod"),
        "drivers/scsi/scsi_mod.ko.xz": lzma.compress(module("scsi-common")),
        "drivers/scsi/scsi_common.ko.gz": zlib.compress(module(), wbits=31),
        "fs/erofs/erofs.ko": module("crc32c_generic,netfs"),
        "crypto/crc32c_generic.ko": module(),
        "sound/noise.ko": module(),
    }.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    return tmp_path


def test_modules_come_after_what_they_depend_on(tree: Path) -> None:
    files = ModuleTree(tree).closure(["vmw_pvscsi", "erofs"])
    names = [path.name.split(".")[0] for path in files]
    assert names == ["scsi_common", "scsi_mod", "vmw_pvscsi", "crc32c_generic", "erofs"]


def test_compression_is_undone(tree: Path) -> None:
    modules = ModuleTree(tree)
    for path in modules.closure(["vmw_pvscsi"]):
        assert modules.content(path).startswith(b"\x7fELF")


def test_patterns_choose_by_path(tree: Path) -> None:
    chosen = ModuleTree(tree).matching(["drivers/scsi/*", "fs/erofs/*"], ["*/scsi_common*"])
    assert sorted(chosen) == ["erofs", "scsi_mod", "vmw_pvscsi"]


def test_names_nobody_has_are_built_in(tree: Path) -> None:
    assert ModuleTree(tree).closure(["ext4"]) == []


def test_the_release_inside_a_kernel_image(tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500:0x520] = b"6.12.0-test (me@there) #1 SMP\0\0\0"
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    assert kernel.release_of(path) == "6.12.0-test"


@pytest.mark.parametrize("content", [b"", b"MZ", bytes(0x1000), b"\xff" * 0x1000])
def test_a_file_that_is_no_kernel(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(content)
    with pytest.raises(HbaError, match="no x86 Linux kernel"):
        kernel.release_of(path)


def test_a_kernel_without_its_modules(tmp_path: Path) -> None:
    test_the_release_inside_a_kernel_image(tmp_path)
    with pytest.raises(HbaError, match="--modules"):
        kernel.find(
            str(tmp_path / "vmlinuz"),
            {"modules": {}},
            Cache(Progress(io.StringIO()), tmp_path / "c"),
            tmp_path / "nothing",
        )
