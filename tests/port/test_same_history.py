"""Whatever watches a port, and however many requests come at once, what the guest and the miniport see is the same.

One random life (requests, completions good and bad, aborts, resets, time-outs, crashes of the miniport) is played to
the same port again and again: bare, verified, traced, both, its batches whole and one by one. The logs of what happened
at the edges must be equal, line by line.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.dma import DmaBuffer
from hba.miniport.config import STOR_ADAPTER_FEATURE_ABORT_COMMAND, STOR_SYNCHRONIZE_FULL_DUPLEX
from hba.miniport.services import REQUEST_COMPLETE
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_UNLOCK_QUEUE,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUSY,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_PENDING,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import TAGGED, FakeMiniport, Rig
from tests.port.machine import honest

SIZE = 512
LUNS = st.integers(0, 2)
FLAGS = st.sampled_from(
    [
        SRB_FLAGS_QUEUE_ACTION_ENABLE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_BYPASS_FROZEN_QUEUE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE,
        SRB_FLAGS_DISABLE_DISCONNECT,
        0,
    ]
)
COMMAND = st.tuples(LUNS, st.integers(0, 30), FLAGS, st.integers(1, 5))
# SrbStatus, ScsiStatus, DataTransferLength
OUTCOME = st.sampled_from(
    [
        (SRB_STATUS_SUCCESS, 0, SIZE),
        (SRB_STATUS_SUCCESS, 0, SIZE),
        (SRB_STATUS_SUCCESS, 0, SIZE),
        (SRB_STATUS_DATA_OVERRUN, 0, 100),
        (SRB_STATUS_SUCCESS, 0, 2 * SIZE),  # more than there was room for (OW-06)
        (SRB_STATUS_SUCCESS | SRB_STATUS_QUEUE_FROZEN, 0, SIZE),  # the port's bit
        (SRB_STATUS_PENDING, 0, SIZE),  # no status (OW-03)
        (0x3E, 0, SIZE),  # likewise
        (SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID, SCSISTAT_CHECK_CONDITION, 0),
        (SRB_STATUS_ERROR, SCSISTAT_CHECK_CONDITION, 0),  # the port fetches the sense data (ER-03)
        (SRB_STATUS_BUSY, 0, 0),
        (SRB_STATUS_ERROR, SCSISTAT_BUSY, 0),
        (SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL, 0),
        (SRB_STATUS_ABORTED, 0, 0),
    ]
)
FUNCTION = st.sampled_from(
    [
        SRB_FUNCTION_RESET_BUS,
        SRB_FUNCTION_RESET_DEVICE,
        SRB_FUNCTION_RESET_LOGICAL_UNIT,
        SRB_FUNCTION_FLUSH,
        SRB_FUNCTION_LOCK_QUEUE,
        SRB_FUNCTION_UNLOCK_QUEUE,
    ]
)
STEP = st.one_of(
    st.tuples(st.just("batch"), st.lists(COMMAND, min_size=1, max_size=6)),
    st.tuples(st.just("batch"), st.lists(COMMAND, min_size=1, max_size=6)),
    st.tuples(st.just("finish"), st.integers(0, 40), OUTCOME),
    st.tuples(st.just("finish"), st.integers(0, 40), OUTCOME),
    st.tuples(st.just("again"), st.integers(0, 40)),
    st.tuples(st.just("abort"), st.integers(0, 40)),
    st.tuples(st.just("function"), FUNCTION, LUNS),
    st.tuples(st.just("adapter reset")),
    st.tuples(st.just("time"), st.sampled_from([0.01, 0.3, 1, 2, 6])),
    st.tuples(st.just("crash")),
)
VARIANTS = [  # verifier, traced, batches whole
    ("off", False, True),
    ("off", False, False),
    ("off", True, True),
    ("report", False, True),
    ("report", False, False),
    ("report", True, True),
]


def scsiport(verifier: str, traced: bool) -> Rig:
    config = ScsiPortConfig(bus_reset_hold_time=2, abort_timeout=2, busy_retries=2, requests_per_unit=4)
    return Rig(honest(**TAGGED), config, "scsiport", verifier, traced)


def storport(verifier: str, traced: bool) -> Rig:
    miniport = FakeMiniport(
        "",
        synchronization_model=STOR_SYNCHRONIZE_FULL_DUPLEX,
        maximum_transfer_length=1 << 20,
        number_of_physical_breaks=64,
        feature_support=STOR_ADAPTER_FEATURE_ABORT_COMMAND,
        bus_reset_hold_time=500_000,
    )
    config = StorPortConfig(initial_lun_queue_depth=3, max_ios_per_lun=3, max_number_of_io=5, busy_retry=2)
    return Rig(miniport, config, "storport", verifier, traced)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Crashes are part of these lives."""
    caplog.set_level(logging.CRITICAL, "hba.port")


