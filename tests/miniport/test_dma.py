"""The default DMA miniport and the example to copy from, under both models, with and without the verifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hba.errors import ConfigError, DmaFault
from hba.scsi.task import (
    DATA_IN,
    DATA_OUT,
    ORDERED,
    RESPONSE_ABORTED,
    RESPONSE_NO_LUN,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    SIMPLE,
    Task,
)
from hba.srb import (
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_MASK,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
)
from tests.miniport.rig import MODELS, Rig

GOOD = "hba.miniport.examples.good:GoodMiniport"
SENSE = bytes.fromhex("700005000000000a00000000200000000000")
Make = Callable[..., Rig]


@pytest.fixture(params=["dma", GOOD], ids=["dma", "good"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[None, "strict"], ids=["plain", "strict"])
def level(request: pytest.FixtureRequest) -> str | None:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def make(model: str, name: str, level: str | None) -> Iterator[Make]:
    rigs: list[Rig] = []

    def build(**options: Any) -> Rig:
        rigs.append(Rig(model, name, level, **options))
        return rigs[-1]

    yield build
    for rig in rigs:
        if rig.verifier is not None:
            assert rig.found == set(), list(rig.verifier.findings)
        rig.loop.close()


def test_what_the_chip_can_do_is_said(make: Make) -> None:
    info = make().port.info
    assert info.master and info.scatter_gather and info.auto_request_sense
    assert info.tagged_queuing and info.multiple_request_per_lu


@pytest.fixture
def rig(make: Make) -> Rig:
    return make()


@pytest.mark.parametrize("write", [False, True])
def test_a_transfer_that_ends_at_once(rig: Rig, write: bool) -> None:
    srb = rig.submit(b"\x2a" + bytes(9) if write else b"\x28" + bytes(9), write=write)
    assert rig.done == [srb]
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, 4096)
    (_, _, task) = rig.bus.seen[0]
    assert task.direction == (DATA_OUT if write else DATA_IN)
    assert task.data is srb.mdl  # the port's own list: not translated a second time
    assert rig.memory.translated == 0
    assert srb.mdl is not None and (srb.mdl.read() == b"\x5a" * 4096) is not write


def test_one_that_ends_later_interrupts(rig: Rig) -> None:
    rig.bus.hold = True
    first, second = rig.submit(), rig.submit()
    assert rig.done == [] and len(rig.bus.held) == 2
    rig.bus.release(rig.bus.held[1])
    assert rig.done == [second]
    rig.bus.release(rig.bus.held[0])
    assert rig.done == [second, first]
    assert not rig.chip.asserted


def test_no_data(rig: Rig) -> None:
    srb = rig.submit(bytes(6), 0)
    assert srb.srb_status == SRB_STATUS_SUCCESS
    assert rig.bus.seen[0][2].data is None


def test_queue_action(rig: Rig) -> None:
    rig.submit(queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST)
    untagged = rig.srb(queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST)
    untagged.srb_flags &= ~2
    rig.port.submit(untagged)
    assert [task.attribute for _, _, task in rig.bus.seen] == [ORDERED, SIMPLE]


def test_OW_07_underrun_is_data_overrun_with_the_true_length(rig: Rig) -> None:
    rig.bus.answer = lambda task: setattr(task, "transferred", 100)
    srb = rig.submit(b"\x12" + bytes(5), 255)
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_DATA_OVERRUN, 100)


def test_OW_07_overrun(rig: Rig) -> None:
    def more(task: Task) -> None:
        task.transferred = 36
        task.overrun = 60

    rig.bus.answer = more
    srb = rig.submit(b"\x12" + bytes(5), 36)
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_DATA_OVERRUN, 36)


def check_condition(task: Task) -> None:
    task.status = 2
    task.sense = SENSE


@pytest.mark.parametrize("room", [96, 18, 8])
def test_ER_04_auto_sense(rig: Rig, room: int) -> None:
    rig.bus.answer = check_condition
    srb = rig.submit(sense_info_buffer_length=room)
    assert srb.srb_status & ~0x40 == SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID
    assert (srb.scsi_status, srb.data_transfer_length) == (2, 0)
    assert srb.sense_info_buffer == SENSE[:room]


def test_ER_04_no_sense_where_none_is_wanted(rig: Rig) -> None:
    rig.bus.answer = check_condition
    srb = rig.srb()
    srb.srb_flags |= SRB_FLAGS_DISABLE_AUTOSENSE
    srb.sense_info_buffer_length = 0
    rig.port.submit(srb)
    assert srb.srb_status & ~0x40 == SRB_STATUS_ERROR and srb.sense_info_buffer == b""


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (RESPONSE_NO_TARGET, SRB_STATUS_SELECTION_TIMEOUT),
        (RESPONSE_NO_LUN, SRB_STATUS_INVALID_LUN),
        (RESPONSE_ABORTED, SRB_STATUS_ABORTED),
        (RESPONSE_RESET, SRB_STATUS_BUS_RESET),
    ],
)
def test_ER_01_what_the_bus_says(rig: Rig, response: int, status: int) -> None:
    rig.bus.answer = lambda task: setattr(task, "response", response)
    assert rig.submit().srb_status & SRB_STATUS_MASK == status


def test_ER_08_abort(rig: Rig) -> None:
    rig.bus.hold = True
    victim = rig.submit()
    abort = rig.submit(function=SRB_FUNCTION_ABORT_COMMAND, next_srb=victim)
    assert victim in rig.done and abort in rig.done
    assert victim.srb_status & SRB_STATUS_MASK in (SRB_STATUS_ABORTED, SRB_STATUS_BUS_RESET)
    assert abort.srb_status == SRB_STATUS_SUCCESS
    assert rig.bus.held == []


@pytest.mark.parametrize(
    "function", [SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE, SRB_FUNCTION_RESET_BUS]
)
def test_RS_02_resets_complete_what_they_end(rig: Rig, function: int) -> None:
    rig.bus.hold = True
    srbs = [rig.submit() for _ in range(3)]
    reset = rig.submit(function=function)
    assert rig.done == [*srbs, reset]
    assert {srb.srb_status & SRB_STATUS_MASK for srb in srbs} == {SRB_STATUS_BUS_RESET}
    assert reset.srb_status == SRB_STATUS_SUCCESS


def test_the_adapter_is_reset_and_works_again(rig: Rig) -> None:
    rig.bus.hold = True
    srbs = [rig.submit() for _ in range(3)]
    rig.port.reset_adapter()
    assert sorted(map(id, rig.done)) == sorted(map(id, srbs))
    rig.bus.hold = False
    assert rig.submit().srb_status == SRB_STATUS_SUCCESS


def test_stop_and_restart(rig: Rig) -> None:
    rig.submit()
    rig.port.pnp.stop(lambda steps: None)
    enabled = [rig.chip.interrupts_enabled]
    rig.port.pnp.start(lambda steps: None)
    enabled.append(rig.chip.interrupts_enabled)
    assert enabled == [False, True]
    assert rig.submit().srb_status == SRB_STATUS_SUCCESS


def test_an_address_that_leads_nowhere() -> None:
    rig = Rig("scsiport")

    def fault(segments: Any, write: bool) -> Any:
        raise DmaFault(0, 1, "nothing there")

    rig.memory.buffer = fault  # type: ignore[method-assign]
    srb = rig.srb()
    srb.data_transfer_length = 512  # shorter than the list, so it is translated again
    rig.port.submit(srb)
    assert srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_INTERNAL_ERROR
    assert rig.submit().srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("when", ["start_io", "completion"])
def test_next_in_start_io_overlaps_next_at_completion_does_not(when: str) -> None:
    rig = Rig("scsiport", options={"next": when})
    rig.bus.hold = True
    for _ in range(3):
        rig.submit()
    assert len(rig.bus.held) == (3 if when == "start_io" else 1)
    while rig.bus.held:
        rig.bus.release(rig.bus.held[0])
    assert len(rig.done) == 3
    assert rig.found == set()


@pytest.mark.parametrize("options", [{"next": "never"}, {"nxt": "start_io"}])
def test_options_are_checked(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="start_io"):
        Rig("scsiport", options=options)
