"""What the default miniport and the example to copy from say to the port, call by call.

Behind a port that only listens, so that nothing puts right what a miniport says: what of it reaches whoever sent the
request is in test_dma.py, with the real ports.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from hba.dma import DmaBuffer
from hba.errors import ConfigError, DmaFault
from hba.miniport.base import (
    SCSI_ADAPTER_POWER,
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    SP_RETURN_FOUND,
    SupportedControlTypes,
)
from hba.miniport.chip import Chip
from hba.miniport.config import (
    DUMP_MODE_CRASH,
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SCSI_DMA64_MINIPORT_SUPPORTED,
    SCSI_DMA64_SYSTEM_SUPPORTED,
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    PortConfigurationInformation,
)
from hba.miniport.dma import MAXIMUM_ELEMENTS, MAXIMUM_TRANSFER_LENGTH
from hba.miniport.examples.good import GoodMiniport
from hba.miniport.load import load_miniport
from hba.miniport.services import (
    NEXT_LU_REQUEST,
    NEXT_REQUEST,
    REQUEST_COMPLETE,
    SP_BUS_TIME_OUT,
    SP_PROTOCOL_ERROR,
)
from hba.scsi.task import (
    DATA_IN,
    DATA_NONE,
    DATA_OUT,
    ORDERED,
    RESPONSE_ABORTED,
    RESPONSE_NO_LUN,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    SIMPLE,
)
from hba.srb import (
    SP_UNTAGGED,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_FUNCTION_SHUTDOWN,
    SRB_FUNCTION_TERMINATE_IO,
    SRB_FUNCTION_WMI,
    SRB_ORDERED_QUEUE_TAG_REQUEST,
    SRB_STATUS_ABORT_FAILED,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_LUN,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_SELECTION_TIMEOUT,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.miniport.rig import MODELS, AnsweringBus, Memory

GOOD = f"{GoodMiniport.__module__}:{GoodMiniport.__name__}"
SENSE = bytes.fromhex("700005000000000a00000000200000000000")
PATH, TARGET, LUN, TAG = 0, 3, 2, 5


class ListeningPort:
    """Knows the requests the test says it does, and finds their data at the addresses of `mdl`."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.said: list[tuple[Any, ...]] = []
        self.known: Srb | None = None
        self.own_list: list[list[tuple[int, int]] | None] = []  # instead of that of `mdl`

    def notification(self, what: object, *about: Any) -> None:
        if what == REQUEST_COMPLETE:
            (srb,) = about
            about = (srb, srb.srb_status, srb.data_transfer_length)
        self.said.append((what, *about))

    def log_error(self, srb: Srb, *about: int) -> None:
        self.said.append(("log_error", srb, *about))

    def get_srb(self, *address: int) -> Srb | None:
        self.said.append(("get_srb", *address))
        return self.known

    def get_scatter_gather_list(self, srb: Srb) -> Any:
        if self.own_list:
            return self.own_list[0]
        return None if srb.mdl is None else srb.mdl.segments

    def get_physical_address(self, srb: Srb, virtual_address: int) -> tuple[int, int] | None:
        return None if srb.mdl is None else srb.mdl.segment_at(virtual_address)


class Called:
    """A miniport, its chip and what both say."""

    def __init__(self, model: str, name: str, options: dict[str, Any] | None = None, dump: int = 0) -> None:
        self.model = model
        self.port = ListeningPort(model)
        self.bus, self.memory = AnsweringBus(), Memory()
        self.chip = Chip(self.bus, self.memory)
        self.miniport: Any = load_miniport(name, self.chip, options, model)
        self.miniport.port = self.port
        self.config = PortConfigurationInformation(dump_mode=dump)
        assert self.miniport.hw_find_adapter(self.config) == SP_RETURN_FOUND
        self.first_said()

    def first_said(self) -> None:
        assert self.miniport.hw_initialize() is True and self.chip.interrupts_enabled

    def srb(self, function: int = 0, flags: int = 0, *lengths: int, **fields: Any) -> Srb:
        srb = Srb(function, PATH, TARGET, LUN)
        srb.cdb = b"\x28" + bytes(9)
        srb.srb_extension = SimpleNamespace()
        srb.srb_flags, srb.queue_tag = flags, TAG
        srb.data_buffer = 0
        if lengths:
            segments = [(0x1000 + 0x4000 * number, length) for number, length in enumerate(lengths)]
            srb.mdl = self.memory.buffer(segments, True)
            self.memory.translated = 0
            srb.data_transfer_length = srb.mdl.length
        for name, value in fields.items():
            setattr(srb, name, value)
        return srb

    def start(self, srb: Srb) -> list[tuple[Any, ...]]:
        """As the port does; what was said meanwhile."""
        del self.port.said[:]
        if self.model == "scsiport" or self.miniport.hw_build_io(srb) is True:
            assert self.miniport.hw_start_io(srb) is True  # SP-06
        return list(self.port.said)

    def interrupt(self) -> list[tuple[Any, ...]]:
        del self.port.said[:]
        assert self.miniport.hw_interrupt() is True and not self.chip.asserted
        return list(self.port.said)

    def next(self, tag: int = TAG) -> list[tuple[Any, ...]]:
        """What SCSI Port has to hear of once for each request."""
        if self.model == "storport":
            return []
        return [(NEXT_REQUEST,)] if tag == SP_UNTAGGED else [(NEXT_LU_REQUEST, PATH, TARGET, LUN)]


