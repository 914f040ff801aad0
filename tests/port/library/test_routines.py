"""The table of documented routines, and how a routine is found by its name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from hba.miniport import routines as declared
from hba.port.library.documented import ROUTINES, SCSIPORT_ROUTINES, STORPORT_ROUTINES, spelled
from hba.port.library.routines import NotHere
from tests.miniport.rig import Rig as AnyRig
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
