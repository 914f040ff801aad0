"""The miniport with a real driver's structure, under both models, and the chip's queues below it."""

from __future__ import annotations

from typing import Any

import pytest

from hba.errors import ConfigError, DmaFault
from hba.miniport.queues import COMMAND_BLOCK, COMPLETION, ELEMENT, RESPONSE_BAD_BLOCK, CommandQueues
from hba.scsi.task import DATA_IN, RESPONSE_NO_TARGET, Task
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.miniport.rig import MODELS, Rig

NAMES = {
    "storport": "hba.miniport.examples.queued:QueuedMiniport",
    "scsiport": "hba.miniport.examples.queued:QueuedScsiMiniport",
}
SENSE = bytes.fromhex("700005000000000a00000000200000000000")
LEVELS = ("report", "strict")


def make(model: str, level: str | None = "report", **config: Any) -> Rig:
    rig = Rig(model, NAMES[model], level, **config)
    assert rig.found == set() if level else True
    return rig


def command(rig: Rig, at: int = 0, length: int = 4096, pieces: int = 1, **fields: Any) -> Srb:
    """A read into the rig's own memory, where the chip finds it by its addresses alone."""
    srb = rig.srb(length=length, **fields)
    if length:
        size = length // pieces
        base = 0x2000 + at * 0x10000
        segments = [(base + number * (size + 0x1000), size) for number in range(pieces)]
        srb.mdl = rig.memory.buffer(segments, True)
    return srb


