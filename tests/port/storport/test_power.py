"""RS-05, RS-08, RS-09: what a miniport is told of its units, at which IRQL, and what follows from its answers."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_UNIT_PO_FX_POWER_INFO,
    SCSI_UNIT_POWER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_START,
    SCSI_UNIT_SURPRISE_REMOVAL,
)
from hba.miniport.config import DUMP_MODE_CRASH
from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL, UNIT_CONTROL
from hba.port.dump import Dump
from hba.srb import (
    SRB_FLAGS_NO_KEEP_AWAKE,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NOT_POWERED,
    SRB_STATUS_SUCCESS,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

QUERY = SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES
ANSWERED_AT_ONCE = (SRB_FUNCTION_POWER, SRB_FUNCTION_PNP)


class Told(Scripted):
    """Declares some unit control types, answers each with its number in `answers` (0: success), and keeps what it was
    called with: (type, address and more, IRQL)."""

    def __init__(self, *declared: int, query: int = 0, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.declared = declared
        self.query = query
        self.answers: dict[int, int] = {}
        self.told: list[tuple[int, Any, int]] = []
        self.functions: list[int] = []  # of what it was told to start
        self.at: list[tuple[int, int, int]] = []  # whom POWER and PNP requests were for
        self.start = self.start_it

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        assert self.port._port.callback == UNIT_CONTROL  # type: ignore[attr-defined]
        irql = self.port._port.irql  # type: ignore[attr-defined]
        if control_type == QUERY:
            self.told.append((QUERY, len(parameters), irql))
            for declared in self.declared:
                parameters[declared] = True
            return self.query
        self.told.append((control_type, parameters, irql))
        answer = self.answers.get(control_type, 0)
        if answer < 0:
            raise ZeroDivisionError("a bug")
        return answer

    def start_it(self, srb: Srb) -> bool:
        self.functions.append(srb.function)
        if srb.function in ANSWERED_AT_ONCE:
            self.at.append((srb.path_id, srb.target_id, srb.lun))
            self.complete(srb)
        return True


def power(rig: Rig, state: int, target: int = 0, lun: int = 0) -> Srb:
    srb = rig.srb(function=SRB_FUNCTION_POWER, target=target, lun=lun)
    srb.device_power_state = state
    rig.port.submit(srb)
    return srb


def test_RS_05_asked_once_with_room_for_all(make_rig: MakeRig) -> None:
    miniport = Told()
    rig = make_rig(miniport)
    rig.submit(target=3)
    assert miniport.told == [(QUERY, 15, PASSIVE_LEVEL)]
    assert rig.found == set()


def test_RS_08_a_unit_begins_when_it_is_first_addressed(make_rig: MakeRig) -> None:
    miniport = Told(SCSI_UNIT_START, SCSI_UNIT_PO_FX_POWER_INFO)
    rig = make_rig(miniport)
    for _ in range(2):
        rig.submit(target=3, lun=2)
    assert miniport.told[1:] == [
        (SCSI_UNIT_START, (0, 3, 2), PASSIVE_LEVEL),
        (SCSI_UNIT_PO_FX_POWER_INFO, (0, 3, 2, 1), PASSIVE_LEVEL),
    ]


@pytest.mark.parametrize("query", [1, 2])
def test_RS_05_who_does_not_answer_the_question_is_told_nothing(make_rig: MakeRig, query: int) -> None:
    miniport = Told(SCSI_UNIT_START, SCSI_UNIT_POWER, query=query)
    rig = make_rig(miniport)
    power(rig, STOR_POWER_DEVICE_D3)
    assert len(miniport.told) == 1 and miniport.functions == [SRB_FUNCTION_POWER]


def test_RS_05_who_raises_at_the_question_is_told_nothing(make_rig: MakeRig) -> None:
    miniport = Told(SCSI_UNIT_START, 99)
    miniport.hw_unit_control = lambda control_type, parameters: 1 // 0  # type: ignore[method-assign]
    rig = make_rig(miniport)
    rig.submit()
    assert rig.found == {"BC-01"}


def test_DM_01_nothing_of_this_in_dump_mode(make_rig: MakeRig) -> None:
    miniport = Told(SCSI_UNIT_START, SCSI_UNIT_PO_FX_POWER_INFO)
    rig = make_rig(miniport, start=False)
    rig.port.dump = Dump(DUMP_MODE_CRASH)
    rig.port.start()
    rig.submit()
    assert miniport.told == [] and len(miniport.started) == 1


@pytest.mark.parametrize(
    ("answer", "status"), [(0, SRB_STATUS_SUCCESS), (1, SRB_STATUS_INVALID_REQUEST), (-1, SRB_STATUS_INVALID_REQUEST)]
)
@pytest.mark.parametrize("state", [STOR_POWER_DEVICE_D0, STOR_POWER_DEVICE_D3])
def test_RS_08_power_by_the_callback(make_rig: MakeRig, state: int, answer: int, status: int) -> None:
    miniport = Told(SCSI_UNIT_POWER)
    miniport.answers[SCSI_UNIT_POWER] = answer
    rig = make_rig(miniport)
    assert power(rig, state, 3, 2).srb_status == status
    assert miniport.told[1:] == [(SCSI_UNIT_POWER, (0, 3, 2, state), DISPATCH_LEVEL)]
    assert miniport.functions == [] and rig.unit(3, 2).powered is (state == STOR_POWER_DEVICE_D0)


@pytest.mark.parametrize("state", [0, 2, 3, 5])
def test_RS_08_states_a_disk_does_not_have(make_rig: MakeRig, state: int) -> None:
    miniport = Told(SCSI_UNIT_POWER)
    rig = make_rig(miniport)
    assert power(rig, state).srb_status == SRB_STATUS_INVALID_REQUEST
    assert len(miniport.told) == 1 and rig.unit().powered
    assert miniport.functions == []


@pytest.mark.parametrize("answer", [None, 0, 1])
def test_RS_09_a_unit_is_powered_up_for_a_request(make_rig: MakeRig, answer: int | None) -> None:
    """By the callback; where there is none, or it fails, by a POWER request, which goes before."""
    miniport = Told(*([] if answer is None else [SCSI_UNIT_POWER]))
    rig = make_rig(miniport)
    rig.inquire(3, 2)
    power(rig, STOR_POWER_DEVICE_D3, 3, 2)
    miniport.answers[SCSI_UNIT_POWER] = answer or 0
    miniport.told.clear()
    miniport.functions.clear()
    refused = rig.submit(target=3, lun=2, flags=SRB_FLAGS_NO_KEEP_AWAKE)
    assert refused.srb_status == SRB_STATUS_NOT_POWERED and miniport.told == [] and miniport.functions == []
    for _ in range(2):
        rig.submit(target=3, lun=2)
    told = [(SCSI_UNIT_POWER, (0, 3, 2, STOR_POWER_DEVICE_D0), DISPATCH_LEVEL)]
    assert miniport.told == ([] if answer is None else told)
    assert miniport.functions == ([0, 0] if answer == 0 else [SRB_FUNCTION_POWER, 0, 0])
    assert set(miniport.at) == (set() if answer == 0 else {(0, 3, 2)})
    assert rig.submit(target=3, lun=2, flags=SRB_FLAGS_NO_KEEP_AWAKE) not in rig.done
    assert rig.found == set()


@pytest.mark.parametrize("extended", [0, 1])
def test_RS_09_the_request_that_powers_up_says_d0(make_rig: MakeRig, extended: int) -> None:
    miniport = Told(srb_type=extended)
    states: list[int] = []

    def start(srb: Any) -> bool:
        if extended and srb.srb_function == SRB_FUNCTION_POWER:
            states.append(srb.srb_ex_data[0].device_power_state)
            miniport.complete(srb)
        elif srb.function == SRB_FUNCTION_POWER:
            states.append(srb.device_power_state)
            miniport.complete(srb)
        return True

    miniport.start = start
    rig = make_rig(miniport)
    rig.inquire()
    power(rig, STOR_POWER_DEVICE_D3)
    rig.submit()
    assert states == [STOR_POWER_DEVICE_D3, STOR_POWER_DEVICE_D0]


@pytest.mark.parametrize("surprise", [False, True])
@pytest.mark.parametrize("answer", [None, 0, 1])
def test_RS_08_a_unit_that_is_taken_out(make_rig: MakeRig, surprise: bool, answer: int | None) -> None:
    """By the unit control types if they are declared, else by PNP requests."""
    both = (SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL)
    miniport = Told(*(() if answer is None else both))
    miniport.answers = dict.fromkeys(both, answer or 0)
    rig = make_rig(miniport)
    rig.inquire(3, 2)
    steps: list[tuple[str, str, str]] = []
    rig.port.remove_unit(
        0, 3, 2, surprise, lambda taken: steps.extend((step.what, step.outcome, step.unit) for step in taken)
    )
    rig.turn()
    names = ["ScsiUnitSurpriseRemoval", "ScsiUnitRemove"][not surprise :]
    if answer is None:
        names = ["PNP StorSurpriseRemoval", "PNP StorRemoveDevice"][not surprise :]
    outcome = "SUCCESS" if answer is None else "failed" if answer else "success"
    assert steps == [(name, outcome, "0:3:2") for name in names]
    types = [SCSI_UNIT_SURPRISE_REMOVAL, SCSI_UNIT_REMOVE][not surprise :]
    assert miniport.told[1:] == ([] if answer is None else [(one, (0, 3, 2), PASSIVE_LEVEL) for one in types])
    assert not rig.port.knows(0, 3, 2)
