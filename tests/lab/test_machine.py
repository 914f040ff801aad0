"""QEMU's command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hba.errors import HbaError
from hba.lab import machine
from hba.lab.qemu import Qemu

QEMU = Qemu(("qemu",), "a test")
BOOT = machine.Boot(Path("/k"), Path("/i"), Path("/r,oot"), Path("/m"), "extra words")


def line(profile: str = "pc", boot: machine.Boot | None = BOOT, folder: str = "/run/x", **more: object) -> list[str]:
    values: dict[str, object] = {"memory_mib": 512, "cpus": 2, "accelerator": "tcg", "devices": [], **more}
    return machine.command_line(
        QEMU,
        machine.load(profile),
        machine.Sockets(Path(folder)),
        boot=boot,
        **values,  # type: ignore[arg-type]
    )


def value(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


@pytest.mark.parametrize("profile", machine.profiles())
def test_every_profile_shares_the_guests_memory_or_says_that_it_does_not(profile: str) -> None:
    words = line(profile)
    backend = "memory-backend-ram" if profile == "pc-private" else "memory-backend-memfd,share=on"
    assert f"{backend},id=mem,size=512M" in value(words, "-object")
    (chosen,) = value(words, "-machine")
    assert chosen.endswith(",memory-backend=mem")


def test_the_profiles_there_are() -> None:
    assert {"pc", "q35"} <= set(machine.profiles())
    with pytest.raises(HbaError, match=r"there are: .*pc.*q35"):
        machine.load("vax")


def test_our_guest_has_its_disks_and_agent() -> None:
    words = line()
    assert value(words, "-kernel") == ["/k"]
    assert value(words, "-append") == ["console=ttyS0 panic=-1 extra words"]
    assert [json.loads(node)["read-only"] for node in value(words, "-blockdev")] == [True, True]
    assert any("virtserialport" in device for device in value(words, "-device"))


def test_a_users_disk_boots_by_firmware_alone() -> None:
    words = line(boot=None)
    assert "-kernel" not in words
    assert not any("virt" in device for device in value(words, "-device"))


def test_commas_in_paths() -> None:
    words = line(folder="/run/a,b")
    assert any("path=/run/a,,b/qmp.sock" in option for option in value(words, "-chardev"))


def test_the_cpu_of_the_host_is_kvms() -> None:
    assert value(line(accelerator="kvm"), "-cpu") == ["host"]
    assert value(line(), "-cpu") == ["Nehalem"]


def test_our_device() -> None:
    device = json.loads(
        machine.vfio_user_device(machine.load("q35"), Path("/s"), number=1, boot_index=0, posted_writes=False)
    )
    assert device == {
        "driver": "vfio-user-pci",
        "id": "hba1",
        "bus": "pcie.0",
        "socket": {"type": "unix", "path": "/s"},
        "bootindex": 0,
        "x-no-posted-writes": True,
    }
    other = json.loads(
        machine.vfio_user_device(machine.load("pc"), Path("/s"), number=0, boot_index=None, posted_writes=True)
    )
    assert "bootindex" not in other and "x-no-posted-writes" not in other


def test_the_users_own_arguments_keep_their_values() -> None:
    words = line(devices=machine.arguments(["-m", "1G", "-S", "-device", "foo,bar=1 2"]))
    assert words[-5:] == ["-m", "1G", "-S", "-device", "foo,bar=1 2"]