class Play:
    """One life of one port. `log` is what was seen at its edges."""

    def __init__(self, rig: Rig, whole: bool) -> None:
        self.rig = rig
        self.whole = whole
        self.log: list[tuple[Any, ...]] = []
        self.mine: list[Srb] = []
        self.seen: list[Srb] = []  # by the miniport, completed or not
        self.crashing = False
        start_io, reset_bus = rig.miniport.hw_start_io, rig.miniport.hw_reset_bus

        def hw_start_io(srb: Srb) -> bool:
            self.log.append(("start", self.name(srb), srb.function, srb.queue_tag, rig.clock.now()))
            if self.crashing:
                self.crashing = False
                raise RuntimeError("fault injected")
            self.seen.append(srb)
            return start_io(srb)

        def hw_reset_bus(path: int) -> bool:
            self.log.append(("reset_bus", path, rig.clock.now()))
            return reset_bus(path)

        rig.miniport.hw_start_io = hw_start_io  # type: ignore[method-assign]
        rig.miniport.hw_reset_bus = hw_reset_bus  # type: ignore[method-assign]

    def name(self, srb: Srb) -> int:
        """Which of those submitted it is; -1: the port's own."""
        real = self.rig.real(srb)
        return next((number for number, mine in enumerate(self.mine) if mine is real), -1)

    def completed(self, srb: Srb) -> None:
        assert not self.rig.miniport.in_start_io
        self.log.append(
            (
                "up",
                self.name(srb),
                srb.srb_status,
                srb.scsi_status,
                srb.data_transfer_length,
                srb.sense_info_buffer_length,
                self.rig.clock.now(),
            )
        )

    def srb(self, function: int, lun: int, **members: Any) -> Srb:
        srb = self.rig.srb(function, 0, lun, **members)
        srb.completion = self.completed
        self.mine.append(srb)
        return srb

    def step(self, what: str, *arguments: Any) -> None:
        rig, port, miniport = self.rig, self.rig.port, self.rig.miniport
        if what == "batch":
            srbs = [self._read(*command) for command in arguments[0]]
            if self.whole:
                port.submit_all(srbs)
            else:
                for srb in srbs:
                    port.submit(srb)
        elif what == "finish" and miniport.held:
            number, (srb_status, scsi_status, length) = arguments
            srb = miniport.held[number % len(miniport.held)]
            if srb.function:
                rig.hardware(lambda: miniport.finish(srb, SRB_STATUS_SUCCESS))
            else:
                members = {"scsi_status": scsi_status, "data_transfer_length": length}
                rig.hardware(lambda: miniport.finish(srb, srb_status, **members))
        elif what == "again" and self.seen:
            srb = self.seen[arguments[0] % len(self.seen)]
            if not any(rig.real(held) is rig.real(srb) for held in miniport.held):  # OW-02: completed, or taken back
                rig.hardware(lambda: miniport.port.notification(REQUEST_COMPLETE, srb))
        elif what == "abort" and self.mine:
            victim = self.mine[arguments[0] % len(self.mine)]
            port.submit(self.srb(SRB_FUNCTION_ABORT_COMMAND, victim.lun, next_srb=victim))
        elif what == "function":
            port.submit(self.srb(arguments[0], arguments[1]))
        elif what == "adapter reset":
            port.reset_adapter()
        elif what == "time":
            rig.seconds(arguments[0])
        elif what == "crash":
            self.crashing = True
        self.log.append(("state", port.outstanding, port.snapshot()["counters"]))

    def _read(self, lun: int, key: int, flags: int, timeout: int) -> Srb:
        return self.srb(
            0,
            lun,
            cdb=bytes((0x28, 0, 0, 0, 0, key, 0, 0, 1, 0)),
            cdb_length=10,
            queue_sort_key=key,
            srb_flags=flags | SRB_FLAGS_DATA_IN,
            time_out_value=timeout,
            sense_info_buffer_length=18,
            mdl=DmaBuffer.of(bytearray(SIZE)),
            data_transfer_length=SIZE,
        )


def played(model: str, steps: Sequence[tuple[Any, ...]], verifier: str, traced: bool, whole: bool) -> list[Any]:
    rig = (scsiport if model == "scsiport" else storport)(verifier, traced)
    try:
        play = Play(rig, whole)
        for step in steps:
            play.step(*step)
        return play.log
    finally:
        rig.close()


@pytest.mark.parametrize("model", ["scsiport", "storport"])
@given(steps=st.lists(STEP, min_size=10, max_size=40))
@settings(max_examples=settings().max_examples, deadline=None)
def test_the_same_life_is_the_same_history(model: str, steps: list[tuple[Any, ...]]) -> None:
    first, *others = VARIANTS
    expected = played(model, steps, *first)
    for variant in others:
        assert played(model, steps, *variant) == expected, variant
