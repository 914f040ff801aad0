"""Enumeration: of a real target behind a real port; and of units that answer anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.classdriver.enumeration import FoundUnit, scan
from hba.miniport.services import BUS_CHANGE_DETECTED
from hba.port.script import run
from hba.scsi.task import Task
from tests.contract.adapter import config, running, within
from tests.miniport.rig import MODELS, Rig


def found(rig: Rig, targets: int = 4) -> list[FoundUnit]:
    ended: list[list[FoundUnit]] = []
    run(scan(rig.port, 1, targets, 8), ended.append)
    rig.loop.run_once(0)
    assert len(ended) == 1
    return ended[0]


@pytest.mark.parametrize("port", MODELS)
def test_the_units_of_a_target(tmp_path: Path, port: str) -> None:
    with running(tmp_path, config(port)) as parts:
        assert parts.machine is not None
        ended: list[list[FoundUnit]] = []
        within(parts, lambda: parts.machine.rescan(ended.append))  # type: ignore[union-attr]
        within(parts, lambda: None)
    assert [unit.unit for unit in ended[0]] == [(0, target, 0) for target in range(6)]
    assert [unit.device_type for unit in ended[0]] == [0, 0, 5, 13, 0, 0]
    disk = ended[0][0]
    assert (disk.vendor, disk.product) == ("HBA", "VIRTUAL DISK") and 0x83 in disk.pages and disk.serial


def test_the_class_driver_looks_at_the_start_and_when_the_bus_changes(tmp_path: Path) -> None:
    with running(tmp_path, config("storport")) as parts:
        assert parts.machine is not None and parts.machine.class_driver is not None
        driver = parts.machine.class_driver
        assert within(parts, lambda: len(driver.found)) == 6
        assert within(parts, lambda: driver.enumerations) == 1
        # The unit goes, and the miniport says so: the port is told of a surprise removal.
        within(parts, lambda: parts.bus.detach(4, 0)).close()
        within(parts, lambda: driver.port.library.notification(BUS_CHANGE_DETECTED, 0))
        assert within(parts, lambda: driver.enumerations) == 2
        assert within(parts, lambda: (0, 4, 0) in driver.found) is False
        assert within(parts, lambda: driver.counters["units gone"]) == 1
        assert within(parts, lambda: driver.port.knows(0, 4, 0)) is False


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_unit_may_answer_anything(data: st.DataObject) -> None:
    rig = Rig("storport")

    def answer(task: Task) -> None:
        if data.draw(st.booleans(), label="fails"):
            task.response = data.draw(st.sampled_from([0, 1, 2]))
            task.status = 2
            return
        said = data.draw(st.binary(max_size=64))
        if task.data is not None:
            task.transferred = task.data.write(said)

    rig.bus.answer = answer
    for unit in found(rig, 2):
        assert unit.unit[2] < 8
    rig.loop.close()
