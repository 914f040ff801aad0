"""SeaBIOS's own PVSCSI driver finds our disk, boots from it, reads and writes it.

It is a driver of its own kind: it polls for completions, uses context 0, and never takes an interrupt.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.lab.config import one_disk
from hba.lab.experiment import Experiment, Options
from hba.lab.progress import Progress
from tests.guest import bootsector


@pytest.mark.qemu
@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("port_model", ["scsiport", "storport"])
def test_seabios_boots_from_the_disk(tmp_path: Path, port_model: str, machine: str) -> None:
    disk = bootsector.make(tmp_path / "boot.img")
    boot(disk, Options(disk=disk.path, machine=machine, port_model=port_model))


@pytest.mark.qemu
def test_seabios_finds_the_disk_with_posted_writes(tmp_path: Path) -> None:
    """A request must not be taken before the acknowledgement of the one before it, which may still be on its way: the
    firmware would wait for ever, and no Linux would start.
    """
    disk = bootsector.make(tmp_path / "disk.img")
    config = tmp_path / "posted.toml"
    config.write_text(one_disk(tmp_path, disk.path, "storport") + "pci = { posted_writes = true }\n")
    with Experiment(Options(config=config), Progress()) as experiment:
        experiment.start()
        experiment.guest.agent.ping()


@pytest.mark.qemu
def test_seabios_boots_from_the_peer(tmp_path: Path) -> None:
    """The boot sector itself is right: it works on QEMU's own PVSCSI model too."""
    disk = bootsector.make(tmp_path / "boot.img")
    boot(disk, Options(disk=disk.path, device="builtin-pvscsi"))


def boot(disk: bootsector.BootDisk, options: Options) -> None:
    with Experiment(options, Progress()) as experiment:
        experiment.start()
        said = experiment.guest.wait_for_console([bootsector.DONE, bootsector.FAIL], timeout=120)
    assert bootsector.MARKER in said
    assert disk.hash in said, "the firmware read other bytes than the disk holds"
    assert disk.result()[:8].decode() == disk.hash, "what the firmware wrote is not on the disk"
