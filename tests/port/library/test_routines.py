"""The table of documented routines, and how a routine is found by its name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from hba.miniport import routines as declared
from hba.miniport.config import STOR_SYNCHRONIZE_HALF_DUPLEX
from hba.miniport.services import STOR_STATUS_INVALID_IRQL, STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_SUCCESS
from hba.port.library.documented import ROUTINES, SCSIPORT_ROUTINES, STORPORT_ROUTINES, spelled
from hba.port.library.routines import NotHere
from hba.port.library.units import UnitAttributes
from tests.miniport.rig import Rig as AnyRig
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


def test_all_that_are_documented() -> None:
    assert sum(not routine.macro for routine in STORPORT_ROUTINES) == 146
    assert sum(routine.macro for routine in STORPORT_ROUTINES) == 28
    assert sum(not routine.macro for routine in SCSIPORT_ROUTINES) == 22  # with ScsiDebugPrint
    assert sum(routine.macro for routine in SCSIPORT_ROUTINES) == 24
    assert len(ROUTINES["storport"]) == len(STORPORT_ROUTINES) and len(ROUTINES["scsiport"]) == len(SCSIPORT_ROUTINES)


@pytest.mark.parametrize(
    ("documented", "name"),
    [
        ("StorPortAcquireMSISpinLock", "acquire_msi_spin_lock"),
        ("StorPortReadRegisterBufferUlong64", "read_register_buffer_ulong64"),
        ("StorPortPoFxSetPerfState", "po_fx_set_perf_state"),
        ("StorPortUpdateAdapterMaxIO", "update_adapter_max_io"),
        ("ScsiPortConvertPhysicalAddressToUlong", "convert_physical_address_to_ulong"),
        ("ScsiDebugPrint", "debug_print"),
    ],
)
def test_names(documented: str, name: str) -> None:
    assert spelled(documented) == name


def test_a_routine_that_is_not_here_says_so_by_its_documented_name(rig: Rig) -> None:
    with pytest.raises(NotHere, match="StorPortGetDeviceObjects is documented, but not here: there are no device obj"):
        rig.scripted.port.get_device_objects()  # type: ignore[attr-defined]
    rig.in_interrupt(lambda: rig.scripted.port.get_device_objects())  # type: ignore[attr-defined]
    assert "NotHere: StorPortGetDeviceObjects is documented" in rig.messages("BC-01")[0]


def test_a_name_that_is_nobodys(rig: Rig) -> None:
    port: Any = rig.scripted.port
    with pytest.raises(AttributeError, match=r"no routine StorPort\.\.\. .* 'pauze'; did you mean pause\?"):
        port.pauze()
    with pytest.raises(AttributeError, match="ScsiPortGetSrb is SCSI Port's, and this miniport is under Storport"):
        port.get_srb()
    assert not hasattr(port, "get_srb") and hasattr(port, "read_register_ulong")


def test_scsi_port_has_no_routines_of_storport() -> None:
    port: Any = AnyRig("scsiport").miniport.port
    with pytest.raises(AttributeError, match="StorPortPause is Storport's"):
        port.pause(1)
    with pytest.raises(NotHere, match=r"ScsiPortFlushDma is documented, but not here: .*every adapter here is a bus"):
        port.flush_dma()


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_what_is_declared_is_there(model: str) -> None:
    """hba/miniport/routines.py and the families have the same signatures."""
    port = AnyRig(model).miniport.port
    protocols = [declared.CommonRoutines]
    protocols.append(declared.ScsiPortRoutines if model == "scsiport" else declared.StorPortRoutines)  # type: ignore[arg-type]
    for protocol in protocols:
        for name, one in inspect.getmembers(protocol, inspect.isfunction):
            if name.startswith("_"):
                continue
            method: Any = next(
                getattr(family, name)
                for family in port.routines._families
                if hasattr(family, name)  # type: ignore[attr-defined]
            )
            declared_names = list(inspect.signature(one).parameters)[1:]
            assert list(inspect.signature(method).parameters) == declared_names, name
            there = {**declared.CommonRoutines.__dict__, **protocol.__dict__}
            assert name in there


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_every_routine_of_a_family_is_declared_and_documented(model: str) -> None:
    port = AnyRig(model).miniport.port
    own = declared.ScsiPortRoutines if model == "scsiport" else declared.StorPortRoutines
    names = {name for family in port.routines._families for name in dir(family) if callable(getattr(family, name))}
    names = {name for name in names if not name.startswith("_") and name != "forget"}  # type: ignore[attr-defined]
    assert {name for name in names if not hasattr(declared.CommonRoutines, name) and not hasattr(own, name)} == set()
    for name in names:
        found = port.routines.find(name)  # type: ignore[attr-defined]
        method = getattr(found, "args", (None, found))[-1]
        assert "StorPort" in method.__doc__ or "ScsiPort" in method.__doc__ or "ScsiDebugPrint" in method.__doc__, name


def test_LB_01_the_limit_and_where_the_call_came_from_are_told(make_rig: MakeRig) -> None:
    rig = make_rig()
    port = rig.scripted.port
    in_build_io(rig, lambda _: port.is_current_os_installation_upgrade())
    arguments: Any = (None, None, 64, print, 0, True, memoryview(bytearray(64)), 64)
    assert port.build_scatter_gather_list(*arguments) == STOR_STATUS_INVALID_IRQL
    assert above_dispatch(rig, lambda: port.log_system_event(None)) == (STOR_STATUS_INVALID_IRQL, None)
    assert above_dispatch(rig, lambda: port.po_fx_activate_component(None, None, 0)) == STOR_STATUS_INVALID_IRQL
    # Its page has no status for that: it does its work.
    assert above_dispatch(rig, lambda: port.get_active_group_count()) == (STOR_STATUS_SUCCESS, 1)
    assert rig.messages("LB-01") == [
        "StorPortIsCurrentOsInstallationUpgrade above PASSIVE_LEVEL, at DISPATCH_LEVEL",
        "StorPortBuildScatterGatherList below DISPATCH_LEVEL, at PASSIVE_LEVEL",
        "StorPortLogSystemEvent above DISPATCH_LEVEL, at DIRQL",
        "StorPortPoFxActivateComponent above DISPATCH_LEVEL, at DIRQL",
        "StorPortGetActiveGroupCount above DISPATCH_LEVEL, at DIRQL",
    ]


def test_ST_08_pool_in_a_half_duplex_start_io(make_rig: MakeRig) -> None:
    """It runs at DIRQL, and there it is that rule's breach; in an interrupt routine it is any routine's."""

    def half_duplex(config: Any) -> None:
        config.synchronization_model = STOR_SYNCHRONIZE_HALF_DUPLEX

    rig = make_rig(half_duplex)
    port, got = rig.scripted.port, []

    def start(srb: Any) -> bool:
        got.append(port.allocate_pool(8))
        got.append(port.free_pool(None))
        return True

    rig.scripted.start = start
    rig.submit()
    assert got == [(STOR_STATUS_INVALID_IRQL, None), STOR_STATUS_INVALID_IRQL]
    above_dispatch(rig, lambda: port.allocate_pool(8))
    assert rig.messages("ST-08") == ["StorPortAllocatePool above DISPATCH_LEVEL, at DIRQL"]
    assert rig.messages("LB-01") == [
        "StorPortFreePool above DISPATCH_LEVEL, at DIRQL",
        "StorPortAllocatePool above DISPATCH_LEVEL, at DIRQL",
    ]


def test_a_routine_is_made_once(rig: Rig) -> None:
    """A miniport may keep it, and compare what it has kept."""
    find = rig.scripted.port.routines.find  # type: ignore[attr-defined]
    assert find("allocate_pool") is find("allocate_pool") and find("get_device_objects") is find("get_device_objects")


def test_a_name_that_resembles_nothing(rig: Rig) -> None:
    with pytest.raises(AttributeError, match=r"no routine StorPort\.\.\. that is spelled 'qqqq'$"):
        rig.scripted.port.qqqq()  # type: ignore[attr-defined]


def test_a_new_find_adapter_makes_the_library_forget(rig: Rig) -> None:
    _, timer = rig.scripted.port.initialize_timer()
    rig.port.start()
    assert rig.scripted.port.request_timer(timer, print, None, 1) == STOR_STATUS_INVALID_PARAMETER


def test_the_extension_of_a_unit(make_rig: MakeRig) -> None:
    """An object for each unit, when the miniport has said that it wants one."""

    def find(config: Any) -> None:
        config.specific_lu_extension_size = 16
        config.number_of_buses = 2

    rig = make_rig(find)
    port = rig.scripted.port
    assert port.get_logical_unit(0, 0, 0) is None  # no such unit yet
    addresses = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 2, 3)]
    for path, target, lun in addresses:
        srb = rig.srb(target=target, lun=lun)
        srb.path_id = path
        rig.port.submit(srb)
    extensions = [port.get_logical_unit(*address) for address in addresses]
    assert None not in extensions and len({id(one) for one in extensions}) == 5
    for address, extension in zip(addresses, extensions, strict=True):
        extension.name = address
    assert [port.get_logical_unit(*address).name for address in addresses] == addresses
    assert port.get_logical_unit(1, 2, 2) is None
    # Other routines find the same units.
    unit = UnitAttributes()
    assert [port.set_unit_attributes(address, unit) for address in addresses] == [STOR_STATUS_SUCCESS] * 5
    for address in ((0, 1, 1), (1, 0, 1), (0, 2, 3), (1, 3, 3)):
        assert port.set_unit_attributes(address, unit) == STOR_STATUS_INVALID_PARAMETER


def test_without_their_size_units_have_no_extension(rig: Rig) -> None:
    rig.inquire()
    assert rig.scripted.port.get_logical_unit(0, 0, 0) is None


def test_documented_macros(rig: Rig) -> None:
    """ScsiPort has validate_range for itself, Storport one that is always true."""
    port: Any = AnyRig("scsiport").miniport.port
    assert port.validate_range(5, 0, 0xF000_0000, 0x1000, False)
    assert not port.validate_range(5, 0, 0xF000_0000, 0x1001, False)
    assert rig.scripted.port.validate_range(5, 0, 0, 1, False)
