"""Interrupt causes, the mask and the line: what each register write and each event does to the interrupt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.pci.interrupts import InterruptWatcher
from tests.adapters.pvscsi.driver import Driver

STATUS, MASK = 0x100C, 0x2010


@pytest.fixture
def quiet(make: Callable[..., Driver]) -> Driver:
    """Set up, with everything masked."""
    driver = make()
    assert driver.setup() == 0
    return driver


class Vectors(InterruptWatcher):
    def __init__(self) -> None:
        self.told: list[int] = []

    def signalled(self, vector: int) -> None:
        self.told.append(vector)


def test_everything_is_told_by_the_first_vector(make: Callable[..., Driver]) -> None:
    driver = make(msix_vectors=2)
    assert driver.setup() == 0
    vectors = Vectors()
    driver.adapter.function.interrupts.watchers += (vectors,)
    driver.adapter.announce_units()
    driver.write(MASK, 0xF)
    driver.adapter.announce_completions()
    driver.adapter.announce_units()
    assert vectors.told == [0, 0, 0]


def seen(driver: Driver) -> tuple[int, bool, int]:
    """Causes, the line, signals so far."""
    interrupts = driver.adapter.function.interrupts
    return driver.read(STATUS), interrupts.asserted, interrupts.signals


def test_what_is_masked_waits_and_is_announced_when_it_is_not_any_more(quiet: Driver) -> None:
    quiet.adapter.announce_completions()
    assert seen(quiet) == (r.INTR_CMPL_0, False, 0)
    assert not quiet.adapter.listens()
    quiet.write(MASK, r.INTR_MSG_0)
    assert seen(quiet) == (r.INTR_CMPL_0, False, 0)
    assert not quiet.adapter.listens()
    quiet.write(MASK, r.INTR_CMPL_0)
    assert seen(quiet) == (r.INTR_CMPL_0, True, 1)
    assert quiet.adapter.listens()
    quiet.write(MASK, 0)
    assert seen(quiet) == (r.INTR_CMPL_0, False, 1)


def test_a_masked_cause_does_not_signal_for_another_one(quiet: Driver) -> None:
    """The line is up as long as the other waits."""
    quiet.write(MASK, r.INTR_CMPL_0)
    quiet.adapter.announce_units()
    assert seen(quiet) == (r.INTR_MSG_0, False, 0)
    quiet.adapter.announce_completions()
    assert seen(quiet) == (r.INTR_CMPL_0 | r.INTR_MSG_0, True, 1)
    quiet.adapter.announce_units()
    assert seen(quiet) == (r.INTR_CMPL_0 | r.INTR_MSG_0, True, 1)
    quiet.write(STATUS, r.INTR_MSG_0)
    assert seen(quiet) == (r.INTR_CMPL_0, True, 1)
    quiet.adapter.announce_completions()  # anew, whether the guest has cleared it or not
    assert seen(quiet) == (r.INTR_CMPL_0, True, 2)
    quiet.write(STATUS, r.INTR_CMPL_0)
    assert seen(quiet) == (0, False, 2)


def test_a_reset_of_the_adapter_takes_the_interrupt_back(quiet: Driver) -> None:
    quiet.write(MASK, 0xF)
    quiet.adapter.announce_units()
    assert seen(quiet) == (r.INTR_MSG_0, True, 1)
    assert quiet.command(r.CMD_ADAPTER_RESET) == 0
    assert seen(quiet) == (0, False, 1)
    assert quiet.read(MASK) == 0xF


@pytest.mark.parametrize("offset", [0x3014, 0x4018])
def test_either_register_is_a_kick(quiet: Driver, offset: int) -> None:
    quiet.put()
    quiet.write(offset, 0)
    quiet.turn()
    assert len(quiet.port.srbs) == 1 and quiet.adapter.kicks == 1


def test_a_reset_of_the_device_forgets_commands_and_registers(quiet: Driver) -> None:
    assert quiet.command(r.CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little")) == 1
    quiet.write(MASK, 0xF)
    quiet.write(0x0, r.CMD_RESET_DEVICE)
    quiet.adapter.function.reset()
    quiet.write_config(4, 6, 2)
    assert (quiet.read(MASK), quiet.read(0x8)) == (0, 0)
    commands = quiet.adapter.commands
    assert (commands.pending(), commands.threshold_enabled, commands.last) == ((0, b""), False, "")
