"""DriverEntry, initialize, and a miniport that is a table of routines."""

from __future__ import annotations

from typing import Any

import pytest

from hba.errors import ConfigError
from hba.miniport.chip import Chip
from hba.miniport.config import SRB_TYPE_STORAGE_REQUEST_BLOCK, PortConfigurationInformation
from hba.miniport.driver_entry import (
    ISA,
    SRB_TYPE_FLAG_STORAGE_REQUEST_BLOCK,
    STATUS_INVALID_PARAMETER,
    STATUS_REVISION_MISMATCH,
    STATUS_SUCCESS,
    STOR_FEATURE_VIRTUAL_MINIPORT,
    DriverObject,
    HwInitializationData,
    enter,
    initialize,
    sizeof,
)
from hba.miniport.load import load_miniport
from hba.port.context import PASSIVE_LEVEL
from hba.srb import SRB_STATUS_SUCCESS
from tests.miniport import driver
from tests.miniport.rig import MODELS, AnsweringBus, Memory, Rig
from tests.port.storport.rig import Rig as PortRig

NAME = "tests.miniport.driver:driver_entry"


@pytest.mark.parametrize("model", MODELS)
def test_a_table_of_routines_serves_requests(model: str) -> None:
    rig = Rig(model, NAME, "strict", {"colour": "blue", "depth": 3})
    extension: Any = rig.miniport.extension
    assert extension.arguments == "colour=blue;depth=3;"
    assert extension.found == (64, 2 if model == "storport" else 0, 5, [False])
    at_once = rig.submit()
    rig.bus.hold = True
    later = rig.submit()
    assert rig.done == [at_once]
    rig.bus.release(rig.bus.held[0])
    assert rig.done == [at_once, later] and later.srb_status == SRB_STATUS_SUCCESS
    assert rig.found == set()


def good(model: str, **members: Any) -> HwInitializationData:
    driver_object = DriverObject(model)
    driver.driver_entry(driver_object, "path")
    data = driver_object.accepted[0].data
    for name, value in members.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize("model", MODELS)
def test_what_is_optional_may_be_left_out(model: str) -> None:
    driver_object = DriverObject(model)
    data = good(model, hw_build_io=None, hw_unit_control=None, hw_tracing_enabled=None)
    if model == "scsiport":
        data.hw_interrupt = data.hw_adapter_control = None  # polled, and not Plug and Play
        data.hw_initialization_data_size = 120
    assert initialize(driver_object, "path", data) == STATUS_SUCCESS
    miniport = driver_object.accepted[0]
    srb: Any = None
    assert miniport.hw_build_io(srb) and miniport.hw_unit_control(0, None) == 1
    miniport.hw_tracing_enabled(True)


@pytest.mark.parametrize(
    ("model", "members", "status"),
    [
        ("scsiport", {"hw_initialization_data_size": 0}, STATUS_REVISION_MISMATCH),
        ("scsiport", {"hw_initialization_data_size": 208}, STATUS_REVISION_MISMATCH),
        ("storport", {"hw_initialization_data_size": 128}, STATUS_REVISION_MISMATCH),
        ("storport", {"hw_initialization_data_size": 136}, STATUS_SUCCESS),
        ("storport", {"hw_interrupt": None}, STATUS_REVISION_MISMATCH),
        ("storport", {"hw_adapter_control": None}, STATUS_REVISION_MISMATCH),
        ("scsiport", {"hw_find_adapter": None}, STATUS_REVISION_MISMATCH),
        ("scsiport", {"hw_reset_bus": 5}, STATUS_REVISION_MISMATCH),
        ("scsiport", {"hw_dma_started": print}, STATUS_SUCCESS),
        ("storport", {"hw_dma_started": print}, STATUS_INVALID_PARAMETER),
        ("storport", {"hw_adapter_state": print}, STATUS_INVALID_PARAMETER),
        ("storport", {"adapter_interface_type": ISA}, STATUS_INVALID_PARAMETER),
        ("storport", {"tagged_queuing": False}, STATUS_INVALID_PARAMETER),
        ("storport", {"feature_support": STOR_FEATURE_VIRTUAL_MINIPORT}, STATUS_REVISION_MISMATCH),
        (
            "storport",
            {
                "feature_support": STOR_FEATURE_VIRTUAL_MINIPORT,
                "hw_interrupt": None,
                "hw_free_adapter_resources": print,
                "need_physical_addresses": False,
            },
            STATUS_SUCCESS,
        ),
    ],
)
def test_CF_12_what_initialize_checks(model: str, members: dict[str, Any], status: int) -> None:
    driver_object = DriverObject(model)
    assert initialize(driver_object, "path", good(model, **members)) == status
    assert bool(driver_object.refused) == (status != STATUS_SUCCESS)
    assert len(driver_object.accepted) == (status == STATUS_SUCCESS)


def test_what_must_not_be_null() -> None:
    driver_object = DriverObject("storport")
    assert initialize(None, "path", good("storport")) == STATUS_INVALID_PARAMETER
    assert initialize(driver_object, None, good("storport")) == STATUS_INVALID_PARAMETER
    assert initialize(driver_object, "path", None) == STATUS_INVALID_PARAMETER
    assert driver_object.accepted == [] and "NULL" in driver_object.refused


def test_sizes_are_those_of_the_headers() -> None:
    assert (sizeof("scsiport"), sizeof("storport")) == (128, 208)


