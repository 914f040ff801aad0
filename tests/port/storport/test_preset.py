"""PORT_CONFIGURATION_INFORMATION: what hw_find_adapter finds in it, what it may make of it, what the options say."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.board import board_of
from hba.miniport.config import (
    SCSI_DMA64_MINIPORT_64BIT_ONE_4GB_SUPPORTED,
    SCSI_DMA64_MINIPORT_FULL64BIT_NO_BOUNDARY_REQ_SUPPORTED,
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SCSI_DMA64_MINIPORT_SUPPORTED,
    SCSI_DMA64_SYSTEM_SUPPORTED,
    SP_UNINITIALIZED,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    STOR_SYNCHRONIZE_HALF_DUPLEX,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

TRUE = (
    "scatter_gather",
    "master",
    "need_physical_addresses",
    "tagged_queuing",
    "auto_request_sense",
    "multiple_request_per_lu",
    "dma32_bit_addresses",
    "wmi_data_provider",
)
pytestmark = pytest.mark.parametrize("make_rig", [False], indirect=True, ids=["untraced"])


def told(rig: Rig) -> list[tuple[str, str]]:
    assert rig.verifier is not None
    return [(finding.rule, finding.message) for finding in rig.verifier.findings]


def test_what_hw_find_adapter_finds(make_rig: MakeRig) -> None:
    found: dict[str, Any] = {}

    class Looking(Scripted):
        def hw_find_adapter(self, config: Any) -> int:
            found.update(vars(config))
            return super().hw_find_adapter(config)

    rig = make_rig(Looking())
    assert {name: found[name] for name in TRUE} == dict.fromkeys(TRUE, True)
    assert (found["maximum_number_of_targets"], found["maximum_number_of_logical_units"]) == (255, 255)
    assert found["number_of_physical_breaks"] == 0x11
    assert found["dma64_bit_addresses"] == SCSI_DMA64_SYSTEM_SUPPORTED
    assert found["access_ranges"] == board_of(rig.chip).access_ranges != ()
    assert found["maximum_transfer_length"] == SP_UNINITIALIZED
    assert told(rig) == []


NOT_TRUE = "hw_find_adapter set {} to FALSE; it is TRUE for every Storport miniport"
ALIGNMENT = "AlignmentMask {:#x} is not 2^n - 1 up to 0x1FF; taken as 0"
WIDE = "MaxNumberOfIO {} needs 64-bit addressing (Dma64BitAddresses)"


@pytest.mark.parametrize(
    ("members", "options", "found", "becomes"),
    [
        *(({name: False}, {}, ("MB-01", NOT_TRUE.format(name)), {name: True}) for name in TRUE),
        (
            {"demand_mode": True},
            {},
            ("MB-01", "hw_find_adapter set demand_mode; a bus master has none"),
            {"demand_mode": False},
        ),
        ({"hw_dma_started": print}, {}, ("MB-01", "hw_dma_started must be NULL for Storport"), {}),
        ({"hw_adapter_state": print}, {}, ("MB-01", "hw_adapter_state must be NULL for Storport"), {}),
        ({"map_buffers": -1}, {}, ("MB-02", "MapBuffers -1 is none of 0 to 3; taken as 0"), {"map_buffers": 0}),
        ({"map_buffers": 0}, {}, None, {"map_buffers": 0}),
        (
            {"map_buffers": 1},
            {},
            ("MB-04", "STOR_MAP_ALL_BUFFERS (1) is obsolete and acts as STOR_MAP_NON_READ_WRITE_BUFFERS"),
            {"map_buffers": 1},
        ),
        ({"map_buffers": 2}, {}, None, {"map_buffers": 2}),
        ({"map_buffers": 3}, {}, None, {"map_buffers": 3}),
        ({"map_buffers": 4}, {}, ("MB-02", "MapBuffers 4 is none of 0 to 3; taken as 0"), {"map_buffers": 0}),
        ({"virtual_device": True}, {}, None, {"initial_lun_queue_depth": 250}),
        (
            {"virtual_device": True, "initial_lun_queue_depth": 21},
            {},
            None,
            {"initial_lun_queue_depth": 21},
        ),
        ({}, {}, None, {"initial_lun_queue_depth": 20, "max_ios_per_lun": 255, "max_number_of_io": 1000}),
        (
            {"synchronization_model": STOR_SYNCHRONIZE_HALF_DUPLEX},
            {},
            ("ST-09", "SynchronizationModel was left at StorSynchronizeHalfDuplex"),
            {"synchronization_model": STOR_SYNCHRONIZE_HALF_DUPLEX},
        ),
        (
            {"synchronization_model": STOR_SYNCHRONIZE_HALF_DUPLEX},
            {"synchronization_model": "full_duplex"},
            None,
            {"synchronization_model": STOR_SYNCHRONIZE_FULL_DUPLEX},
        ),
        (
            {},
            {"synchronization_model": "half_duplex"},
            None,
            {"synchronization_model": STOR_SYNCHRONIZE_HALF_DUPLEX},
        ),
        (
            {"maximum_transfer_length": SP_UNINITIALIZED},
            {},
            ("MB-14", "hw_find_adapter did not set maximum_transfer_length"),
            {},
        ),
        *(
            (
                {"number_of_physical_breaks": breaks},
                {},
                ("MB-14", "hw_find_adapter did not set number_of_physical_breaks"),
                {"number_of_physical_breaks": 0x11},
            )
            for breaks in (0, SP_UNINITIALIZED)
        ),
        ({"number_of_physical_breaks": 1}, {}, None, {"number_of_physical_breaks": 1}),
        *(({"alignment_mask": mask}, {}, None, {"alignment_mask": mask}) for mask in (0, 1, 3, 0x1FF)),
        *(
            ({"alignment_mask": mask}, {}, ("CF-07", ALIGNMENT.format(mask)), {"alignment_mask": 0})
            for mask in (-1, 2, 5, 0x1FE, 0x200, 0x3FF)
        ),
        ({"max_number_of_io": 1000, "dma64_bit_addresses": 0}, {}, None, {"max_number_of_io": 1000}),
        *(
            (
                {"max_number_of_io": 1001, "dma64_bit_addresses": addresses},
                {},
                ("MB-15", WIDE.format(1001)),
                {"max_number_of_io": 1000},
            )
            for addresses in (0, SCSI_DMA64_MINIPORT_SUPPORTED, SCSI_DMA64_SYSTEM_SUPPORTED)
        ),
        *(
            (
                {"max_number_of_io": 1001, "dma64_bit_addresses": addresses},
                {},
                None,
                {"max_number_of_io": 1001},
            )
            for addresses in (
                SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
                SCSI_DMA64_MINIPORT_FULL64BIT_NO_BOUNDARY_REQ_SUPPORTED,
                SCSI_DMA64_MINIPORT_64BIT_ONE_4GB_SUPPORTED,
            )
        ),
        ({"max_ios_per_lun": 255}, {}, None, {"max_ios_per_lun": 255}),
        (
            {"max_ios_per_lun": 256},
            {},
            ("QD-02", "MaxIOsPerLun 256 needs extended SRBs; taken as 255"),
            {"max_ios_per_lun": 255},
        ),
        ({"max_ios_per_lun": 256, "srb_type": 1}, {}, None, {"max_ios_per_lun": 256}),
        (
            {"max_ios_per_lun": 11, "max_number_of_io": 10},
            {},
            ("QD-02", "MaxIOsPerLun 11 is above MaxNumberOfIO 10"),
            {"max_ios_per_lun": 10},
        ),
        ({"max_ios_per_lun": 10, "max_number_of_io": 10}, {}, None, {"max_ios_per_lun": 10}),
        (
            {"max_ios_per_lun": 1001, "srb_type": 1},
            {},
            ("QD-02", "MaxIOsPerLun 1001 is above MaxNumberOfIO 1000"),
            {"max_ios_per_lun": 1000},
        ),
        ({"max_ios_per_lun": 0}, {}, None, {"max_ios_per_lun": 1}),
        (
            {},
            {"max_number_of_io": 7, "max_ios_per_lun": 5, "initial_lun_queue_depth": 3, "map_buffers": 3},
            None,
            {"max_number_of_io": 7, "max_ios_per_lun": 5, "initial_lun_queue_depth": 3, "map_buffers": 3},
        ),
        ({}, {"max_ios_per_lun": 255}, None, {"max_ios_per_lun": 255}),
        ({}, {"max_ios_per_lun": 256}, None, {"max_ios_per_lun": 255}),
        ({"srb_type": 1}, {"max_ios_per_lun": 256}, None, {"max_ios_per_lun": 256}),
        ({"map_buffers": 3}, {"map_buffers": 0}, None, {"map_buffers": 0}),
        ({"map_buffers": 3}, {"map_buffers": "STOR_MAP_NO_BUFFERS"}, None, {"map_buffers": 0}),
        ({}, {"map_buffers": "STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE"}, None, {"map_buffers": 3}),
    ],
    ids=str,
)
def test_what_is_said_of_it_and_what_it_becomes(
    make_rig: MakeRig,
    members: dict[str, Any],
    options: dict[str, Any],
    found: tuple[str, str] | None,
    becomes: dict[str, Any],
) -> None:
    rig = make_rig(Scripted(**members), **options)
    assert told(rig) == ([found] if found else [])
    assert {name: getattr(rig.port.info, name) for name in becomes} == becomes


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("addresses", [SCSI_DMA64_SYSTEM_SUPPORTED, SCSI_DMA64_MINIPORT_SUPPORTED, 0])
def test_who_says_nothing_of_its_addresses_is_told_in_the_log(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture, addresses: int, virtual: bool
) -> None:
    """A virtual miniport has no device whose addresses could be narrow."""
    make_rig(Scripted(dma64_bit_addresses=addresses, virtual_device=virtual))
    assert ("dma64_bit_addresses" in caplog.text) is (addresses == SCSI_DMA64_SYSTEM_SUPPORTED and not virtual)


def test_map_buffers_is_a_number_whatever_it_was_written_as(make_rig: MakeRig) -> None:
    info = make_rig(Scripted(map_buffers=True)).port.info
    assert type(info.map_buffers) is int


@pytest.mark.parametrize(("asked", "final", "found"), [(32, 32, False), (32, 33, True), (None, 33, False)])
def test_MB_16_the_size_of_the_extension_when_the_uncached_one_was_made(
    make_rig: MakeRig, asked: int | None, final: int, found: bool
) -> None:
    miniport = Scripted()

    def find(config: Any) -> None:
        if asked is not None:
            config.srb_extension_size = asked
            assert miniport.port.get_uncached_extension(config, 64) is not None
        config.srb_extension_size = final

    miniport.find = find
    rig = make_rig(miniport)
    message = "srb_extension_size was changed after StorPortGetUncachedExtension"
    assert told(rig) == ([("MB-16", message)] if found else [])


@pytest.mark.parametrize(
    ("initial", "most", "depth"), [(0, 255, 1), (1, 255, 1), (2, 255, 2), (20, 19, 19), (20, 20, 20), (20, 1, 1)]
)
def test_QD_02_the_depth_a_unit_begins_with(make_rig: MakeRig, initial: int, most: int, depth: int) -> None:
    rig = make_rig(Scripted(initial_lun_queue_depth=initial, max_ios_per_lun=most))
    for _ in range(depth + 2):
        rig.submit()
    assert len(rig.scripted.started) == depth
    units = rig.port.snapshot()["units"]
    assert isinstance(units, list) and units[0]["depth"] == depth
    assert units[0]["blocked_by"] == [f"queue depth {depth} reached"] and units[0]["queued"] == 2


@pytest.mark.parametrize(("number", "most"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_QD_03_as_many_as_the_adapter_can_have(make_rig: MakeRig, number: int, most: int) -> None:
    rig = make_rig(Scripted(max_number_of_io=number, max_ios_per_lun=1))
    for lun in range(4):
        rig.submit(lun=lun)
    assert len(rig.scripted.started) == most
    adapter, units = rig.port.snapshot()["adapter"], rig.port.snapshot()["units"]
    assert isinstance(adapter, dict) and isinstance(units, list)
    assert adapter["max_number_of_io"] == most
    assert units[3]["blocked_by"] == [f"the adapter's {most} requests are outstanding"]
