"""The beginning of an adapter under Storport: what is known before, passive initialisation, what a restart forgets."""

from __future__ import annotations

from typing import Any

import pytest

from hba.errors import ConfigError
from hba.miniport.services import Dpc
from hba.port.context import PASSIVE_INITIALIZE, PASSIVE_LEVEL
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted

SNAPSHOT = {
    "state": "running",
    "held_by": [],
    "max_number_of_io": 1000,
    "half_duplex": False,
    "channels": 1,
    "messages": [],
    "perf_flags": [],
    "map_buffers": "STOR_MAP_NON_READ_WRITE_BUFFERS",
    "recoveries": 0,
}


def test_the_snapshot_of_an_adapter(make_rig: MakeRig) -> None:
    """Also of one that has not been started: nothing is known of it, and that is what is said."""
    rig = make_rig(start=False)
    assert rig.port.snapshot()["adapter"] == {**SNAPSHOT, "half_duplex": True, "map_buffers": None}
    rig.port.start()
    assert rig.port.snapshot()["adapter"] == SNAPSHOT
    rig.port.stop()
    assert rig.port.snapshot()["adapter"] == {**SNAPSHOT, "map_buffers": None}
    half = make_rig(Scripted(map_buffers=3), synchronization_model="half_duplex", max_number_of_io=5)
    expected = {
        **SNAPSHOT,
        "half_duplex": True,
        "map_buffers": "STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE",
        "max_number_of_io": 5,
    }
    assert half.port.snapshot()["adapter"] == expected
    half.scripted.port.pause(1)
    assert half.port.snapshot()["adapter"] == {**expected, "held_by": ["paused by the miniport (StorPortPause)"]}


def passive(make_rig: MakeRig, routine: Any) -> Rig:
    """An adapter whose hw_initialize enables `routine`."""
    miniport = Scripted()
    miniport.initialize = lambda: miniport.port.enable_passive_initialization(routine)
    return make_rig(miniport)


@pytest.mark.parametrize("returned", [True, False, 1, None])
def test_PF_01_what_the_passive_routine_returns(make_rig: MakeRig, returned: Any) -> None:
    seen: list[tuple[int, int]] = []

    def routine() -> Any:
        seen.append((rig.port.callback, rig.port.irql))
        return returned

    rig = make_rig(start=False)
    rig.scripted.initialize = lambda: rig.scripted.port.enable_passive_initialization(routine)
    rig.port.start()
    assert seen == [(PASSIVE_INITIALIZE, PASSIVE_LEVEL)]
    assert rig.messages("PF-01") == ([] if returned else ["the passive initialisation routine returned FALSE"])
    assert rig.verifier is not None and {finding.severity for finding in rig.verifier.findings} <= {"warning"}
    rig.complete(rig.submit())
    assert len(rig.done) == 1  # the adapter is there all the same


def test_PF_01_a_passive_routine_that_raises_has_failed(make_rig: MakeRig) -> None:
    rig = passive(make_rig, lambda: 1 // 0)
    assert rig.messages("PF-01") == ["the passive initialisation routine returned FALSE"]
    assert "BC-01" in rig.found


def test_PF_04_a_dpc_of_the_passive_routine_runs_when_it_has_returned(make_rig: MakeRig) -> None:
    order: list[str] = []
    miniport = Scripted()

    def run(dpc: Dpc, one: object, two: object) -> None:
        order.append("dpc")

    def routine() -> bool:
        assert miniport.port.issue_dpc(miniport.port.initialize_dpc(run))
        order.append("passive")
        return True

    miniport.initialize = lambda: miniport.port.enable_passive_initialization(routine)
    make_rig(miniport)
    assert order == ["passive", "dpc"]


def test_the_passive_routine_of_a_start_that_failed_is_not_called_at_the_next(make_rig: MakeRig) -> None:
    called: list[str] = []
    rig = make_rig(start=False)

    def initialize() -> bool:
        rig.scripted.port.enable_passive_initialization(lambda: bool(called.append("passive")))
        return False

    rig.scripted.initialize = initialize
    with pytest.raises(ConfigError):
        rig.port.start()
    rig.scripted.initialize = None
    rig.port.start()
    assert called == [] and rig.found == set()


def test_the_passive_routine_is_called_once(make_rig: MakeRig) -> None:
    called: list[str] = []

    def routine() -> bool:
        called.append("passive")
        return True

    rig = passive(make_rig, routine)
    rig.scripted.initialize = None
    rig.port.reset_adapter()
    assert called == ["passive"]