def test_the_context_is_for_scsi_port_alone() -> None:
    for model, context in (("scsiport", "mine"), ("storport", None)):
        driver_object = DriverObject(model)
        initialize(driver_object, "path", good(model), "mine")
        assert driver_object.accepted[0].hw_context == context


def test_extended_srbs_are_asked_for_by_a_flag() -> None:
    seen: list[PortConfigurationInformation] = []
    driver_object = DriverObject("storport")
    data = good("storport", srb_type_flags=SRB_TYPE_FLAG_STORAGE_REQUEST_BLOCK)
    data.hw_find_adapter = lambda adapter, context, bus, text, config, again: seen.append(config) or 1
    initialize(driver_object, "path", data)
    miniport = driver_object.accepted[0]
    miniport.options = {}
    miniport.port = Rig("storport").miniport.port
    miniport.hw_find_adapter(PortConfigurationInformation())
    assert seen[0].srb_type == SRB_TYPE_STORAGE_REQUEST_BLOCK


@pytest.mark.parametrize("virtual", [False, True])
def test_a_virtual_device_is_said_to_be_one(virtual: bool) -> None:
    driver_object = DriverObject("storport")
    data = good("storport", hw_free_adapter_resources=print)
    data.feature_support = STOR_FEATURE_VIRTUAL_MINIPORT if virtual else 0
    data.hw_find_adapter = lambda *_: 1
    assert initialize(driver_object, "path", data) == STATUS_SUCCESS
    miniport = driver_object.accepted[0]
    assert miniport.registry_path == "path"
    miniport.options, miniport.port = {}, Rig("storport").miniport.port
    config = PortConfigurationInformation(virtual_device=not virtual)
    miniport.hw_find_adapter(config)
    assert config.virtual_device is virtual


def test_routines_that_are_not_there() -> None:
    """What a table leaves out, or loses later: nothing is done, and that is what is said."""
    driver_object = DriverObject("scsiport")
    data = good("scsiport")
    assert initialize(driver_object, "path", data) == STATUS_SUCCESS
    miniport: Any = driver_object.accepted[0]
    heard: list[Any] = []
    data.hw_tracing_enabled = lambda *arguments: heard.append(arguments)
    miniport.hw_tracing_enabled(True)
    assert heard == [(miniport, True)]
    for name in ("initialize", "start_io", "interrupt", "reset_bus", "adapter_control", "tracing_enabled"):
        setattr(data, f"hw_{name}", None)
    miniport.hw_tracing_enabled(False)
    assert [miniport.hw_initialize(), miniport.hw_start_io(None), miniport.hw_interrupt()] == [False] * 3
    assert miniport.hw_reset_bus(0) is False and miniport.hw_adapter_control(1, None) == 1


def test_a_dump_is_over_when_its_driver_entry_is() -> None:
    """From then on NULL for both arguments is wrong again."""
    driver_object = DriverObject("storport")
    data = good("storport")
    status = enter(lambda first, second: initialize(first, second, data), driver_object, "path", dump=True)
    assert status == STATUS_SUCCESS and len(driver_object.accepted) == 1
    assert initialize(None, None, data) == STATUS_INVALID_PARAMETER and len(driver_object.accepted) == 1


def refuses(driver_object: DriverObject, registry_path: str) -> int:
    return initialize(driver_object, registry_path, HwInitializationData())


def forgets(driver_object: DriverObject, registry_path: str) -> int:
    return 0


def crashes(driver_object: DriverObject, registry_path: str) -> int:
    raise RuntimeError(registry_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("refuses", "DriverEntry returned 0xc0000059: HwInitializationDataSize is 0; there are 136, 176, 208"),
        ("forgets", "DriverEntry returned 0x00000000: it did not call initialize"),
        ("crashes", r"test_driver_entry.py:\d+: DriverEntry failed with RuntimeError: .*Services.test_driver_entry"),
    ],
)
def test_a_driver_entry_that_fails(name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load_miniport(f"{__name__}:{name}", Chip(AnsweringBus(), Memory()))


def test_a_virtual_miniport_hears_of_its_beginning_and_end() -> None:
    calls: list[Any] = []
    data = good("storport")
    data.feature_support = STOR_FEATURE_VIRTUAL_MINIPORT
    data.hw_initialize_tracing = lambda *arguments: calls.append(("tracing", *arguments))
    data.hw_cleanup_tracing = lambda *arguments: calls.append(("no tracing", *arguments))
    data.hw_free_adapter_resources = lambda extension: calls.append(("free", port.irql))
    driver_object = DriverObject("storport")
    assert initialize(driver_object, "key", data) == STATUS_SUCCESS
    assert calls == [("tracing", driver_object, "key")]
    (miniport,) = driver_object.accepted
    miniport.options = {}
    rig = PortRig(miniport, start=False)
    port = rig.port
    port.info.virtual_device = True
    port.stop()
    assert len(calls) == 1
    port.unload()
    assert calls[1:] == [("free", PASSIVE_LEVEL), ("no tracing", driver_object)]
    port.info.virtual_device = False
    port.unload()
    assert len(calls) == 3
    rig.loop.close()


def test_no_tracing_for_a_miniport_that_is_not_virtual() -> None:
    calls: list[Any] = []
    data = good("storport")
    data.hw_initialize_tracing = lambda *arguments: calls.append(arguments)
    assert initialize(DriverObject("storport"), "key", data) == STATUS_SUCCESS
    assert calls == []
