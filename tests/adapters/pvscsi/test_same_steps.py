"""Whoever watches an adapter's registers, rings, memory and interrupts: the guest and the port see the same.

One random life of a driver, good and bad, is played to an adapter that is bare, verified, traced, and both. What is in
the guest's memory, what the port has got, which registers say what and how often it was interrupted must be equal after
every step.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.ring.trace import RingTrace
from hba.clock import MS
from hba.srb import SRB_STATUS_ABORTED, SRB_STATUS_ERROR, SRB_STATUS_SUCCESS
from hba.trace.recorder import Recorder
from tests.adapters.pvscsi.driver import (
    BUS_MASTER,
    CMP,
    COMMAND_REGISTER,
    DATA,
    MEMORY_ENABLE,
    MSG,
    RAM,
    STATE,
    Driver,
)

Step = Callable[[Driver], object]
LIST = 0x300000


def put(context: int, length: int, flags: int, address: int, cdb_length: int) -> Step:
    return lambda driver: driver.put(
        b"\x28" + bytes(9), context=context, length=length, flags=flags, address=address, cdb_length=cdb_length
    )


def kick(number: int) -> Step:
    return lambda driver: (driver.write(0x4018 if number else 0x3014, 0), driver.turn())


def both(one: Step, two: Step) -> Step:
    return lambda driver: (one(driver), two(driver))


def complete(which: int, status: int) -> Step:
    def step(driver: Driver) -> None:
        if driver.port.srbs:
            driver.port.complete(driver.port.srbs[which % len(driver.port.srbs)], status)
        driver.turn()

    return step


def command(number: int, descriptor: bytes) -> Step:
    return lambda driver: driver.command(number, descriptor)


def rewrite(slot: int) -> Step:
    """The driver writes to a descriptor it has given away."""
    return lambda driver: driver.poke(0x10000 + slot * st.REQUEST_SIZE + 8, bytes((slot,)))


def memory(away: bool) -> Step:
    def step(driver: Driver) -> None:
        driver.memory.unmap_all()
        if not away:
            driver.memory.map(0, RAM, 3, os.dup(driver.fd), 0)

    return step


def again(driver: Driver) -> None:
    driver.setup()
    driver.setup_messages()


def master(on: bool) -> Step:
    return lambda driver: driver.write_config(COMMAND_REGISTER, MEMORY_ENABLE | BUS_MASTER * on, 2)


def hot_plug(change: str, target: int) -> Step:
    return lambda driver: driver.adapter.hot_plug(change, target, 0)


def access(write: bool, offset: int, size: int) -> Step:
    return lambda driver: driver.write(offset, 0xFF, size) if write else driver.read(offset, size)


def passes(time: int) -> Step:
    return lambda driver: (driver.clock.advance(time * MS), driver.turn())


FLAGS = (st.FLAG_DIR_TOHOST, st.FLAG_DIR_TODEVICE, st.FLAG_DIR_NONE, st.FLAG_DIR_TOHOST | st.FLAG_WITH_SG_LIST, 0, 0x40)
PUT = hs.builds(
    put,
    hs.integers(0, 5),
    hs.sampled_from([0, 512, 65536]),
    hs.sampled_from(FLAGS),
    hs.sampled_from([DATA, DATA, LIST, RAM]),
    hs.sampled_from([6, 10, 10, 0, 17]),
)
KICK = hs.builds(kick, hs.integers(0, 1))
COMPLETE = hs.builds(
    complete, hs.integers(0, 9), hs.sampled_from([SRB_STATUS_SUCCESS, SRB_STATUS_ABORTED, SRB_STATUS_ERROR])
)
OTHERS = hs.one_of(
    hs.builds(command, hs.sampled_from([r.CMD_ADAPTER_RESET, r.CMD_RESET_BUS, 77]), hs.just(b"")),
    hs.builds(command, hs.just(r.CMD_SETUP_REQCALLTHRESHOLD), hs.just((1).to_bytes(4, "little"))),
    hs.builds(rewrite, hs.integers(0, 3)),
    hs.builds(memory, hs.booleans()),
    hs.just(again),
    hs.builds(master, hs.booleans()),
    hs.builds(hot_plug, hs.sampled_from(["added", "removed"]), hs.integers(0, 2)),
    hs.builds(access, hs.booleans(), hs.sampled_from([0x100C, 0x2010, 0x500, 0x8]), hs.sampled_from([1, 2, 4])),
    hs.builds(passes, hs.sampled_from([0, 1, 20, 2000])),
    hs.just(Driver.completions),
)
ABORT = hs.builds(
    command, hs.just(r.CMD_ABORT_CMD), hs.builds(lambda context: st.ABORT_CMD.pack(context, 0, 0), hs.integers(0, 5))
)
STEPS = hs.one_of(PUT, hs.builds(both, PUT, KICK), COMPLETE, ABORT, OTHERS)


def seen(driver: Driver) -> list[object]:
    """What the guest and the port can tell of the adapter."""
    adapter = driver.adapter
    interrupts = adapter.function.interrupts
    return [
        driver.peek(STATE, 256),
        driver.peek(CMP, 0x1000),
        driver.peek(MSG, 0x1000),
        [(repr(srb), srb.context[:1] if srb.context else None) for srb in driver.port.srbs],
        adapter.registers["INTR_STATUS"],
        adapter.registers["COMMAND_STATUS"],
        (interrupts.signals, interrupts.asserted),
        {name: value for name, value in adapter.counters().items() if name != "dma_faults"},
        adapter.access.fault,
        driver.loop.turns,
    ]


def life(steps: list[Step], *, verified: bool, traced: bool) -> list[list[object]]:
    driver = Driver(verify=verified)
    try:
        if traced:
            driver.adapter.watch(RingTrace(Recorder(driver.clock)))
        driver.scatter(LIST, [(DATA, 300, 0), (DATA + 0x1000, 65536, 0)])
        again(driver)
        driver.write(0x2010, 0xF)
        log = []
        for step in steps:
            step(driver)
            log.append(seen(driver))
        return log
    finally:
        driver.close()


@settings(max_examples=200, deadline=None)
@given(hs.lists(STEPS, min_size=5, max_size=40))
def test_the_guest_sees_the_same_whoever_watches(steps: list[Step]) -> None:
    bare = life(steps, verified=False, traced=False)
    for verified, traced in ((True, False), (False, True), (True, True)):
        assert life(steps, verified=verified, traced=traced) == bare


@pytest.mark.parametrize("status", [SRB_STATUS_SUCCESS, SRB_STATUS_ERROR])
def test_a_life_is_one(status: int) -> None:
    """The lives above do take requests and end them."""
    steps = [put(1, 512, st.FLAG_DIR_TOHOST, DATA, 10), kick(1), complete(0, status)]
    bare = life(steps, verified=False, traced=False)
    counters = bare[-1][7]
    assert isinstance(counters, dict) and counters["completions"] == 1
