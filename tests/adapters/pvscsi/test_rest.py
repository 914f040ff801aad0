"""Bringing an adapter to rest: what is waited for, how long, and what is said of what does not end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hba.adapters.keeper import FLUSH_PATIENCE, LOOK, PATIENCE, AdapterKeeper
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.clock import S, VirtualClock
from hba.errors import StorageError
from hba.scsi.disk.disk import Disk
from hba.scsi.server import Identity
from tests.adapters.pvscsi.driver import Driver, ScriptedPort
from tests.adapters.pvscsi.test_moderation import THRESHOLD, ask_for_threshold, busy
from tests.scsi.util import Deferred


class Port(ScriptedPort):
    """`own`: it has requests of its own under way; `deaf`: a reset ends nothing."""

    own = deaf = False

    @property
    def idle(self) -> bool:
        return not (self.own or self.srbs)

    def reset_adapter(self) -> None:
        if self.deaf:
            self.resets += 1
        else:
            self.own = False
            super().reset_adapter()


class Busy(Disk):
    """`busy`: it has something under way that nobody has asked for."""

    busy = False

    @property
    def idle(self) -> bool:
        return not self.busy


class Scene:
    """An adapter with units at 0:0 and 0:1, and what its keeper answers."""

    def __init__(self, driver: Driver, units: int = 2) -> None:
        self.driver = driver
        self.port = Port()
        self.stores = [Deferred(1 << 20) for _ in range(units)]
        self.units = [Busy(store, Identity(), VirtualClock()) for store in self.stores]
        for lun, unit in enumerate(self.units):
            driver.bus.attach(0, lun, unit)
        self.keeper = AdapterKeeper(driver.loop, driver.adapter, self.port, driver.bus, PvscsiOptions())
        self.answers: list[str] = []

    def rest(self, **options: Any) -> None:
        self.keeper.rest(self.answers.append, **options)

    def advance(self, nanoseconds: int) -> None:
        self.driver.clock.advance(nanoseconds)

    def take(self) -> None:
        """The adapter has a request of the guest's."""
        self.driver.put()
        self.driver.kick()


@pytest.fixture
def scene(driver: Driver) -> Scene:
    return Scene(driver)


def test_what_is_at_rest_already(driver: Driver) -> None:
    """Answered at once; what is not stable is only waited for if asked to, which is nothing when there are no units."""
    for units, flush in ((2, False), (0, True), (0, False)):
        scene = Scene(driver, units)
        scene.rest(flush=flush)
        assert scene.answers == [""] and driver.adapter.held
        assert [store.calls for store in scene.stores] == [[]] * units
        for lun in range(units):
            driver.bus.detach(0, lun)
    assert driver.clock.next_deadline() is None


def test_the_wish_not_to_be_kicked_is_taken_back(driver: Driver) -> None:
    """Whoever goes on may be another adapter, which does not know of it."""
    ask_for_threshold(driver)
    busy(driver)
    assert driver.u32(THRESHOLD)
    scene = Scene(driver)
    scene.rest()
    assert scene.answers == [""]
    assert driver.u32(THRESHOLD) == 0 and not driver.adapter.moderation.window.is_open


