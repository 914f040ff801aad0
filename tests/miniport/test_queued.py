"""The miniport with a real driver's structure, under both models, and the chip's queues below it."""

from __future__ import annotations

from typing import Any

import pytest

from hba.clock import S, VirtualClock
from hba.errors import ConfigError, DmaFault
from hba.instruments.make import make_port
from hba.miniport.base import (
    SCSI_ADAPTER_POWER,
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_STOP_ADAPTER,
    SCSI_UNIT_POWER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_START,
    SCSI_UNIT_SURPRISE_REMOVAL,
    SCSI_UNIT_USAGE,
    SP_RETURN_ERROR,
    SP_RETURN_FOUND,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    SupportedControlTypes,
)
from hba.miniport.config import (
    DUMP_MODE_CRASH,
    INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.examples.queued import CommandBlocks, QueuedMiniport, QueuedScsiMiniport
from hba.miniport.load import load_miniport
from hba.miniport.memory import SrbExtension
from hba.miniport.proxy import MiniportEdge, MiniportProxy
from hba.miniport.queues import COMMAND_BLOCK, COMPLETION, ELEMENT, RESPONSE_BAD_BLOCK, CommandQueues, QueueTask
from hba.miniport.services import REQUEST_COMPLETE, SP_BUS_TIME_OUT, SP_PROTOCOL_ERROR
from hba.port.dump import Dump
from hba.scsi.task import (
    DATA_IN,
    DATA_NONE,
    DATA_OUT,
    ORDERED,
    RESPONSE_ABORTED,
    RESPONSE_NO_TARGET,
    SIMPLE,
    Task,
)
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_MASK,
    SRB_STATUS_QUEUE_FROZEN,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.trace.recorder import Recorder
from tests.miniport.rig import MODELS, Rig
from tests.miniport.test_calls import ListeningPort
from tests.miniport.test_chip import Asked

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
    assert rig.done == [victim, abort]
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


# -- each feature by itself -------------------------------------------------------------------------------------------


class Answers(MiniportProxy):
    """What hw_start_io has returned."""

    def __init__(self, inner: MiniportEdge) -> None:
        super().__init__(inner)
        self.started: list[object] = []

    def hw_start_io(self, srb: Srb) -> object:
        self.started.append(super().hw_start_io(srb))
        return self.started[-1]


@pytest.mark.parametrize("model", MODELS)
def test_what_the_adapter_is(model: str) -> None:
    info = make(model).port.info
    own = {
        "storport": {
            "map_buffers": STOR_MAP_NON_READ_WRITE_BUFFERS,
            "number_of_physical_breaks": 128,
            "initial_lun_queue_depth": 64,
            "synchronization_model": STOR_SYNCHRONIZE_FULL_DUPLEX,
            "interrupt_synchronization_mode": INTERRUPT_SYNCHRONIZE_PER_MESSAGE,
            "srb_type": SRB_TYPE_STORAGE_REQUEST_BLOCK,
            "feature_support": STOR_ADAPTER_FEATURE_ABORT_COMMAND,
        },
        "scsiport": {"map_buffers": 0, "number_of_physical_breaks": 127},
    }
    expected = {
        **dict.fromkeys(("master", "scatter_gather", "need_physical_addresses", "auto_request_sense"), True),
        **dict.fromkeys(("tagged_queuing", "multiple_request_per_lu"), True),
        "dma64_bit_addresses": SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
        "maximum_transfer_length": 1 << 20,
        "srb_extension_size": COMMAND_BLOCK.size + 128 * ELEMENT.size,
        "max_number_of_io": 512,
        "max_ios_per_lun": 255,
        **own[model],
    }
    assert {name: getattr(info, name) for name in expected} == expected


@pytest.mark.parametrize("model", MODELS)
def test_what_the_chip_is_told(model: str) -> None:
    """Of each command: CDB, direction, data, attribute; and that each is started and told of once."""
    rig = make(model)
    rig.port.edge = answers = Answers(rig.port.edge)
    cases = [
        ({"cdb": b"\x7f" + bytes(31)}, SRB_FLAGS_DATA_IN, DATA_IN, ORDERED),
        ({}, SRB_FLAGS_DATA_OUT | SRB_FLAGS_QUEUE_ACTION_ENABLE, DATA_OUT, ORDERED),
        ({"length": 0}, SRB_FLAGS_DATA_IN, DATA_NONE, ORDERED),
        ({}, 0, DATA_NONE, ORDERED),
    ]
    for number, (fields, flags, direction, attribute) in enumerate(cases):
        srb = command(rig, number, queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST, **fields)
        srb.srb_flags = flags | SRB_FLAGS_QUEUE_ACTION_ENABLE
        rig.port.submit(srb)
        run(rig)
        (*_, (target, lun, task)) = rig.bus.seen
        assert (target, lun, task.cdb, task.direction, task.attribute) == (0, 0, srb.cdb, direction, attribute)
        segments = list(task.data.segments) if task.data is not None else None
        assert segments == ([(0x2000 + number * 0x10000, 4096)] if direction else None)
        assert rig.done[number:] == [srb]
    srb = command(rig, 1, queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST)
    srb.srb_flags &= ~SRB_FLAGS_QUEUE_ACTION_ENABLE
    for _ in range(2):  # an untagged one after the other
        again = command(rig, 1, queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST)
        again.srb_flags &= ~SRB_FLAGS_QUEUE_ACTION_ENABLE
        rig.port.submit(again)
        run(rig)
        assert rig.done[-1] is again and rig.bus.seen[-1][2].attribute == SIMPLE
    assert {srb.srb_status for srb in (rig.done[0], rig.done[1], rig.done[2], again)} == {SRB_STATUS_SUCCESS}
    if model == "storport":
        rig.port.submit(rig.srb(function=SRB_FUNCTION_RESET_LOGICAL_UNIT, length=0))
        assert rig.done[-1].srb_status == SRB_STATUS_SUCCESS and answers.started.pop() is True
    assert answers.started == [True] * 6 and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_what_cannot_be_a_command_block(model: str) -> None:
    """Refused, and told of once: a CDB that is too long, data of which a part has no address."""
    rig = make(model, None)
    long = command(rig, cdb=b"\x7f" + bytes(32))
    short = command(rig, 1, data_transfer_length=8192)
    for srb in (long, short):
        rig.port.submit(srb)
        run(rig)
    assert rig.done == [long, short] and rig.bus.seen == []
    assert {srb.srb_status & SRB_STATUS_MASK for srb in rig.done} == {SRB_STATUS_INVALID_REQUEST}


@pytest.mark.parametrize("model", MODELS)
def test_an_extension_without_addresses(model: str) -> None:
    """Neither the block nor the list behind it can be named to the chip then."""
    miniport: Any = make(model, None).miniport
    miniport.port = port = ListeningPort(model)
    srb = Srb()
    srb.srb_extension = extension = SrbExtension(memoryview(bytearray(4096)), 0)
    for known in (extension, extension + COMMAND_BLOCK.size):
        port.get_physical_address = (  # type: ignore[method-assign]
            lambda srb, address, known=known: (0x1000, 64) if type(address) is type(known) else None
        )
        assert miniport.fill_block(srb) is False
    with pytest.raises(NotImplementedError):
        CommandBlocks().segments_of(srb)


def test_a_part_of_the_list_is_enough() -> None:
    rig = make("scsiport")
    srb = command(rig, pieces=4, data_transfer_length=1024 * 3 - 100)
    rig.port.submit(srb)
    run(rig)
    assert srb.srb_status == SRB_STATUS_SUCCESS and rig.found == set()
    assert list(rig.bus.seen[0][2].data.segments) == [(0x2000, 1024), (0x3400, 1024), (0x4800, 924)]


@pytest.mark.parametrize("model", MODELS)
def test_sense_data_nobody_wants(model: str) -> None:
    rig = make(model)

    def fail(task: Task) -> None:
        task.status, task.sense = 2, SENSE

    rig.bus.answer = fail
    srb = command(rig)
    srb.srb_flags |= SRB_FLAGS_DISABLE_AUTOSENSE
    srb.sense_info_buffer_length = 0 if model == "scsiport" else 96
    rig.port.submit(srb)
    run(rig)
    assert srb.srb_status & ~SRB_STATUS_QUEUE_FROZEN == SRB_STATUS_ERROR and srb.sense == b""
    assert not any(rig.memory.bytes[:0x2000]) and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_how_commands_end(model: str) -> None:
    """Status, length and what is logged, of every way a completion can tell of."""
    trace = Recorder(VirtualClock(1))
    rig = make(model, trace=trace)
    cases: list[tuple[dict[str, Any], int, int, str]] = [
        ({"transferred": 4096}, SRB_STATUS_SUCCESS, 4096, ""),
        ({"transferred": 4096, "overrun": 5}, SRB_STATUS_DATA_OVERRUN, 4096, f"code {SP_PROTOCOL_ERROR:#06x} id 1"),
        ({"transferred": 99}, SRB_STATUS_DATA_OVERRUN, 99, ""),
        (
            {"transferred": 8, "response": RESPONSE_NO_TARGET},
            SRB_STATUS_SELECTION_TIMEOUT,
            8,
            f"code {SP_BUS_TIME_OUT:#06x} id 1",
        ),
        ({"response": 9}, SRB_STATUS_INTERNAL_ERROR, 0, ""),
        ({"transferred": 5000, "response": RESPONSE_ABORTED}, SRB_STATUS_ABORTED, 4096, ""),
        ({"transferred": 7, "status": 0x18}, SRB_STATUS_ERROR, 7, ""),
        ({"transferred": 5000, "status": 0x18}, SRB_STATUS_ERROR, 4096, ""),
    ]
    for number, (ended, status, length, logged) in enumerate(cases):

        def answer(task: Task, ended: dict[str, Any] = ended) -> None:
            for name, value in ended.items():
                setattr(task, name, value)

        rig.bus.answer = answer
        srb = command(rig, number)
        srb.srb_flags |= SRB_FLAGS_NO_QUEUE_FREEZE
        before = trace.recorded
        rig.port.submit(srb)
        run(rig)
        assert (srb.srb_status, srb.data_transfer_length) == (status, length), ended
        notes = [event.detail for event in trace.since(before, 1000)[1] if event.kind == "log_error"]
        assert notes == ([f"0:0:0 {logged}"] if logged else [])
    assert rig.found == set()


def test_a_bus_reset_that_is_asked_for() -> None:
    """SCSI Port's way to reset anything: a request of its own; and interrupts still come afterwards."""
    rig = make("scsiport")
    rig.bus.hold = True
    held = [command(rig, number) for number in range(3)]
    for srb in held:
        rig.port.submit(srb)
    reset = rig.srb(function=SRB_FUNCTION_RESET_BUS, length=0)
    rig.port.submit(reset)
    assert rig.done == [*held, reset] and reset.srb_status == SRB_STATUS_SUCCESS
    assert {srb.srb_status & SRB_STATUS_MASK for srb in held} == {SRB_STATUS_BUS_RESET}
    assert rig.bus.held == [] and not rig.chip.asserted
    rig.clock.advance(10 * S)
    later = command(rig, 4)
    rig.port.submit(later)
    rig.bus.release(rig.bus.held[0])
    run(rig)
    assert rig.done[-1] is later and later.srb_status == SRB_STATUS_SUCCESS and rig.found == set()
    rig.port.submit(command(rig, 5))
    miniport: Any = rig.miniport
    (last,) = miniport.ring.outstanding.values()
    miniport.port = port = ListeningPort("scsiport")
    rig.chip.interrupts_enabled = False
    assert miniport.hw_reset_bus(0) is True and not rig.chip.asserted  # before it returns
    ((what, ended, *_),) = port.said
    assert what == REQUEST_COMPLETE and ended is last


class WatchedQueues(QueuedMiniport):
    """Notes whether the chip's interrupts are enabled when something happens."""

    lost_memory = False

    def note(self, what: str) -> None:
        vars(self).setdefault("notes", []).append((what, self.chip.interrupts_enabled))

    def passive_initialize(self) -> bool:
        self.note("passive")
        if self.lost_memory:
            self.memory = memoryview(bytearray(len(self.memory)))
        return super().passive_initialize()

    def end(self, srb: Srb, entry: Any) -> None:
        self.note("end")
        super().end(srb, entry)


def test_interrupts_wait_while_the_adapter_is_set_up_and_reset() -> None:
    rig = Rig("storport", f"{__name__}:WatchedQueues")
    rig.bus.hold = True
    srb = command(rig)
    rig.port.submit(srb)
    rig.port.reset_adapter()
    miniport: Any = rig.miniport
    assert miniport.notes == [("passive", False), ("end", False), ("passive", False)] and rig.chip.interrupts_enabled
    assert miniport.hw_reset_bus(0) is True and rig.chip.interrupts_enabled
    assert rig.found == set()


def test_no_queues_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory the chip cannot reach: the adapter does not start, rather than work with half of its queues."""
    monkeypatch.setattr(WatchedQueues, "lost_memory", True)
    rig = Rig("storport", f"{__name__}:WatchedQueues", None)
    miniport: Any = rig.miniport
    assert miniport.rings == [] and miniport.make_rings(4) is False and miniport.passive_initialize() is False
    assert not rig.chip.interrupts_enabled


def test_messages_there_are_no_queues_for() -> None:
    miniport: Any = make("storport").miniport
    assert [miniport.hw_msi_interrupt(number) for number in (len(miniport.rings), 9)] == [False, False]


class Deferring(QueuedScsiMiniport):
    def end(self, srb: Srb, entry: Any) -> None:
        vars(self).setdefault("notes", []).append(self.chip.interrupts_enabled)
        super().end(srb, entry)


def test_IN_04_the_work_of_an_interrupt_is_deferred() -> None:
    """None more comes until it is done."""
    rig = Rig("scsiport", f"{__name__}:Deferring")
    rig.bus.hold = True
    rig.port.submit(command(rig))
    rig.bus.release(rig.bus.held[0])
    miniport: Any = rig.miniport
    assert len(rig.done) == 1 and miniport.notes == [False] and rig.chip.interrupts_enabled and rig.found == set()


@pytest.mark.parametrize("model", MODELS)
def test_DM_05_the_dump_takes_over(model: str) -> None:
    """What ended for the system that has crashed interrupts nobody; memory is scarce: one ring of 16 completions."""
    rig = make(model)
    rig.bus.hold = True
    rig.port.submit(command(rig))
    rig.chip.interrupts_enabled = False
    rig.bus.release(rig.bus.held[0])
    assert rig.chip.asserted
    miniport: Any = load_miniport(NAMES[model], rig.chip, {}, model, dump=True)
    port = make_port(model, rig.loop, miniport, rig.chip, None, None, None, Dump(DUMP_MODE_CRASH, 0))
    port.start()
    assert not rig.chip.asserted and len(miniport.memory) == 16 * COMPLETION.size
    if model == "storport":  # DM-04: all of it is marked
        assert [length for _, length in port.memory.marked] == [16 * COMPLETION.size]


@pytest.mark.parametrize("model", MODELS)
def test_RS_05_control_types(model: str) -> None:
    rig = make(model)
    handle = rig.miniport.hw_adapter_control
    known = [SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER] if model == "storport" else [SCSI_STOP_ADAPTER]
    for room in range(5):
        types = SupportedControlTypes(room)
        assert handle(SCSI_QUERY_SUPPORTED_CONTROL_TYPES, types) == 0 and types.beyond == []
        assert types.supported == [number in known for number in range(room)]
    assert handle(SCSI_STOP_ADAPTER, None) == 0 and not rig.chip.interrupts_enabled
    if model == "storport":
        assert handle(SCSI_RESTART_ADAPTER, None) == 0 and rig.chip.interrupts_enabled
        assert handle(SCSI_ADAPTER_POWER, None) == 1 and rig.chip.interrupts_enabled


def test_RS_08_units_and_their_power() -> None:
    miniport: Any = make("storport").miniport
    handle, units, unit, other = miniport.hw_unit_control, miniport.units, (0, 1, 2), (0, 1, 3)
    known = (SCSI_UNIT_START, SCSI_UNIT_POWER, SCSI_UNIT_REMOVE, SCSI_UNIT_SURPRISE_REMOVAL)
    for room in range(13):
        types = SupportedControlTypes(room)
        assert handle(SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES, types) == 0 and types.beyond == []
        assert types.supported == [number in known for number in range(room)]
    units.clear()
    for control, parameters, left in (
        (SCSI_UNIT_START, unit, {unit: "started"}),
        (SCSI_UNIT_START, other, {unit: "started", other: "started"}),
        (SCSI_UNIT_POWER, (*unit, STOR_POWER_DEVICE_D3), {unit: "off", other: "started"}),
        (SCSI_UNIT_POWER, (*unit, STOR_POWER_DEVICE_D0), {unit: "on", other: "started"}),
        (SCSI_UNIT_REMOVE, unit, {other: "started"}),
        (SCSI_UNIT_REMOVE, unit, {other: "started"}),  # which is gone already
        (SCSI_UNIT_SURPRISE_REMOVAL, other, {}),
    ):
        assert handle(control, parameters) == 0 and units == left
    assert handle(SCSI_UNIT_USAGE, unit) == 1 and units == {}


@pytest.mark.parametrize("model", MODELS)
def test_control_requests_call_by_call(model: str) -> None:
    """Behind a port that only listens."""
    rig = make(model, None)
    miniport: Any = rig.miniport
    miniport.port = port = ListeningPort(model)
    for function, status in (
        (SRB_FUNCTION_FLUSH, SRB_STATUS_SUCCESS),
        (SRB_FUNCTION_SHUTDOWN, SRB_STATUS_SUCCESS),
        (SRB_FUNCTION_POWER, SRB_STATUS_SUCCESS),
        (SRB_FUNCTION_IO_CONTROL, SRB_STATUS_INVALID_REQUEST),
        (SRB_FUNCTION_ABORT_COMMAND, SRB_STATUS_ABORT_FAILED),
    ):
        del port.said[:]
        srb = Srb(function)
        miniport.control(srb)
        assert port.said == [(REQUEST_COMPLETE, srb, status, 0)]
    abort = Srb(SRB_FUNCTION_ABORT_COMMAND)
    abort.next_srb = Srb()
    miniport.control(abort)
    assert abort.srb_status == SRB_STATUS_ABORT_FAILED


@pytest.mark.parametrize("model", MODELS)
def test_without_memory_there_is_no_adapter(model: str) -> None:
    """Neither when there is none, nor when the chip cannot reach it."""
    miniport: Any = load_miniport(NAMES[model], make(model, None).chip, {}, model)
    miniport.port = port = ListeningPort(model)
    found = []
    for memory in (None, memoryview(bytearray(16))):
        port.get_uncached_extension = lambda config, size, memory=memory: memory  # type: ignore[attr-defined]
        port.get_physical_address = lambda srb, address: None  # type: ignore[method-assign]
        found.append(miniport.hw_find_adapter(PortConfigurationInformation()))
    assert found == [SP_RETURN_ERROR, SP_RETURN_ERROR if model == "scsiport" else SP_RETURN_FOUND]


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


def test_what_a_block_says_is_what_the_chip_does() -> None:
    """The longest CDB and the longest list there may be; which way the data go; nothing is kept of what has ended."""
    below = Below()
    chip = below.chip
    chip.dma = asked = Asked()
    count = 4096  # elements
    elements = memoryview(bytearray(ELEMENT.size * (count + 1)))
    at = chip.add_host_memory(elements) - below.base
    for number in range(count + 1):
        ELEMENT.pack_into(elements, number * ELEMENT.size, 0x3000 + number * 16, 1, 0)
    below.queues.post(0, below.block(1, cdb_length=32))
    below.queues.post(0, below.block(2, elements=count, at=at, direction=DATA_OUT))
    below.queues.post(0, below.block(3, elements=count + 1, at=at))
    assert [below.completion(number)[4] for number in range(3)] == [0, 0, RESPONSE_BAD_BLOCK]
    (_, _, first), (_, _, second) = below.rig.bus.seen
    assert (len(first.cdb), first.direction, second.direction) == (32, DATA_IN, DATA_OUT)
    assert first.data is not None and second.data is not None
    assert (first.data.length, second.data.length) == (512, count)
    assert [write for _, write in asked.asked] == [True, *[False] * count]
    assert isinstance(first, QueueTask) and first.queue.commands == {}
    assert not below.queues.abort(0, 1)


def test_commands_that_are_no_queues_are_told_as_ever() -> None:
    below = Below()
    below.rig.bus.hold = True
    below.chip.interrupts_enabled = False
    task = Task(bytes(6))
    below.queues.post(0, below.block())
    below.chip.start(0, 0, task)
    for held in list(below.rig.bus.held):
        below.rig.bus.release(held)
    assert list(below.chip.completed) == [task] and below.completion()[0] == 7


def test_a_block_that_is_nowhere() -> None:
    below = Below()
    with pytest.raises(DmaFault):
        below.queues.post(0, below.base + 0x10000)


def test_MB_13_a_block_outside_of_what_the_miniport_has() -> None:
    below = Below("report")
    below.queues.post(0, below.block())
    assert below.rig.found == {"MB-13"}