def complete(srb: Srb, status: int = SRB_STATUS_SUCCESS, length: int | None = None) -> tuple[Any, ...]:
    return (REQUEST_COMPLETE, srb, status, srb.data_transfer_length if length is None else length)


@pytest.fixture(params=["dma", GOOD], ids=["dma", "good"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def called(model: str, name: str) -> Called:
    return Called(model, name)


# -- 1. what the adapter is --------------------------------------------------------------------------------------------

CAN = {
    "master": True,
    "scatter_gather": True,
    "need_physical_addresses": True,
    "auto_request_sense": True,
    "tagged_queuing": True,
    "multiple_request_per_lu": True,
}
STORPORT = {
    "map_buffers": STOR_MAP_NON_READ_WRITE_BUFFERS,
    "synchronization_model": STOR_SYNCHRONIZE_FULL_DUPLEX,
    "feature_support": 0x100 | STOR_ADAPTER_FEATURE_ABORT_COMMAND,
}
WIDE = {"dma64_bit_addresses": SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED}
DMA = {**CAN, **WIDE, "maximum_transfer_length": MAXIMUM_TRANSFER_LENGTH}
DMA_STORPORT = {**DMA, **STORPORT, "number_of_physical_breaks": MAXIMUM_ELEMENTS, "initial_lun_queue_depth": 77}
ONE_MB = {**CAN, "maximum_transfer_length": 1 << 20, "srb_extension_size": 8}
NARROW = {"dma64_bit_addresses": SCSI_DMA64_MINIPORT_SUPPORTED}


@pytest.mark.parametrize(
    ("name", "model", "expected", "with_64_bits"),
    [
        ("dma", "storport", DMA_STORPORT, {}),
        ("dma", "scsiport", {**DMA, "map_buffers": False, "number_of_physical_breaks": MAXIMUM_ELEMENTS - 1}, {}),
        (GOOD, "storport", {**ONE_MB, **STORPORT, "number_of_physical_breaks": 257}, NARROW),
        (GOOD, "scsiport", {**ONE_MB, "map_buffers": False, "number_of_physical_breaks": 255}, NARROW),
    ],
)
@pytest.mark.parametrize("system", [0, SCSI_DMA64_SYSTEM_SUPPORTED])
def test_what_find_adapter_changes(
    name: str, model: str, expected: dict[str, object], with_64_bits: dict[str, object], system: int
) -> None:
    """And nothing else of the structure."""
    miniport = Called(model, name).miniport
    before = PortConfigurationInformation(
        map_buffers=9, feature_support=0x100, max_ios_per_lun=77, dma64_bit_addresses=system
    )
    config = PortConfigurationInformation(**asdict(before))
    assert miniport.hw_find_adapter(config) == SP_RETURN_FOUND
    changed = {key: value for key, value in asdict(config).items() if value != asdict(before)[key]}
    assert changed == {**expected, **(with_64_bits if system else {})}


def test_a_smaller_transfer_is_left_alone(model: str) -> None:
    config = PortConfigurationInformation(maximum_transfer_length=4096)
    Called(model, "dma").miniport.hw_find_adapter(config)
    assert config.maximum_transfer_length == 4096


@pytest.mark.parametrize(
    ("options", "wrong"), [({"next": "never"}, "next = 'never'"), ({"b": 1, "a": 2, "next": "start_io"}, "a, b")]
)
def test_options_that_are_wrong_are_named(model: str, options: dict[str, object], wrong: str) -> None:
    with pytest.raises(ConfigError, match=f'"dma": {wrong}: expected next = "start_io" or "completion"'):
        Called(model, "dma", options)


def test_DM_05_an_adapter_is_taken_over(model: str, name: str) -> None:
    """In dump mode, and not otherwise: what the crashed system had under way is over and forgotten."""
    for dump in (DUMP_MODE_CRASH, 0):
        called = Called(model, name, dump=dump)
        called.bus.hold = True
        called.chip.interrupts_enabled = False
        ended, under_way = called.srb(), called.srb()
        called.start(ended)
        called.start(under_way)
        called.bus.release(called.bus.held[0])
        called.first_said()
        assert called.chip.asserted == bool(called.chip.completed) == bool(called.bus.held) == bool(not dump)


# -- 2. a command ------------------------------------------------------------------------------------------------------

IN, OUT, BOTH = SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, SRB_FLAGS_UNSPECIFIED_DIRECTION
TAGGED = SRB_FLAGS_QUEUE_ACTION_ENABLE


COMMANDS = [
    (IN | TAGGED, (4096,), DATA_IN, ORDERED),
    (OUT, (4096,), DATA_OUT, SIMPLE),
    (BOTH, (512, 4096, 100), DATA_IN, SIMPLE),
    (TAGGED, (), DATA_NONE, ORDERED),
    (IN, (), DATA_NONE, SIMPLE),  # no data, whatever the flags say
    (TAGGED, (4096,), DATA_NONE, ORDERED),  # no direction: there is nowhere to move them
]


@pytest.mark.parametrize("hold", [False, True], ids=["at-once", "later"])
def test_commands(called: Called, hold: bool) -> None:
    called.bus.hold = hold
    for tag, (flags, lengths, direction, attribute) in product((TAG, SP_UNTAGGED), COMMANDS):
        called.bus.seen.clear()
        srb = called.srb(0, flags, *lengths, queue_action=SRB_ORDERED_QUEUE_TAG_REQUEST, queue_tag=tag)
        asked = srb.data_transfer_length
        said = called.start(srb)
        ((target, lun, task),) = called.bus.seen
        assert (target, lun, task.cdb, task.direction, task.attribute) == (TARGET, LUN, srb.cdb, direction, attribute)
        assert task.data is (srb.mdl if direction else None) and called.memory.translated == 0
        if hold:
            assert said == called.next(tag)
            called.bus.release(task)
            said = [*called.interrupt(), *called.next(tag)]
        overrun = SRB_STATUS_DATA_OVERRUN if asked and not direction else SRB_STATUS_SUCCESS
        assert said == [complete(srb, overrun, asked if direction else 0), *called.next(tag)]


@pytest.mark.parametrize("tag", [TAG, SP_UNTAGGED])
def test_next_at_completion(tag: int) -> None:
    """An adapter with one request at a time: the next one is asked for when it has ended, once."""
    called = Called("scsiport", "dma", {"next": "completion"})
    at_once = called.srb(queue_tag=tag)
    assert called.start(at_once) == [complete(at_once), *called.next(tag)]
    called.bus.hold = True
    later = called.srb(queue_tag=tag)
    assert called.start(later) == []
    called.bus.release(called.bus.held[0])
    assert called.interrupt() == [complete(later), (NEXT_REQUEST,)]


def test_less_than_the_list(called: Called) -> None:
    """SCSI Port has the pieces asked for one by one, and only as far as the request goes."""
    for length in (512 + 4096 + 99, 512 + 1, 512, 511):
        called.bus.seen.clear()
        srb = called.srb(0, IN, 512, 4096, 100, data_transfer_length=length)
        called.start(srb)
        ((_, _, task),) = called.bus.seen
        segments, left = [], length
        for address, size in ((0x1000, 512), (0x5000, 4096), (0x9000, 100)):
            if left > 0:
                segments.append((address, min(size, left)))
            left -= size
        if called.model == "scsiport":
            assert list(task.data.segments) == segments and called.memory.translated == 1
        else:
            assert task.data is srb.mdl


@pytest.mark.parametrize("lengths", [(), (512,)])
def test_data_that_cannot_be_reached(model: str, name: str, lengths: tuple[int, ...]) -> None:
    """Completed at once, and never started; the next one may come."""
    called = Called(model, name)

    def nowhere(segments: Any, write: bool) -> DmaBuffer:
        raise DmaFault(0, 1, "nothing there")

    srb = called.srb(0, IN, *lengths, data_transfer_length=1024, queue_tag=SP_UNTAGGED)
    if model == "storport":
        called.port.own_list = [[(0x1000, 1024)]]
        called.memory.buffer = nowhere  # type: ignore[method-assign]
    assert called.start(srb) == [complete(srb, SRB_STATUS_INTERNAL_ERROR, 1024), *called.next(SP_UNTAGGED)]
    assert called.bus.seen == [] and not called.chip.active


def test_a_list_the_port_does_not_have(name: str) -> None:
    """Storport may be out of memory for one: nothing is moved then, and that is told."""
    called = Called("storport", name)
    called.port.own_list = [None]
    srb = called.srb(0, IN, 512)
    assert called.start(srb) == [complete(srb, SRB_STATUS_DATA_OVERRUN, 0)]


# -- 3. its end --------------------------------------------------------------------------------------------------------

LOST = ("log_error", PATH, TARGET, LUN, SP_BUS_TIME_OUT, 1)
TOO_MUCH = ("log_error", PATH, TARGET, LUN, SP_PROTOCOL_ERROR, 2)
FAILED = SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID


ENDS: list[tuple[dict[str, int], int, int, tuple[Any, ...] | None]] = [
    ({"transferred": 4096}, SRB_STATUS_SUCCESS, 4096, None),
    ({"transferred": 4095}, SRB_STATUS_DATA_OVERRUN, 4095, None),
    ({"transferred": 4096, "overrun": 1}, SRB_STATUS_DATA_OVERRUN, 4096, TOO_MUCH),
    ({"transferred": 10, "response": RESPONSE_NO_TARGET}, SRB_STATUS_SELECTION_TIMEOUT, 10, LOST),
    ({"response": RESPONSE_NO_LUN}, SRB_STATUS_INVALID_LUN, 0, None),
    ({"transferred": 20, "response": RESPONSE_ABORTED}, SRB_STATUS_ABORTED, 20, None),
    ({"response": RESPONSE_RESET}, SRB_STATUS_BUS_RESET, 0, None),
    ({"response": 9}, SRB_STATUS_INTERNAL_ERROR, 0, None),
    ({"status": 2, "transferred": 4095}, SRB_STATUS_ERROR, 4095, None),
    ({"status": 8, "transferred": 5000}, SRB_STATUS_ERROR, 4096, None),
]


def test_how_commands_end(called: Called) -> None:
    for ended, srb_status, length, log in ENDS:

        def answer(task: Any, ended: dict[str, int] = ended) -> None:
            for key, value in ended.items():
                setattr(task, key, value)

        called.bus.answer = answer
        srb = called.srb(0, IN, 4096)
        logged = [(log[0], srb, *log[1:])] if log else []
        assert called.start(srb) == [*logged, complete(srb, srb_status, length), *called.next()]
        assert srb.scsi_status == ended.get("status", 0)


SENSES = [
    (0, SENSE, 96, SENSE),
    (0, SENSE, 18, SENSE),
    (0, SENSE, 17, SENSE[:17]),
    (0, SENSE, 0, None),
    (0, b"", 96, None),
    (SRB_FLAGS_DISABLE_AUTOSENSE, SENSE, 96, None),
]


def test_ER_04_sense_data(called: Called) -> None:
    """The length says how much there is; without any the buffer is as it was."""
    for flags, sense, room, kept in SENSES:

        def answer(task: Any, sense: bytes = sense) -> None:
            task.status, task.sense = 2, sense

        called.bus.answer = answer
        srb = called.srb(0, flags, sense_info_buffer_length=room)
        said = called.start(srb)
        assert said == [complete(srb, SRB_STATUS_ERROR if kept is None else FAILED), *called.next()]
        expected = (b"", room) if kept is None else (kept, len(kept))
        assert (srb.sense_info_buffer, srb.sense_info_buffer_length) == expected


def test_interrupts_that_are_not_its_own(called: Called) -> None:
    """It does not look at what has ended then: the line is what says so (IN-01)."""
    called.bus.hold = True
    called.start(called.srb())
    called.bus.release(called.bus.held[0])
    called.chip.acknowledge()
    del called.port.said[:]
    assert called.miniport.hw_interrupt() is False and called.port.said == []
    called.chip.raise_interrupt()
    assert len(called.interrupt()) == 1


# -- 4. what is no command ---------------------------------------------------------------------------------------------


def control(called: Called, srb: Srb, status: int, *ended: tuple[Any, ...]) -> None:
    """What it has ended comes first (RS-02), and leaves no interrupt behind."""
    said = [one for one in called.start(srb) if one[0] != "get_srb"]
    assert said == [*ended, complete(srb, status), *called.next(SP_UNTAGGED)]
    assert not called.chip.asserted and not called.chip.completed


CONTROLS = [
    (SRB_FUNCTION_RESET_LOGICAL_UNIT, TARGET, SRB_STATUS_SUCCESS, True),
    (SRB_FUNCTION_RESET_LOGICAL_UNIT, 8, SRB_STATUS_NO_DEVICE, False),
    (SRB_FUNCTION_RESET_DEVICE, TARGET, SRB_STATUS_SUCCESS, True),
    (SRB_FUNCTION_RESET_DEVICE, 8, SRB_STATUS_NO_DEVICE, False),
    (SRB_FUNCTION_RESET_BUS, 8, SRB_STATUS_SUCCESS, True),
    (SRB_FUNCTION_FLUSH, TARGET, SRB_STATUS_SUCCESS, False),
    (SRB_FUNCTION_SHUTDOWN, TARGET, SRB_STATUS_SUCCESS, False),
    (SRB_FUNCTION_POWER, TARGET, SRB_STATUS_SUCCESS, False),
    (SRB_FUNCTION_IO_CONTROL, TARGET, SRB_STATUS_INVALID_REQUEST, False),
    (SRB_FUNCTION_WMI, TARGET, SRB_STATUS_INVALID_REQUEST, False),
]


def test_control_requests(called: Called) -> None:
    called.bus.hold = True
    for function, target, status, ends in CONTROLS:
        held = called.srb()
        called.start(held)
        srb = called.srb(function, target_id=target)
        if not ends:
            control(called, srb, status)
            assert len(called.bus.held) == 1
            srb = called.srb(SRB_FUNCTION_RESET_BUS)
        control(called, srb, SRB_STATUS_SUCCESS, complete(held, SRB_STATUS_BUS_RESET))
        assert called.bus.held == []


@pytest.mark.parametrize("function", [SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_TERMINATE_IO])
def test_ER_08_aborts(called: Called, name: str, function: int) -> None:
    called.bus.hold = True
    other, victim = called.srb(), called.srb(queue_tag=TAG + 1)
    for srb in (other, victim):
        called.start(srb)
    if name == GOOD and function == SRB_FUNCTION_TERMINATE_IO:
        control(called, called.srb(function, next_srb=victim), SRB_STATUS_INVALID_REQUEST)
        return
    unknown = called.srb()
    for nobody in (None, unknown):
        called.port.known = nobody
        control(called, called.srb(function, next_srb=nobody), SRB_STATUS_ABORT_FAILED)
    if called.model == "scsiport":
        called.port.known = other  # the port's tag is somebody else's by now
        control(called, called.srb(function, next_srb=victim), SRB_STATUS_ABORT_FAILED)
    called.port.known = victim
    srb = called.srb(function, next_srb=victim)
    control(called, srb, SRB_STATUS_SUCCESS, complete(victim, SRB_STATUS_ABORTED))
    asked = [one[1:] for one in called.port.said if one[0] == "get_srb"]
    assert asked == ([(PATH, TARGET, LUN, TAG + 1)] if called.model == "scsiport" else [])
    assert [task.owner for task in called.bus.held] == [other]


def test_ER_11_a_bus_reset(called: Called) -> None:
    called.bus.hold = True
    srbs = [called.srb() for _ in range(2)]
    for srb in srbs:
        called.start(srb)
    del called.port.said[:]
    assert called.miniport.hw_reset_bus(PATH) is True
    assert called.port.said == [complete(srb, SRB_STATUS_BUS_RESET) for srb in srbs]
    assert not called.chip.asserted and not called.chip.completed


def test_RS_05_control_types(called: Called, name: str) -> None:
    """As many of them are said as the list has room for; of the others none succeeds."""
    known = [SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER]
    if name == "dma":
        known = [SCSI_QUERY_SUPPORTED_CONTROL_TYPES, *known, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG]
    handle = called.miniport.hw_adapter_control
    for room in range(7):
        types = SupportedControlTypes(room)
        assert handle(SCSI_QUERY_SUPPORTED_CONTROL_TYPES, types) == 0
        assert types.supported == [number in known for number in range(room)] and types.beyond == []
    for _ in range(2):
        assert handle(SCSI_STOP_ADAPTER, None) == 0 and not called.chip.interrupts_enabled
        assert handle(SCSI_RESTART_ADAPTER, None) == 0 and called.chip.interrupts_enabled
    boot = [handle(number, None) for number in (SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG)]
    assert boot == [int(name == GOOD)] * 2
    assert handle(SCSI_ADAPTER_POWER, None) == 1 and called.chip.interrupts_enabled
