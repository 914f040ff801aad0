"""From the configuration to a unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hba.clock import VirtualClock
from hba.errors import ConfigError, StorageError
from hba.scsi.build import build_unit
from hba.scsi.config import LunConfig
from hba.scsi.disk.disk import Disk
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import Cdrom
from hba.storage.memory import MemoryBackend
from tests.scsi.util import run, settle

MEMORY = {"kind": "memory", "size": "1M"}


def config(**fields: Any) -> LunConfig:
    return msgspec.convert(fields, LunConfig)


def test_a_disk() -> None:
    unit = build_unit(
        config(storage=MEMORY, vendor="ACME", product="ROCKET", revision="9", serial="S1", naa="5000c50012345678"),
        MemoryBackend(1 << 20),
        VirtualClock(),
    )
    assert isinstance(unit, Disk)
    settle(unit)
    data = run(unit, "120000006000", 96).data
    assert data[8:36] == b"ACME    ROCKET          9   "
    assert run(unit, "12018000ff00", 255).data[4:] == b"S1"
    assert run(unit, "12018300ff00", 255).data[8:16] == bytes.fromhex("5000c50012345678")


def test_serial_numbers_of_unnamed_units_differ() -> None:
    units = [
        build_unit(config(storage=MEMORY, target=target), MemoryBackend(1 << 20), VirtualClock()) for target in (0, 1)
    ]
    assert isinstance(units[0], Disk) and isinstance(units[1], Disk)
    assert units[0].identity.serial != units[1].identity.serial


def test_the_other_types() -> None:
    assert isinstance(build_unit(config(type="cdrom"), None, VirtualClock()), Cdrom)
    assert isinstance(build_unit(config(type="enclosure"), None, VirtualClock()), Enclosure)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "storage"),
        ({"storage": MEMORY, "block_size": 1024}, "block_size"),
        ({"storage": MEMORY, "physical_block_size": 256}, "physical_block_size"),
        ({"storage": MEMORY, "physical_block_size": 1000}, "physical_block_size"),
        ({"storage": MEMORY, "rotation_rate": 500}, "rotation_rate"),
        ({"storage": MEMORY, "naa": "xyz"}, "naa"),
        ({"storage": MEMORY, "vendor": "too long a name"}, "vendor"),
        ({"storage": MEMORY, "vendor": "tab\t"}, "vendor"),
        ({"storage": MEMORY, "lun": 256}, "lun"),
        ({"storage": MEMORY, "type": "tape"}, "type"),
        ({"storage": MEMORY, "colour": "red"}, "colour"),
        ({"storage": MEMORY, "type": "enclosure"}, "storage"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        config(**fields)


def test_a_store_that_is_too_small() -> None:
    with pytest.raises(ConfigError, match="less than a block"):
        build_unit(config(storage=MEMORY, block_size=4096), MemoryBackend(512), VirtualClock())


def test_the_state_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    unit = build_unit(config(storage=MEMORY, state_file="lun0.json"), MemoryBackend(1 << 20), VirtualClock(), tmp_path)
    assert isinstance(unit, Disk)
    assert unit.state.path == tmp_path / "lun0.json"


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_state_file_that_is_not_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(StorageError, match="state"):
        build_unit(config(storage=MEMORY, state_file="x"), MemoryBackend(1 << 20), VirtualClock(), tmp_path)


def test_a_device_that_takes_commands_is_passed_through() -> None:
    from hba.scsi.passthrough import PassThrough
    from tests.scsi.test_passthrough import FakeDevice

    unit = build_unit(config(storage={"kind": "scsi", "path": "/dev/sg0"}), FakeDevice(), VirtualClock())
    assert isinstance(unit, PassThrough)