@pytest.mark.parametrize("what", ["a request", "the port", "a unit"])
def test_it_is_looked_at_again_until_nothing_is_under_way(scene: Scene, what: str) -> None:
    if what == "a request":
        scene.take()
    scene.port.own = what == "the port"
    scene.units[1].busy = what == "a unit"
    scene.rest()
    scene.advance(5 * LOOK + LOOK // 2)
    assert scene.answers == []
    if what == "a request":
        scene.driver.port.complete(scene.driver.port.srbs[0])
        scene.driver.turn()
    scene.port.own = scene.units[1].busy = False
    assert scene.answers == []
    scene.advance(LOOK // 2)
    assert scene.answers == [""]
    scene.advance(2 * PATIENCE)
    assert scene.answers == [""]


@pytest.mark.parametrize("force", [True, False])
def test_what_units_do_by_themselves_is_not_ended(scene: Scene, force: bool) -> None:
    """A reset of the adapter ends what the guest has asked for; there is nothing of it here."""
    for unit in scene.units:
        unit.busy = True
    scene.rest(force=force)
    scene.advance(PATIENCE - 1)
    assert scene.answers == []
    scene.advance(1)
    assert scene.answers == ["0:0:0, 0:0:1 is still at work"]
    assert scene.port.resets == 0


def test_without_force_nothing_is_ended(scene: Scene) -> None:
    scene.port.own = True
    scene.rest()
    scene.advance(PATIENCE)
    assert scene.answers == ["the adapter is still at work"]
    assert scene.port.resets == 0


def test_with_force_it_is_ended_at_the_deadline(scene: Scene) -> None:
    """The port's own requests, too."""
    scene.port.own = True
    scene.rest(force=True)
    scene.advance(PATIENCE - 1)
    assert scene.port.resets == 0
    scene.advance(1)
    assert scene.port.resets == 1 and scene.answers == []
    scene.advance(LOOK)
    assert scene.answers == [""]


def test_what_survives_a_reset_is_waited_for_once_more(scene: Scene) -> None:
    scene.port.own = scene.port.deaf = True
    scene.rest(force=True)
    scene.advance(PATIENCE + S - 1)
    assert scene.port.resets == 1 and scene.answers == []
    scene.advance(1)
    assert scene.answers == ["the adapter is still at work"]
    scene.advance(2 * PATIENCE)
    assert scene.port.resets == 1 and len(scene.answers) == 1


def test_only_the_latest_is_answered(scene: Scene) -> None:
    """Whoever asks anew has forgotten the first; after `release` nobody waits at all."""
    first: list[str] = []
    scene.port.own = True
    scene.keeper.rest(first.append)
    scene.advance(PATIENCE // 2)
    scene.rest()
    scene.advance(PATIENCE - LOOK)
    assert (first, scene.answers) == ([], [])
    scene.advance(LOOK)
    assert (first, scene.answers) == ([], ["the adapter is still at work"])
    scene.rest()
    scene.keeper.release()
    assert not scene.driver.adapter.held
    scene.advance(2 * PATIENCE)
    assert len(scene.answers) == 1


# -- what is acknowledged becomes stable ------------------------------------------------------------------------------


@pytest.fixture
def flushing(scene: Scene) -> Iterator[Scene]:
    """At rest, and both stores are asked to write out what they hold."""
    for store in scene.stores:
        store.unflushed = True
    scene.rest(flush=True)
    assert [[call[0] for call in store.calls] for store in scene.stores] == [["flush"]] * 2
    yield scene
    scene.advance(2 * FLUSH_PATIENCE)
    assert len(scene.answers) <= 1


def test_all_stores_are_waited_for(flushing: Scene) -> None:
    flushing.stores[1].finish()
    flushing.advance(FLUSH_PATIENCE - 1)
    assert flushing.answers == []
    flushing.stores[0].finish()
    assert flushing.answers == [""]


def test_a_store_that_fails_is_told(flushing: Scene) -> None:
    for store, why in zip(flushing.stores, ("disk full", "gone"), strict=True):
        store.finish(StorageError(why))
    assert flushing.answers == ["0:0:0: disk full; 0:0:1: gone"]


def test_a_store_that_takes_too_long_is_told(flushing: Scene) -> None:
    flushing.stores[0].finish()
    flushing.advance(FLUSH_PATIENCE - 1)
    assert flushing.answers == []
    flushing.advance(1)
    assert flushing.answers == ["the store of 0:0:1 has not written out what it holds for 10 s"]
    flushing.stores[1].finish()  # nobody waits for it any more


@pytest.mark.parametrize("again", [True, False])
def test_a_flush_nobody_waits_for_any_more(flushing: Scene, again: bool) -> None:
    """Its end is not taken for that of the next one."""
    flushing.keeper.release()
    if again:
        flushing.rest(flush=True)
    for store in flushing.stores:
        store.finish(StorageError("gone"))
    assert flushing.answers == []
    for store in flushing.stores:
        store.finish_all()
    assert flushing.answers == [""] * again
