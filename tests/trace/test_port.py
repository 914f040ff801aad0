"""What the trace of a port says, event by event: who reads one has nothing else to go by."""

from __future__ import annotations

from typing import Any

import pytest

from hba.clock import VirtualClock
from hba.instruments.make import make_port
from hba.loop import EventLoop
from hba.miniport.chip import Chip
from hba.miniport.services import NEXT_REQUEST, REQUEST_COMPLETE
from hba.port.config import PortConfig
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.scsi.bus import ScsiBus
from hba.srb import SCSISTAT_CHECK_CONDITION, SRB_FUNCTION_RELEASE_QUEUE, SRB_STATUS_ABORTED, SRB_STATUS_ERROR, Srb
from hba.trace.recorder import Recorder
from tests.port.fakes import TAGGED, FakeMiniport, NoGuest
from tests.port.fakes import Rig as ScsiRig
from tests.port.storport.rig import Rig, Scripted
from tests.port.storport.test_messages import Messenger


class Story:
    """What a recorder got since the last look, one line an event, without the time."""

    def __init__(self, recorder: Recorder | None) -> None:
        assert recorder is not None
        self._recorder = recorder
        self._seen = 0

    def __call__(self) -> list[str]:
        self._seen, events = self._recorder.since(self._seen, 1000)
        self._seen += len(events)
        return [f"{event.kind} {event.srb} {event.detail}" for event in events]


STARTED = ("hw_find_adapter", "hw_initialize", "hw_adapter_control", "hw_unit_control")


def handed_over(number: int, started: bool = True) -> list[str]:
    return [
        f"build_io.enter {number} None",
        f"build_io.exit {number} True",
        f"start_io.enter {number} None",
        f"start_io.exit {number} {started}",
    ]


def in_interrupt(*told: str) -> list[str]:
    return ["interrupt 0 no callback", "isr.enter 0 None", *told, "isr.exit 0 True"]


def boom(*arguments: object) -> Any:
    raise RuntimeError("boom")


def test_storport() -> None:
    """Commands with and without data; what the miniport returned, and that a callback that raised returned nothing."""
    rig = Rig(trace=True)
    told = Story(rig.recorder)
    rig.inquire()
    assert told() == [
        *(f"{callback}.{way} 0 None" for callback in STARTED for way in ("enter", "exit")),
        "submit 1 0:0:0 cdb 12000000000000000000000000000000 length 36 status 0x00/0x00",
        "map 1 other: MappedBuffer",
        "build_io.enter 1 None",
        "build_io.exit 1 True",
        "start_io.enter 1 None",
        "start_io.exit 1 True",
        *in_interrupt("notification 1 RequestComplete"),
        "complete 1 0:0:0 cdb 12000000000000000000000000000000 length 36 status 0x01/0x00",
    ]
    rig.submit(length=512)
    rig.submit(opcode=0, length=0)
    assert told() == [
        "submit 2 0:0:0 cdb 28000000000000000000000000000000 length 512 status 0x00/0x00",
        "map 2 read/write: OpaqueBuffer",
        *handed_over(2),
        "submit 3 0:0:0 cdb 00000000000000000000000000000000 length 0 status 0x00/0x00",
        *handed_over(3),
    ]
    rig.finish_all(SRB_STATUS_ERROR)
    assert told() == [
        *in_interrupt(
            "notification 2 RequestComplete",
            "finding 2 ER-01 SRB_STATUS_ERROR with ScsiStatus GOOD: no status says what went wrong",
            "notification 3 RequestComplete",
            "finding 3 ER-01 SRB_STATUS_ERROR with ScsiStatus GOOD: no status says what went wrong",
        ),
        "complete 2 0:0:0 cdb 28000000000000000000000000000000 length 512 status 0x04/0x00",
        "complete 3 0:0:0 cdb 00000000000000000000000000000000 length 0 status 0x04/0x00",
    ]
    rig.scripted.build = lambda srb: False
    rig.submit(opcode=0, length=0)
    assert told()[1:] == ["build_io.enter 4 None", "build_io.exit 4 False"]
    rig.scripted.build = boom
    rig.submit(opcode=0, length=0)
    assert told()[1:] == [
        "build_io.enter 5 None",
        "build_io.exit 5 False",
        "finding 5 BC-01 hw_build_io raised RuntimeError: boom",
        "complete 5 0:0:0 cdb 00000000000000000000000000000000 length 0 status 0x30/0x00",
    ]
    rig.scripted.build, rig.scripted.start = None, boom
    rig.submit(opcode=0, length=0)
    assert told()[1:] == [
        *handed_over(6, started=False),
        "finding 6 BC-01 hw_start_io raised RuntimeError: boom",
        "complete 6 0:0:0 cdb 00000000000000000000000000000000 length 0 status 0x30/0x00",
    ]
    rig.in_interrupt(boom)
    assert told() == [
        "interrupt 0 no callback",
        "isr.enter 0 None",
        "isr.exit 0 False",
        "finding 0 BC-01 hw_interrupt raised RuntimeError: boom",
    ]
    rig.close()


