"""Random life of a SCSI Port (tests.port.machine): with verifier, without, with and without overlap."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis.stateful import invariant

from hba.port.scsiport.config import ScsiPortConfig
from tests.port.fakes import TAGGED, Rig
from tests.port.machine import PortMachine, honest

SETTINGS = settings(max_examples=settings().max_examples * 12 // 100, stateful_step_count=30, deadline=None)


class ScsiPortMachine(PortMachine):
    info: ClassVar[dict[str, Any]] = TAGGED
    options: ClassVar[dict[str, Any]] = {}

    def make_rig(self) -> Rig:
        return Rig(
            honest(**self.info),
            ScsiPortConfig(**{"bus_reset_hold_time": 2, "abort_timeout": 2, "busy_retries": 3, **self.options}),
            verifier=self.verifier,
            traced=False,
        )

    @invariant()
    def an_untagged_request_is_alone(self) -> None:
        """Q-14."""
        if not hasattr(self, "rig"):
            return
        held = [srb for srb in self.rig.miniport.held if srb.function == 0]
        for lun, count in Counter(srb.lun for srb in held if srb.queue_tag == 0xFF).items():
            assert count == 1 and sum(srb.lun == lun for srb in held) == 1

    @invariant()
    def tags_are_unique(self) -> None:
        """Q-14."""
        if not hasattr(self, "rig"):
            return
        tags = [srb.queue_tag for srb in self.rig.miniport.held if srb.function == 0 and srb.queue_tag != 0xFF]
        assert len(tags) == len(set(tags))
        assert len(tags) + len(self.rig.port.slot.free_tags) == 32


class Tagged(ScsiPortMachine):
    pass


class TaggedUnwatched(ScsiPortMachine):
    verifier = "off"
    options: ClassVar[dict[str, Any]] = {"requests_per_unit": 5}
    max_depth = 5


class OneAtATime(ScsiPortMachine):
    info: ClassVar[dict[str, Any]] = {"auto_request_sense": True}
    max_depth = 1


class PortSense(ScsiPortMachine):
    """The port fetches the sense data itself (ER-03)."""

    info: ClassVar[dict[str, Any]] = {"tagged_queuing": True}
    autosense = False


for machine in (Tagged, TaggedUnwatched, OneAtATime, PortSense):
    case = machine.TestCase
    case.settings = SETTINGS
    globals()[f"Test{machine.__name__}"] = case
del case, machine
