"""What a miniport need not write itself: the callbacks left alone, and the list of control types it fills in."""

from __future__ import annotations

import pytest

from hba.miniport.base import SCSI_STOP_ADAPTER, SCSI_UNIT_START, AdapterControlPower, Miniport, SupportedControlTypes
from hba.miniport.services import NEXT_REQUEST, REQUEST_COMPLETE
from hba.srb import SRB_STATUS_SUCCESS, Srb
from tests.miniport.rig import MODELS, Rig


class Least(Miniport):
    """The callbacks that nobody can do without."""

    def hw_start_io(self, srb: Srb) -> bool:
        srb.srb_status = SRB_STATUS_SUCCESS
        self.port.notification(REQUEST_COMPLETE, srb)
        if self.port.model == "scsiport":
            self.port.notification(NEXT_REQUEST)
        return True

    def hw_reset_bus(self, path_id: int) -> bool:
        return True


@pytest.mark.parametrize("model", MODELS)
def test_two_callbacks_are_a_miniport(model: str) -> None:
    rig = Rig(model, f"{__name__}:Least", None)
    srbs = [rig.submit(bytes(6), 0) for _ in range(2)]
    assert rig.done == srbs and {srb.srb_status for srb in srbs} == {SRB_STATUS_SUCCESS}


def test_callbacks_left_alone() -> None:
    """Ready, every request is built; no interrupt is its own, no control type succeeds."""
    least = Least()
    assert least.hw_initialize() is True and least.hw_build_io(Srb()) is True
    assert least.hw_interrupt() is False and least.hw_msi_interrupt(0) is False
    assert least.hw_adapter_control(SCSI_STOP_ADAPTER, None) == 1
    assert least.hw_unit_control(SCSI_UNIT_START, (0, 0, 0)) == 1
    for missing in (lambda: Miniport().hw_start_io(Srb()), lambda: Miniport().hw_reset_bus(0)):
        with pytest.raises(NotImplementedError, match="has no hw_"):
            missing()


def test_RS_05_the_list_has_an_end() -> None:
    """Whatever is written beyond it is kept for the port to report, and reads as not supported."""
    types = SupportedControlTypes(3)
    assert (len(types), types.supported) == (3, [False] * 3)
    for control_type in (-1, 0, 2, 3, 4):
        types[control_type] = True
    assert (types.supported, types.beyond) == ([True, False, True], [-1, 3, 4])
    assert [types[control_type] for control_type in range(-1, 4)] == [False, True, False, True, False]


def test_what_goes_with_power() -> None:
    power = AdapterControlPower(2, 4)
    assert (power.power_action, power.power_state) == (2, 4)