def test_messages() -> None:
    """An interrupt by message says which, and returns as the other does."""
    miniport = Messenger()
    rig = Rig(miniport, trace=True)
    told = Story(rig.recorder)
    told()
    rig.chip.raise_interrupt(5)
    miniport.answer = False
    rig.chip.raise_interrupt(0)
    miniport.during = boom
    rig.chip.raise_interrupt(1)
    assert told() == [
        "interrupt 0 no callback",
        "isr.enter 0 {'message': 5}",
        "isr.exit 0 True",
        "interrupt 0 no callback",
        "isr.enter 0 {'message': 0}",
        "isr.exit 0 False",
        "finding 0 IN-08 hw_msi_interrupt returned False for message 0 of its adapter",
        "interrupt 0 no callback",
        "isr.enter 0 {'message': 1}",
        "isr.exit 0 False",
        "finding 0 BC-01 hw_interrupt raised RuntimeError: boom",
    ]
    rig.close()


def test_scsiport() -> None:
    """A request's turn is told apart from its start, whose turn is next with the unit, and how it ended in the words of
    the I/O manager."""
    rig = ScsiRig(FakeMiniport(**TAGGED), ScsiPortConfig(auto_release=False))
    told = Story(rig.trace)
    told()
    rig.command(lun=1)
    rig.finish()
    assert told() == [
        "submit 1 0:0:1 cdb 28000000000000000100 length 512 status 0x00/0x00",
        "driver_start_io.enter 1 None",
        "start_io.enter 1 None",
        "notification 0 ['NextLuRequest', 0, 0, 1]",
        "start_io.exit 1 True",
        *in_interrupt("notification 1 RequestComplete"),
        "complete 1 0:0:1 cdb 28000000000000000100 length 512 status 0x01/0x00 STATUS_SUCCESS",
    ]
    rig.hardware(lambda: rig.miniport.port.notification(REQUEST_COMPLETE, Srb(0)))  # never seen before
    assert told()[2] == "notification 0 RequestComplete"
    rig.hardware(lambda: rig.miniport.port.notification(NEXT_REQUEST))
    rig.hardware(lambda: rig.miniport.port.notification(0x77))
    assert told() == [
        *in_interrupt("notification 0 NextRequest"),
        *in_interrupt("notification 0 0x77", "finding 0 SP-09 notification type 119 does not exist in SCSI Port"),
    ]
    rig.close()


def test_what_happens_between_the_callbacks() -> None:
    """A queue that freezes for a request is told with its number, and its release, which is for none, without."""
    rig = ScsiRig(FakeMiniport(**TAGGED), ScsiPortConfig(auto_release=False))
    rig.command()
    rig.command()
    told = Story(rig.trace)
    told()
    rig.finish(rig.held(), SRB_STATUS_ABORTED)
    rig.submit(SRB_FUNCTION_RELEASE_QUEUE)
    assert [line for line in told() if line.startswith(("freeze", "release"))] == [
        "freeze 1 0:0:0: aborted",
        "release_queue 0 0:0:0: by #3",
    ]
    rig.close()


def test_what_is_the_ports_own_says_why() -> None:
    """A REQUEST SENSE nobody above has asked for."""
    rig = ScsiRig(FakeMiniport("next"), ScsiPortConfig(auto_release=False))
    told = Story(rig.trace)
    rig.command()
    told()
    rig.finish(status=SRB_STATUS_ERROR, scsi_status=SCSISTAT_CHECK_CONDITION)
    assert told() == [
        *in_interrupt("notification 1 RequestComplete"),
        "submit 2 REQUEST SENSE for #1: 0:0:0 cdb 030000001200 length 18 status 0x00/0x00",
        "driver_start_io.enter 2 None",
        "start_io.enter 2 None",
        "notification 0 NextRequest",
        "start_io.exit 2 True",
    ]
    rig.close()


@pytest.mark.parametrize(
    ("model", "config", "error", "words"),
    [
        ("scsiport", StorPortConfig(), TypeError, "scsiport takes a ScsiPortConfig, not StorPortConfig"),
        ("storport", ScsiPortConfig(), TypeError, "storport takes a StorPortConfig, not ScsiPortConfig"),
        ("miniport", None, ValueError, "no port model 'miniport'; there are scsiport, storport"),
    ],
)
def test_a_port_of_no_model(model: str, config: PortConfig | None, error: type[Exception], words: str) -> None:
    loop = EventLoop(VirtualClock())
    with pytest.raises(error) as raised:
        make_port(model, loop, Scripted(), Chip(ScsiBus(), NoGuest()), config)
    loop.close()
    assert str(raised.value) == words
