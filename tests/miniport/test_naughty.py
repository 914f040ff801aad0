"""The miniport that breaks rules on purpose: what is found is exactly what its documentation says."""

from __future__ import annotations

import pytest

from hba.errors import ConfigError
from hba.miniport.examples.naughty import SINS, expected
from hba.rules import RULES
from hba.srb import SRB_STATUS_SUCCESS
from tests.miniport.rig import MODELS, Rig

NAUGHTY = "hba.miniport.examples.naughty:NaughtyMiniport"


def serve(rig: Rig, requests: int) -> None:
    """Reads and writes that must all succeed."""
    rig.submit(b"\x12" + bytes(5), 36)
    for number in range(requests):
        write = number % 3 == 0
        srb = rig.submit((b"\x2a" if write else b"\x28") + bytes(9), write=write)
        assert srb.srb_status == SRB_STATUS_SUCCESS, number
        assert write or srb.mdl is None or srb.mdl.read() == b"\x5a" * 4096
    assert len(rig.done) == requests + 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", ["report", "strict"])
def test_all_sins_are_found_and_nothing_else(model: str, level: str) -> None:
    rig = Rig(model, NAUGHTY, level)
    serve(rig, 2 * 10 * len(SINS[model]))
    assert rig.found == expected(model)
    assert expected(model) <= set(RULES)


@pytest.mark.parametrize(("model", "rule"), [(model, rule) for model in MODELS for rule in SINS[model]])
def test_each_sin_alone(model: str, rule: str) -> None:
    rig = Rig(model, NAUGHTY, "report", options={"rules": [rule], "every": 2})
    serve(rig, 10)
    assert rig.found == expected(model, [rule])


@pytest.mark.parametrize("model", MODELS)
def test_without_the_verifier_it_serves_all_the_same(model: str) -> None:
    serve(Rig(model, NAUGHTY, None), 400)


@pytest.mark.parametrize("model", MODELS)
def test_commands_that_end_later(model: str) -> None:
    rig = Rig(model, NAUGHTY, "report", options={"every": 3})
    rig.bus.hold = True
    submitted = 0
    while submitted < 400:
        for _ in range(4):
            rig.submit()
            submitted += 1
        while rig.bus.held:
            rig.bus.release(rig.bus.held[0])
    assert len(rig.done) == submitted
    assert {srb.srb_status for srb in rig.done} == {SRB_STATUS_SUCCESS}
    assert rig.found == expected(model)


@pytest.mark.parametrize("options", [{"rules": ["XX-01"]}, {"every": 0}, {"every": "often"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Rig("storport", NAUGHTY, options=options)
