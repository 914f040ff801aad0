"""Dump mode: a crash that is none, a second miniport that polls, and what it is found to do wrong (DM-01 to DM-05)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from hba.classdriver.machine import Busy, Machine
from hba.clock import MS, S
from hba.instruments.make import make_port
from hba.miniport.base import SP_RETURN_ERROR, SP_RETURN_FOUND
from hba.miniport.config import (
    DUMP_MODE_CRASH,
    DUMP_MODE_HIBER,
    DUMP_MODE_MARK_MEMORY,
    DUMP_MODE_RESUME,
    PortConfigurationInformation,
)
from hba.miniport.driver_entry import PCI_BUS, HwInitializationData, initialize, sizeof
from hba.miniport.examples.good import GoodMiniport
from hba.miniport.load import load_miniport
from hba.port.base import AnyPort
from hba.port.context import HIGH_LEVEL
from hba.port.dump import Dump
from hba.port.pnp import PnpStep
from hba.scsi.task import Task
from hba.srb import (
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_NO_HBA,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.miniport.rig import MODELS, Rig

BLOCK = 512
EXAMPLES = [
    ("scsiport", "dma"),
    ("storport", "dma"),
    ("scsiport", "hba.miniport.examples.good:GoodMiniport"),
    ("storport", "hba.miniport.examples.good:GoodMiniport"),
    ("scsiport", "hba.miniport.examples.queued:QueuedScsiMiniport"),
    ("storport", "hba.miniport.examples.queued:QueuedMiniport"),
]
MOVED = ["READ CAPACITY", "READ", "WRITE", "READ", "compare"]
FOUND = "hw_find_adapter, hw_initialize"


class Lab:
    """An adapter with a small disk behind it, and the machine around it; ends of commands come when `hold` is off."""

    def __init__(
        self, model: str, name: str = "hba.miniport.examples.good:GoodMiniport", level: str = "report"
    ) -> None:
        self.disk = bytearray(range(256)) * 64
        self.rig = rig = Rig(model, name, level)
        rig.bus.answer = self.answer
        self.ports: list[AnyPort] = []

        def make(mode: int) -> AnyPort:
            miniport = load_miniport(name, rig.chip, {}, model, dump=True)
            dump = Dump(mode, rig.port.info.requested_dump_buffer_size)
            self.ports.append(make_port(model, rig.loop, miniport, rig.chip, None, rig.verifier, None, dump))
            return self.ports[-1]

        self.machine = Machine(rig.port, None, make)
        self.steps: list[PnpStep] | None = None
        self.under_way: list[Task] = []  # when the system crashed

    def answer(self, task: Task) -> None:
        operation, lba, blocks = task.cdb[0], 0, 0
        if operation in (0x88, 0x8A):
            _, _, lba, blocks = struct.unpack_from(">BBQI", task.cdb)
        if task.data is None:
            return
        if operation == 0x25:
            task.data.write(struct.pack(">II", len(self.disk) // BLOCK - 1, BLOCK))
        elif operation == 0x88:
            task.data.write(bytes(self.disk[lba * BLOCK : (lba + blocks) * BLOCK]))
        elif operation == 0x8A:
            self.disk[lba * BLOCK : (lba + blocks) * BLOCK] = task.data.read()
        task.transferred = task.data.length

    def begin(self, mode: int = DUMP_MODE_CRASH) -> None:
        def told(steps: list[PnpStep]) -> None:
            self.steps = steps

        self.under_way = list(self.rig.bus.held)
        self.machine.dump(mode, (0, 0, 0), 3, 4, told)

    def on(self, time: int = MS) -> None:
        """Some time goes by, and the disk does what it was told."""
        self.rig.clock.advance(time)
        self.rig.loop.run_once(0)
        for task in list(self.rig.bus.held):
            if task not in self.under_way:
                self.rig.bus.release(task)

    def dump(self, mode: int = DUMP_MODE_CRASH) -> dict[str, str]:
        """The whole of it; what each step ended with."""
        self.begin(mode)
        for _ in range(100):
            if self.steps is not None:
                break
            self.on()
        assert self.steps is not None
        return {step.what: step.outcome for step in self.steps}


@pytest.mark.parametrize(("model", "name"), EXAMPLES)
@pytest.mark.parametrize("hold", [False, True], ids=["at-once", "later"])
def test_DM_01_a_dump_while_the_guest_works(model: str, name: str, hold: bool) -> None:
    lab = Lab(model, name)
    rig, was = lab.rig, bytes(lab.disk)
    rig.submit()
    rig.bus.hold = True
    under_way = rig.submit()
    assert under_way not in rig.done
    rig.bus.hold = hold
    lab.begin()
    meanwhile = rig.submit()
    for _ in range(100):
        if lab.steps is not None:
            break
        assert meanwhile not in rig.done and under_way not in rig.done
        lab.on()
    assert lab.steps is not None
    assert [step.what for step in lab.steps] == [FOUND, *MOVED, "recover"]
    assert [step.unit for step in lab.steps] == ["", *["0:0:0"] * 5, ""]
    assert {step.outcome.partition(",")[0] for step in lab.steps} == {"success", "SUCCESS", "the same"}
    assert lab.disk == was and {0x25, 0x88, 0x8A} <= {task.cdb[0] for _, _, task in rig.bus.seen}
    assert under_way.srb_status == SRB_STATUS_BUS_RESET
    rig.bus.hold = False
    lab.on()
    assert rig.submit().srb_status == SRB_STATUS_SUCCESS == meanwhile.srb_status
    assert rig.found == set(), rig.verifier.findings if rig.verifier else None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("mode", "steps"),
    [(DUMP_MODE_MARK_MEMORY, []), (DUMP_MODE_RESUME, MOVED[:2]), (DUMP_MODE_HIBER, MOVED)],
)
def test_what_each_mode_moves(model: str, mode: int, steps: list[str]) -> None:
    name = "QueuedMiniport" if model == "storport" else "QueuedScsiMiniport"
    lab = Lab(model, f"hba.miniport.examples.queued:{name}")
    lab.dump(mode)
    assert lab.steps is not None and [step.what for step in lab.steps] == [FOUND, *steps, "recover"]
    assert lab.rig.found == set()


class Odd(GoodMiniport):
    """Does `odd` where a test wants it, in dump mode alone: (self, callback, config)."""

    odd: Callable[[Any, str, Any], object] = staticmethod(lambda *_: None)
    requested = 0

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        found = super().hw_find_adapter(config)
        config.requested_dump_buffer_size = self.requested
        self.own("find", config)
        return found

    def hw_initialize(self) -> bool:
        self.own("initialize", None)
        return super().hw_initialize()

    def hw_build_io(self, srb: Srb) -> bool:
        self.own("build", None)
        return super().hw_build_io(srb)

    def hw_interrupt(self) -> bool:
        return bool(self.own("interrupt", None)) or super().hw_interrupt()

    def own(self, callback: str, config: Any) -> object:
        return type(self).odd(self, callback, config) if self.dump else None


ODD = f"{__name__}:Odd"


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """odd(routine, requested=0)"""

    def set_it(routine: Callable[[Any, str, Any], object], requested: int = 0) -> None:
        monkeypatch.setattr(Odd, "odd", staticmethod(routine))
        monkeypatch.setattr(Odd, "requested", requested)

    return set_it


@pytest.mark.parametrize("model", MODELS)
def test_DM_01_all_of_it_at_HIGH_LEVEL_and_no_interrupt(model: str, odd: Callable[..., None]) -> None:
    seen: list[tuple[str, int]] = []
    lab = Lab(model, ODD)
    odd(lambda _miniport, callback, _config: seen.append((callback, lab.ports[-1].irql)))
    lab.rig.bus.hold = True
    lab.dump()
    assert {irql for _, irql in seen} == {HIGH_LEVEL}
    assert {callback for callback, _ in seen} == {"find", "initialize", "build", "interrupt"}
    assert lab.rig.found == set()


def test_DM_01_the_registry_is_out_of_reach(odd: Callable[..., None]) -> None:
    lab = Lab("storport", ODD)
    odd(lambda miniport, callback, _: callback == "find" and miniport.port.registry_read("x", True, 1, None, 0))
    lab.dump()
    assert lab.rig.found == {"LB-01"}


@pytest.mark.parametrize("model", MODELS)
def test_DM_01_a_command_that_does_not_end(model: str, odd: Callable[..., None]) -> None:
    lab = Lab(model, ODD)
    lab.rig.bus.hold = True
    lab.begin()
    lab.rig.clock.advance(11 * S)
    outcomes = {step.what: step.outcome for step in lab.steps or ()}
    assert outcomes["READ CAPACITY"].startswith("no end, ") and outcomes["recover"] == "success"
    assert lab.rig.found == {"DM-01"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("size", "requested", "found"), [(32, 0, False), (33, 0, True), (33, 48 << 10, False)])
def test_DM_02_memory_is_scarce(model: str, size: int, requested: int, found: bool, odd: Callable[..., None]) -> None:
    odd(
        lambda miniport, callback, config: (
            callback == "find" and miniport.port.get_uncached_extension(config, size << 10)
        ),
        requested,
    )
    lab = Lab(model, ODD)
    lab.dump()
    assert lab.rig.found == ({"DM-02"} if found else set())


def test_DM_02_dma_memory_counts(odd: Callable[..., None]) -> None:
    odd(lambda miniport, callback, _: callback == "initialize" and miniport.port.allocate_dma_memory(40 << 10))
    lab = Lab("storport", ODD)
    lab.dump()
    assert lab.rig.found == {"DM-02"}


@pytest.mark.parametrize("model", MODELS)
def test_DM_03_no_time_of_day(model: str, odd: Callable[..., None]) -> None:
    odd(lambda miniport, callback, _: callback == "build" and miniport.port.query_system_time() and False)
    lab = Lab(model, ODD)
    lab.dump()
    assert lab.rig.found == {"DM-03"}


def test_DM_03_no_dpcs(odd: Callable[..., None]) -> None:
    odd(lambda miniport, callback, _: callback == "initialize" and miniport.port.initialize_dpc(print))
    lab = Lab("storport", ODD)
    lab.dump()
    assert lab.rig.found == {"DM-03"}


@pytest.mark.parametrize("mode", [DUMP_MODE_HIBER, DUMP_MODE_MARK_MEMORY, DUMP_MODE_CRASH])
def test_DM_04_memory_is_marked(mode: int, odd: Callable[..., None]) -> None:
    odd(lambda miniport, callback, config: callback == "find" and miniport.port.get_uncached_extension(config, 64))
    lab = Lab("storport", ODD)
    lab.dump(mode)
    assert lab.rig.found == (set() if mode == DUMP_MODE_CRASH else {"DM-04"})


class Careless(GoodMiniport):
    def hw_initialize(self) -> bool:
        self.chip.interrupts_enabled = True
        return True


@pytest.mark.parametrize("model", MODELS)
def test_DM_05_the_adapter_is_not_taken_over(model: str) -> None:
    lab = Lab(model, f"{__name__}:Careless")
    lab.rig.bus.hold = True
    under_way = lab.rig.submit()
    lab.rig.bus.hold = False
    lab.dump()
    assert "DM-05" in lab.rig.found
    assert under_way.srb_status == SRB_STATUS_BUS_RESET


ENTERED: list[tuple[object, object, str]] = []


def driver_entry(driver_object: Any, registry_path: Any) -> int:
    model = "storport"
    data = HwInitializationData(hw_initialization_data_size=sizeof(model))
    data.adapter_interface_type = PCI_BUS
    data.hw_find_adapter = _find
    data.hw_initialize = lambda adapter: True
    data.hw_start_io = data.hw_interrupt = data.hw_reset_bus = data.hw_adapter_control = lambda adapter, *_: False
    data.need_physical_addresses = True
    data.tagged_queuing = data.auto_request_sense = data.multiple_request_per_lu = True
    ENTERED.append((driver_object, registry_path, ""))
    return initialize(driver_object, registry_path, data)


def _find(_adapter: Any, _hw: Any, _bus: Any, arguments: str, config: Any, _again: Any) -> int:
    ENTERED.append((None, config.dump_mode, arguments))
    config.maximum_transfer_length, config.number_of_physical_breaks = 4096, 2
    return SP_RETURN_FOUND


def test_DM_01_a_driver_entry_is_told_in_three_ways() -> None:
    lab = Lab("storport", f"{__name__}:driver_entry")
    ENTERED.clear()
    lab.dump(DUMP_MODE_MARK_MEMORY)
    entry, found, *_ = ENTERED
    assert entry == (None, None, "") and found == (None, DUMP_MODE_MARK_MEMORY, "dump=1;")
    assert ENTERED[2][1:] == (0, "")  # the one that runs, after the boot


class Refusing(GoodMiniport):
    """Finds its adapter as long as `tries` last."""

    tries = 0

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        Refusing.tries -= 1
        found = super().hw_find_adapter(config)
        return found if Refusing.tries >= 0 else SP_RETURN_ERROR


@pytest.mark.parametrize("tries", [1, 2])
def test_adapters_that_are_not_found(tries: int) -> None:
    Refusing.tries = tries
    lab = Lab("storport", f"{__name__}:Refusing")
    lab.rig.bus.hold = True
    lab.begin()
    meanwhile = lab.rig.submit()
    lab.rig.bus.hold = False
    for _ in range(100):
        if lab.steps is not None:
            break
        lab.on()
    outcomes = {step.what: step.outcome for step in lab.steps or ()}
    assert ("failed" in outcomes[FOUND], "failed" in outcomes["recover"]) == (tries == 1, True)
    assert meanwhile.srb_status == SRB_STATUS_NO_HBA


@pytest.mark.parametrize("model", MODELS)
def test_the_guest_resets_its_adapter_in_the_middle(model: str) -> None:
    lab = Lab(model)
    lab.rig.bus.hold = True
    lab.begin()
    with pytest.raises(Busy, match="dump is not over yet"):
        lab.machine.stop(print)
    meanwhile = lab.rig.submit()
    lab.rig.port.reset_adapter()
    assert meanwhile.srb_status == SRB_STATUS_BUS_RESET
    lab.rig.clock.advance(11 * S)
    lab.rig.bus.hold = False
    assert lab.steps is not None and lab.rig.submit().srb_status == SRB_STATUS_SUCCESS


@pytest.mark.parametrize("model", MODELS)
def test_the_server_ends_in_the_middle(model: str) -> None:
    lab = Lab(model)
    lab.rig.bus.hold = True
    lab.begin()
    meanwhile = lab.rig.submit()
    lab.rig.port.stop()
    assert meanwhile.srb_status == SRB_STATUS_ABORTED
    lab.rig.clock.advance(11 * S)
    assert not lab.rig.port.started and lab.rig.submit().srb_status == SRB_STATUS_NO_HBA
