"""The state machine of tests/port over Storport, and what only Storport has: pause, busy, depth, link."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from hba.miniport.config import STOR_ADAPTER_FEATURE_ABORT_COMMAND, STOR_SYNCHRONIZE_FULL_DUPLEX
from hba.miniport.services import LINK_DOWN, LINK_UP
from hba.port.storport.config import StorPortConfig
from hba.port.storport.driver import StorPort
from hba.port.storport.units import LINK_DOWN as LINK_DOWN_GATE
from hba.srb import SRB_FUNCTION_EXECUTE_SCSI, Srb
from tests.port.fakes import FakeMiniport, Rig
from tests.port.machine import LUNS, PortMachine

DEPTH = 3
ADAPTER = 6


class StorPortMachine(PortMachine):
    max_depth = DEPTH
    max_outstanding = ADAPTER
    feature: ClassVar[int] = 0
    traced: ClassVar[bool] = True  # without, batches and single requests take their short ways
    options: ClassVar[dict[str, Any]] = {}

    def make_rig(self) -> Rig:
        miniport = FakeMiniport(
            "",
            synchronization_model=STOR_SYNCHRONIZE_FULL_DUPLEX,
            maximum_transfer_length=1 << 20,
            number_of_physical_breaks=64,
            feature_support=self.feature,
            bus_reset_hold_time=500_000,
        )
        config = StorPortConfig(
            initial_lun_queue_depth=DEPTH, max_ios_per_lun=DEPTH, max_number_of_io=ADAPTER, **self.options
        )
        return Rig(miniport, config, "storport", self.verifier, traced=self.traced)

    @property
    def port(self) -> StorPort:
        assert isinstance(self.rig.port, StorPort)
        return self.rig.port

    @rule(seconds=st.integers(1, 3))
    def pause(self, seconds: int) -> None:
        self.rig.hardware(lambda: self.port.miniport.port.pause(seconds))  # type: ignore[attr-defined]

    @rule(lun=LUNS, seconds=st.integers(1, 3))
    def pause_device(self, lun: int, seconds: int) -> None:
        self.rig.hardware(lambda: self.port.miniport.port.pause_device(0, 0, lun, seconds))  # type: ignore[attr-defined]

    @rule(count=st.integers(1, 4))
    def busy(self, count: int) -> None:
        self.rig.hardware(lambda: self.port.miniport.port.busy(count))  # type: ignore[attr-defined]

    @rule(lun=LUNS, count=st.integers(1, 4))
    def device_busy(self, lun: int, count: int) -> None:
        self.rig.hardware(lambda: self.port.miniport.port.device_busy(0, 0, lun, count))  # type: ignore[attr-defined]

    @rule(lun=LUNS)
    def ready(self, lun: int) -> None:
        self.rig.hardware(lambda: self.port.miniport.port.ready())  # type: ignore[attr-defined]
        self.rig.hardware(lambda: self.port.miniport.port.device_ready(0, 0, lun))  # type: ignore[attr-defined]

    @rule()
    def link_flaps(self) -> None:
        down = self.port.gates.closed & LINK_DOWN_GATE
        self.rig.hardware(lambda: self.rig.miniport.port.notification(LINK_UP if down else LINK_DOWN))

    @rule()
    def build_io_pauses(self) -> None:
        """The next BuildIo makes the port pause, so its request is held between build and start."""
        miniport = self.rig.miniport

        def build(srb: Srb) -> bool:
            del miniport.hw_build_io
            miniport.port.pause(1)  # type: ignore[attr-defined]
            return True

        miniport.hw_build_io = build  # type: ignore[method-assign]

    def drain(self) -> None:
        if self.port.gates.closed & LINK_DOWN_GATE:
            self.link_flaps()
        super().drain()


class VerifiedMachine(StorPortMachine):
    verifier = "report"


class UntracedMachine(StorPortMachine):
    traced = False


class PlainMachine(StorPortMachine):
    verifier = "off"
    traced = False


class AbortingMachine(StorPortMachine):
    feature = STOR_ADAPTER_FEATURE_ABORT_COMMAND


class InterleavedMachine(StorPortMachine):
    options: ClassVar[dict[str, Any]] = {"interleave": 1, "busy_retry": "inf"}


# 40 examples, or ten times as many when looking for new defects (tests/conftest.py).
CONFIG = settings(max_examples=settings().max_examples * 2 // 5, stateful_step_count=40, deadline=None)
TestVerified = VerifiedMachine.TestCase
TestVerified.settings = CONFIG
TestUntraced = UntracedMachine.TestCase
TestUntraced.settings = CONFIG
TestPlain = PlainMachine.TestCase
TestPlain.settings = CONFIG
TestAborting = AbortingMachine.TestCase
TestAborting.settings = CONFIG
TestInterleaved = InterleavedMachine.TestCase
TestInterleaved.settings = CONFIG


def test_QD_01_order_is_kept_per_unit() -> None:
    """First in, first out, whatever completes when: without retries nothing overtakes on its unit."""
    machine = PlainMachine()
    machine.begin()
    rig = machine.rig
    order: list[bytes] = []
    rig.miniport.on_start = lambda srb: order.append(srb.cdb) if srb.function == SRB_FUNCTION_EXECUTE_SCSI else None
    for key in range(30):
        machine.command(key % 2, key, 2, 60)
        if key % 3 == 0:
            rig.finish(rig.miniport.held[-1])
    machine.drain()
    for lun in (0, 1):
        keys = [cdb[5] for cdb in order if cdb[5] % 2 == lun]
        assert keys == sorted(keys)
    machine.teardown()