def run(rig: Rig) -> None:
    rig.loop.run_once(0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", LEVELS)
def test_reads_are_moved_by_address(model: str, level: str) -> None:
    rig = make(model, level)
    srbs = [command(rig, number, pieces=1 << number % 3) for number in range(8)]
    rig.port.submit_all(srbs)
    run(rig)
    assert len(rig.done) == 8 and set(map(id, rig.done)) == set(map(id, srbs))
    assert {srb.srb_status for srb in srbs} == {SRB_STATUS_SUCCESS}
    assert rig.memory.bytes[0x2000 + 0x10000 * 7 : 0x2000 + 0x10000 * 7 + 8] == b"\x5a" * 8
    assert rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_commands_that_end_later(model: str) -> None:
    rig = make(model)
    rig.bus.hold = True
    srbs = [command(rig, number) for number in range(6)]
    rig.port.submit_all(srbs)
    assert rig.done == []
    for task in list(reversed(rig.bus.held)):
        rig.bus.release(task)
    run(rig)
    assert sorted(map(id, rig.done)) == sorted(map(id, srbs)) and rig.found == set()


def test_storport_uses_every_queue_and_its_message() -> None:
    rig = make("storport")
    rig.bus.hold = True
    for number in range(8):
        rig.port.submit(command(rig, number))
    for task in list(rig.bus.held):
        rig.bus.release(task)
    adapter: Any = rig.port.snapshot()["adapter"]
    assert adapter["messages"] == [2, 2, 2, 2, 0, 0, 0, 0] and adapter["channels"] == 4
    assert adapter["perf_flags"] == [
        "STOR_PERF_DPC_REDIRECTION",
        "STOR_PERF_CONCURRENT_CHANNELS",
        "STOR_PERF_INTERRUPT_MESSAGE_RANGES",
        "STOR_PERF_ADV_CONFIG_LOCALITY",
    ]
    assert len(rig.done) == 8 and rig.found == set()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_storport_with_fewer_messages(limit: int) -> None:
    rig = make("storport", message_number_limit=limit)
    srbs = [command(rig, number) for number in range(6)]
    for srb in srbs:
        rig.port.submit(srb)
    assert rig.done == srbs and rig.found == set()


def test_storport_with_other_processors_in_between() -> None:
    rig = make("storport", interleave=1)
    srbs = [command(rig, number) for number in range(8)]
    rig.port.submit_all(srbs)
    run(rig)
    assert len(rig.done) == 8 and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_sense_data_come_by_dma(model: str) -> None:
    rig = make(model)

    def fail(task: Task) -> None:
        task.status, task.sense = 2, SENSE

    rig.bus.answer = fail
    srb = command(rig)
    rig.port.submit(srb)
    run(rig)
    assert srb.srb_status & SRB_STATUS_MASK == SRB_STATUS_ERROR
    assert (srb.scsi_status, srb.sense) == (2, SENSE) and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_less_than_asked_for_and_nobody_there(model: str) -> None:
    rig = make(model)

    def less(task: Task) -> None:
        task.transferred = 100

    def nobody(task: Task) -> None:
        task.response = RESPONSE_NO_TARGET

    rig.bus.answer = less
    first = command(rig)
    rig.port.submit(first)
    rig.bus.answer = nobody
    second = command(rig, 1)
    rig.port.submit(second)
    run(rig)
    assert (first.srb_status, first.data_transfer_length) == (SRB_STATUS_DATA_OVERRUN, 100)
    assert second.srb_status & SRB_STATUS_MASK == SRB_STATUS_SELECTION_TIMEOUT
    assert rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_an_abort(model: str) -> None:
    rig = make(model)
    rig.bus.hold = True
    victim, other = command(rig), command(rig, 1)
    rig.port.submit(victim)
    rig.port.submit(other)
    abort = rig.srb(function=SRB_FUNCTION_ABORT_COMMAND, length=0)
    abort.next_srb = victim
    rig.port.submit(abort)
    run(rig)
    assert victim.srb_status & SRB_STATUS_MASK == SRB_STATUS_ABORTED and abort.srb_status == SRB_STATUS_SUCCESS
    assert other not in rig.done and rig.found == set()


@pytest.mark.parametrize("function", [SRB_FUNCTION_RESET_LOGICAL_UNIT, SRB_FUNCTION_RESET_DEVICE])
def test_resets_end_what_is_there_first(function: int) -> None:
    rig = make("storport")
    rig.bus.hold = True
    srbs = [command(rig, number) for number in range(5)]
    for srb in srbs:
        rig.port.submit(srb)
    reset = rig.srb(function=function, length=0)
    rig.port.submit(reset)
    run(rig)
    assert [*srbs, reset][-1] is rig.done[-1] and len(rig.done) == 6
    assert {srb.srb_status for srb in srbs} == {SRB_STATUS_BUS_RESET} and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_an_adapter_reset_and_then_on(model: str) -> None:
    rig = make(model)
    rig.bus.hold = True
    held = [command(rig, number) for number in range(3)]
    for srb in held:
        rig.port.submit(srb)
    rig.port.reset_adapter()
    assert len(rig.done) == 3
    rig.bus.hold = False
    srb = command(rig, 4)
    rig.port.submit(srb)
    run(rig)
    assert rig.done[-1] is srb and srb.srb_status == SRB_STATUS_SUCCESS and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_more_commands_than_a_ring_has_places(model: str) -> None:
    rig = make(model, level=None)
    for number in range(4 * 1100):
        rig.port.submit(command(rig, number % 8))
        run(rig)
    assert len(rig.done) == 4400 and {srb.srb_status for srb in rig.done} == {SRB_STATUS_SUCCESS}


@pytest.mark.parametrize("model", MODELS)
def test_what_it_does_not_know(model: str) -> None:
    rig = make(model)
    srb = rig.srb(function=SRB_FUNCTION_IO_CONTROL, length=0)
    rig.port.submit(srb)
    long = command(rig, cdb=b"\x7f" + bytes(63))
    rig.port.submit(long)
    run(rig)
    assert srb.srb_status == long.srb_status == SRB_STATUS_INVALID_REQUEST and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_stop_and_restart(model: str) -> None:
    rig = make(model)
    rig.port.pnp.stop(lambda steps: None)
    rig.port.pnp.start(lambda steps: None)
    srb = command(rig)
    rig.port.submit(srb)
    run(rig)
    assert srb.srb_status == SRB_STATUS_SUCCESS and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_the_other_model_is_told(model: str) -> None:
    other = "scsiport" if model == "storport" else "storport"
    with pytest.raises(ConfigError, match="use Queued"):
        Rig(model, NAMES[other])


# -- the chip's queues ------------------------------------------------------------------------------------------------


class Below:
    """A chip with host memory for a ring and a block, and no miniport."""

    def __init__(self, level: str | None = None) -> None:
        self.rig = Rig("storport", level=level)
        self.chip = self.rig.chip
        self.memory = memoryview(bytearray(0x2000))
        self.base = self.chip.add_host_memory(self.memory)
        self.queues = CommandQueues(self.chip)
        self.queues.create(0, self.base, 4)

    def block(
        self, tag: int = 7, elements: int = 1, direction: int = DATA_IN, at: int = 0x1100, cdb_length: int = 10
    ) -> int:
        ELEMENT.pack_into(self.memory, 0x1100, 0x3000, 512, 0)
        COMMAND_BLOCK.pack_into(
            self.memory,
            0x1000,
            0,
            0,
            cdb_length,
            direction,
            0x20,
            32,
            0,
            tag,
            elements,
            self.base + at,
            self.base + 0x1800,
            b"\x28" + bytes(31),
        )
        return self.base + 0x1000

    def completion(self, number: int = 0) -> tuple[int, ...]:
        return COMPLETION.unpack_from(self.memory, number * COMPLETION.size)


def test_a_block_is_fetched_and_its_end_written() -> None:
    below = Below()
    below.queues.post(0, below.block())
    assert below.completion() == (7, 512, 0, 0, 0, 0, 1)
    assert bytes(below.rig.memory.bytes[0x3000:0x3004]) == b"\x5a" * 4


def test_the_phase_turns_with_the_ring() -> None:
    below = Below()
    for tag in range(5):
        below.queues.post(0, below.block(tag))
    assert [below.completion(number)[0] for number in range(4)] == [4, 1, 2, 3]
    assert [below.completion(number)[6] for number in range(4)] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong", [{"elements": 0}, {"elements": 5000}, {"direction": 3}, {"at": 0x7FFF_0000}, {"cdb_length": 33}]
)
def test_a_block_that_makes_no_sense(wrong: dict[str, int]) -> None:
    below = Below()
    below.queues.post(0, below.block(**wrong))
    assert below.completion()[0] == 7 and below.completion()[4] == RESPONSE_BAD_BLOCK
    assert below.rig.bus.seen == []


def test_a_block_that_is_nowhere() -> None:
    below = Below()
    with pytest.raises(DmaFault):
        below.queues.post(0, below.base + 0x10000)


def test_MB_13_a_block_outside_of_what_the_miniport_has() -> None:
    below = Below("report")
    below.queues.post(0, below.block())
    assert below.rig.found == {"MB-13"}
