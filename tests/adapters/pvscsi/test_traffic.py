"""What `hba show queues` says of the requests of a unit."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hba.clock import MS
from hba.scsi.unit import LogicalUnit
from hba.srb import SRB_STATUS_ERROR
from tests.adapters.pvscsi.driver import Driver


@pytest.fixture(autouse=True)
def units(driver: Driver) -> None:
    for target in (0, 1):
        driver.bus.units[target] = {0: cast(LogicalUnit, None)}  # that it is there is all that is asked of it


def seen(driver: Driver) -> dict[str, Any]:
    units = cast(list[dict[str, Any]], driver.adapter.snapshot()["traffic"])
    return {unit["unit"]: unit for unit in units}


def test_a_batch_that_completes_at_once_was_outstanding(driver: Driver) -> None:
    driver.port.at_once = lambda srb: driver.clock.advance(MS)
    for context in range(5):
        driver.put(context=context)
    driver.kick()
    unit = seen(driver)["0:0:0"]
    assert (unit["requests"], unit["outstanding"]) == (5, 0)
    # One after the other: this port is done with each before the next is taken, but answers them together.
    assert unit["highest"] == 5
    assert unit["latency"]["max"] == 5 * MS


def test_from_taken_to_answered_by_unit(driver: Driver) -> None:
    for context, target in enumerate((0, 1, 0, 0)):
        driver.put(context=context, target=target)
    driver.kick()
    assert {unit: (item["outstanding"], item["highest"]) for unit, item in seen(driver).items()} == {
        "0:0:0": (3, 3),
        "0:1:0": (1, 1),
    }
    driver.clock.advance(MS)
    driver.port.complete(driver.port.srbs[1])
    driver.turn()
    driver.clock.advance(MS)
    for srb in list(driver.port.srbs):
        driver.port.complete(srb, SRB_STATUS_ERROR)
    driver.turn()
    assert len(driver.completions()) == 4
    units = seen(driver)
    assert (units["0:0:0"]["requests"], units["0:0:0"]["outstanding"], units["0:0:0"]["latency"]["mean"]) == (
        3,
        0,
        2 * MS,
    )
    assert (units["0:1:0"]["requests"], units["0:1:0"]["latency"]["max"]) == (1, MS)


def test_a_reset_leaves_nothing_outstanding(driver: Driver) -> None:
    driver.put()
    driver.kick()
    driver.adapter.forget_rings()
    assert seen(driver)["0:0:0"]["outstanding"] == 1  # the port still has it
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert seen(driver)["0:0:0"]["outstanding"] == 0


def test_a_request_that_is_refused_is_not_counted(driver: Driver) -> None:
    driver.put(cdb_length=99)
    driver.kick()
    assert driver.adapter.bad_requests == 1
    assert seen(driver)["0:0:0"]["requests"] == 0


def test_an_answer_that_a_reset_overtakes_is_no_longer_outstanding(driver: Driver) -> None:
    driver.put()
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.adapter.forget_rings()
    assert seen(driver)["0:0:0"]["outstanding"] == 0


def test_the_most_that_was_on_the_ring_is_kept(driver: Driver) -> None:
    for count in (3, 20, 1):
        for context in range(count):
            driver.put(context=context)
        driver.kick()
    rings = cast(dict[str, Any], driver.adapter.snapshot()["rings"])
    assert (rings["request"]["pending"], rings["request"]["most_pending"]) == (0, 20)
