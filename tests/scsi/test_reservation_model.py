"""PERSISTENT RESERVE OUT against a model written from SPC-4's tables: registrations of three nexuses, power losses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from hba.scsi.disk.disk import Disk
from hba.scsi.state import SavedState
from tests.scsi.test_reservations import (
    CLEAR,
    IGNORE,
    PREEMPT,
    PREEMPT_ABORT,
    REGISTER,
    RELEASE,
    RESERVE,
    A,
    B,
    C,
    generation,
    keys,
    out,
)
from tests.scsi.util import CHECK_CONDITION, GOOD, RESERVATION_CONFLICT, disk, run, settle

NEXUSES = (A, B, C)
TYPES = (1, 3, 5, 6, 7, 8)
ALL_REGISTRANTS = (7, 8)
POWER = 99  # instead of an action
OWN = -1  # instead of a key: the one the nexus has registered, or none


@dataclass(frozen=True)
class Step:
    who: int
    action: int
    key: int
    action_key: int
    kind: int
    aptpl: bool


@dataclass
class Model:
    """What SPC-4 5.13 says of one unit."""

    keys: dict[int, int] = field(default_factory=dict)
    holder: int | None = None
    kind: int = 0
    generation: int = 0
    aptpl: bool = False

    def holds(self, who: int) -> bool:
        return who in self.keys and (self.kind in ALL_REGISTRANTS or (self.kind != 0 and self.holder == who))

    def step(self, step: Step) -> int:
        registered = self.keys.get(step.who)
        if step.action == POWER:
            if not self.aptpl:
                self.keys, self.holder, self.kind = {}, None, 0
            self.generation = 0
            return GOOD
        if step.action in (REGISTER, IGNORE):
            return self.register(step, registered)
        if registered != step.key:  # nobody may do the rest without having registered that key
            return RESERVATION_CONFLICT
        if step.action == RESERVE:
            if self.kind and not (self.holds(step.who) and self.kind == step.kind):
                return RESERVATION_CONFLICT
            if not self.kind:
                self.holder, self.kind = step.who, step.kind
        elif step.action == RELEASE:
            if self.holds(step.who):
                if step.kind != self.kind:
                    return CHECK_CONDITION
                self.holder, self.kind = None, 0
        elif step.action == CLEAR:
            self.keys, self.holder, self.kind = {}, None, 0
            self.generation += 1
        else:
            return self.preempt(step)
        return GOOD

    def register(self, step: Step, registered: int | None) -> int:
        """Tables "Register behaviors for a(n un)registered I_T nexus"."""
        if step.action == REGISTER and step.key != (registered or 0):
            return RESERVATION_CONFLICT
        if registered is None and not step.action_key:
            return GOOD  # nothing
        self.generation += 1
        self.aptpl = step.aptpl
        if step.action_key:
            self.keys[step.who] = step.action_key
            return GOOD
        held = self.holds(step.who)
        del self.keys[step.who]
        if held and (self.kind not in ALL_REGISTRANTS or not self.keys):
            self.holder, self.kind = None, 0
        return GOOD

    def preempt(self, step: Step) -> int:
        victim = step.action_key
        everybody = self.kind in ALL_REGISTRANTS
        if not victim and not everybody:
            return CHECK_CONDITION
        if victim and victim not in self.keys.values():
            return RESERVATION_CONFLICT
        takes = not victim if everybody else bool(self.kind) and self.keys.get(self.holder or -1) == victim
        gone = [who for who, key in self.keys.items() if not victim or key == victim]
        for who in gone:
            if who != step.who or not takes:
                del self.keys[who]
        if takes:
            self.holder, self.kind = step.who, step.kind
        elif everybody and not self.keys:
            self.holder, self.kind = None, 0
        self.generation += 1
        return GOOD


steps = hs.builds(
    Step,
    who=hs.sampled_from(NEXUSES),
    action=hs.sampled_from((REGISTER, REGISTER, IGNORE, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, POWER, POWER)),
    key=hs.sampled_from((OWN, OWN, OWN, 0, 1, 2)),
    action_key=hs.sampled_from((0, 1, 2)),
    kind=hs.sampled_from(TYPES),
    aptpl=hs.booleans(),
)


def started(path: Path) -> Disk:
    unit = disk(state=SavedState(path))
    unit.reset("power-on")
    return unit


@settings(max_examples=400)
@given(hs.lists(steps, max_size=30))
def test_every_history_is_the_models(tmp_path_factory: pytest.TempPathFactory, history: list[Step]) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    unit, model = started(path), Model()
    for step in history:
        settle(unit, *NEXUSES)
        if step.key == OWN:
            step = replace(step, key=model.keys.get(step.who, 0))
        expected = model.step(step)
        if step.action == POWER:
            unit.state.close()
            unit = started(path)
            settle(unit, *NEXUSES)
        else:
            flags = 1 if step.aptpl and step.action in (REGISTER, IGNORE) else 0
            kind = step.kind if step.action in (RESERVE, RELEASE, PREEMPT, PREEMPT_ABORT) else 0
            result = out(unit, step.who, step.action, step.key, step.action_key, kind, flags)
            assert result.status == expected, step
            settle(unit, *NEXUSES)
        assert sorted(keys(unit)) == sorted(model.keys.values()), step
        assert generation(unit) == model.generation, step
        assert unit.reservations.type == model.kind, step
        for who in NEXUSES:
            assert unit.reservations.keys.get(who) == model.keys.get(who), step
            assert unit.reservations.holds(who) == model.holds(who), step
    unit.state.close()


def test_nothing_registered_by_a_third_nexus_leaves_what_others_saved(tmp_path: Path) -> None:
    """REGISTER 0 to 0 of a nexus that is not registered wiped the saved state of a reservation that was moved."""
    path = tmp_path / "state.json"
    unit = started(path)
    settle(unit, *NEXUSES)
    assert out(unit, A, REGISTER, 0, 0xAAAA, flags=1).status == GOOD
    assert out(unit, A, RESERVE, 0xAAAA, kind=1).status == GOOD
    move = (0xAAAA).to_bytes(8, "big") + (0xBBBB).to_bytes(8, "big") + bytes((0, 3)) + (1).to_bytes(2, "big")
    move += (24).to_bytes(4, "big") + bytes((1, 0, 0, B, 0, 0, 0, 1)) + bytes(16)
    assert run(unit, "5f070000000000003000", out=move, initiator=A).status == GOOD
    saved = path.read_text()
    for action in (REGISTER, IGNORE):
        settle(unit, *NEXUSES)
        assert out(unit, C, action, 0, 0).status == GOOD
        assert path.read_text() == saved and generation(unit) == 2
    unit.state.close()
    unit = started(path)
    assert unit.reservations.holds(B) and unit.reservations.keys == {B: 0xBBBB}
