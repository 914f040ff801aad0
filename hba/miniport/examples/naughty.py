"""A miniport that breaks rules on purpose, and still serves its disks: what the verifier finds is known beforehand.

    [adapter]
    miniport = "hba.miniport.examples.naughty:NaughtyMiniport"

    [adapter.miniport_options]
    rules = ["OW-02", "Q-13"]    # break only these; all of the table below without
    every = 10                   # commands between two sins

The sins take turns, one every `every` commands, so a guest that sends a few hundred commands has seen them all. After
`2 * every * len(rules)` reads and writes, the rules the verifier has counted are exactly `expected(model, rules)`.

| sin    | under    | what it does                                                       | also found |
|--------|----------|--------------------------------------------------------------------|------------|
| OW-01  | both     | looks at an SRB it has completed                                   |            |
| OW-02  | both     | completes an SRB twice                                             |            |
| OW-06  | both     | changes TimeOutValue                                               |            |
| OW-08  | both     | uses the SRB extension after the completion                        |            |
| OW-09  | both     | takes the data from where the port keeps them (srb.mdl)            |            |
| Q-13   | both     | sets SRB_STATUS_QUEUE_FROZEN                                       |            |
| IN-03  | both     | stalls for 200 ms in hw_start_io                                   | ST-08 (Storport) |
| MB-13  | both     | has the chip write to memory that belongs to no request            |            |
| LB-02  | both     | reads the config space while it starts a request                   |            |
| LB-03  | both     | reads a register at its bus address, which is none GetDeviceBase gave it |      |
| CF-02  | SCSI Port| reads a data buffer that is not mapped                             |            |
| CF-04  | SCSI Port| names no SRB for the address of its buffer, and one for that of its extension | |
| MB-05  | Storport | reads the data buffer of a read or write                           |            |
| MB-11  | Storport | uses a scatter/gather list after the completion                    |            |
| MB-12  | Storport | likewise                                                           |            |
| ST-02  | Storport | says NextRequest                                                   |            |
| ST-04  | Storport | counts in hw_build_io without a lock                               |            |
| ST-09  | Storport | leaves SynchronizationModel at half duplex (once, at the start)    |            |
| LK-03  | Storport | returns from hw_build_io with a lock held                          |            |
| LK-04  | Storport | takes the lock of a message although messages have none            |            |
| LB-01  | Storport | reads the registry while it starts a request, at DISPATCH_LEVEL    |            |
| LB-04  | Storport | frees the registry buffer twice                                    |            |
| IN-08  | Storport | asks in hw_msi_interrupt what a message is (interrupts are messages for this) | |
| PF-05  | Storport | asks for redirection to messages it does not have (once)           |            |
| PF-06  | Storport | asks for the parameters of a start-I/O without room for them       |            |
| QD-04  | Storport | asks for queue depth 0                                             |            |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from hba.dma import DmaBuffer
from hba.errors import ConfigError
from hba.miniport.board import MEMORY_BASE
from hba.miniport.config import (
    INTERRUPT_SYNCHRONIZE_ALL,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_SYNCHRONIZE_HALF_DUPLEX,
    PerfConfigurationData,
    PortConfigurationInformation,
)
from hba.miniport.examples.good import GoodMiniport
from hba.miniport.services import INTERRUPT_LOCK, NEXT_REQUEST, STOR_STATUS_SUCCESS, StorPortServices
from hba.scsi.task import DATA_IN, Task
from hba.srb import SRB_FUNCTION_EXECUTE_SCSI, SRB_STATUS_QUEUE_FROZEN, Srb

BOTH = ("OW-01", "OW-02", "OW-06", "OW-08", "OW-09", "Q-13", "IN-03", "MB-13", "LB-02", "LB-03")
SINS = {
    "scsiport": (*BOTH, "CF-02", "CF-04"),
    "storport": (
        *(*BOTH, "MB-05", "MB-11", "MB-12", "ST-02", "ST-04", "ST-09"),
        *("LK-03", "LK-04", "PF-05", "PF-06", "QD-04", "LB-01", "LB-04", "IN-08"),
    ),
}
ONCE = ("ST-09", "PF-05")  # at the start
SIDE_EFFECTS = {("storport", "IN-03"): "ST-08"}  # a stall in Storport's StartIo is wrong however short
READ_WRITE = (0x08, 0x0A, 0x28, 0x2A, 0x88, 0x8A, 0xA8, 0xAA)
NOWHERE = 0x0BAD_F00D_0000  # a bus address no request has
PCI_CONFIGURATION = 4  # BUS_DATA_TYPE, wdm.h
REG_SZ = 1
NO_MESSAGE = 0xFFFF  # beyond all that are ever granted


def expected(model: str, rules: Iterable[str] | None = None) -> set[str]:
    """The rules the verifier has findings for when every sin was committed at least twice."""
    committed = {rule for rule in SINS[model] if rules is None or rule in set(rules)}
    return committed | {found for (of, rule), found in SIDE_EFFECTS.items() if of == model and rule in committed}


class NaughtyMiniport(GoodMiniport):
    """See the module's text."""

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        model = self.port.model
        rules = self.options.get("rules", SINS[model])
        unknown = sorted(set(rules) - set(SINS["scsiport"]) - set(SINS["storport"]))
        every = self.options.get("every", 10)
        if unknown or not isinstance(every, int) or every < 1:
            raise ConfigError(
                f"miniport_options of the naughty miniport: rules = {list(rules)!r}, every = {every!r}: rules must be "
                f"some of {', '.join(SINS[model])} and every a number from 1"
            )
        self.rules = [rule for rule in SINS[model] if rule in rules]
        self.turns = deque(rule for rule in self.rules if rule not in ONCE)
        self.every = every
        self.commands = 0
        self.sin = ""
        found = super().hw_find_adapter(config)
        if "IN-08" in self.rules:
            config.interrupt_synchronization_mode = INTERRUPT_SYNCHRONIZE_ALL
        if "ST-09" in self.rules:
            config.synchronization_model = STOR_SYNCHRONIZE_HALF_DUPLEX
        return found

    def hw_initialize(self) -> bool:
        if "PF-05" in self.rules:
            flags = STOR_PERF_DPC_REDIRECTION | STOR_PERF_INTERRUPT_MESSAGE_RANGES
            perf = PerfConfigurationData(flags=flags, last_redirection_message_number=NO_MESSAGE)
            self.try_to(lambda: cast(StorPortServices, self.port).initialize_perf_opts(False, perf))
        if "IN-08" in self.turns and cast(StorPortServices, self.port).get_msi_info(0)[0] != STOR_STATUS_SUCCESS:
            self.turns.remove("IN-08")  # none was granted
        return super().hw_initialize()

    def hw_build_io(self, srb: Srb) -> bool:
        if self.storport and self.sin == "ST-04":
            self.built = object()  # shared by all BuildIos, guarded by nothing; until the next one's turn
        if self.storport and self.sin == "LK-03" and srb.function == SRB_FUNCTION_EXECUTE_SCSI:
            self.try_to(lambda: cast(StorPortServices, self.port).acquire_spin_lock(INTERRUPT_LOCK))
            self.next_turn()
        return super().hw_build_io(srb)

    def hw_start_io(self, srb: Srb) -> bool:
        if srb.function == SRB_FUNCTION_EXECUTE_SCSI and srb.cdb and srb.cdb[0] in READ_WRITE:
            self.commands += 1
            # Most of the time it behaves, and one that waits for its opportunity is not forgotten for the next. A race
            # is looked for in samples (ST-04), so it goes on for a while.
            if self.turns and self.sin in ("", "ST-04") and self.commands % self.every == 0:
                self.sin = self.turns[0]
                self.turns.rotate(-1)
            self.before(srb)
        return super().hw_start_io(srb)

    def before(self, srb: Srb) -> None:
        """Sins against a request we own."""
        sin, port = self.sin, self.port
        if sin == "OW-06":
            self.try_to(lambda: setattr(srb, "time_out_value", 7))
        elif sin == "IN-03":
            self.try_to(lambda: port.stall_execution(200_000))
        elif sin == "MB-13":
            task = Task(bytes((0x12, 0, 0, 0, 36, 0)), DATA_IN, DmaBuffer.of(bytearray(36), base=NOWHERE))
            self.try_to(lambda: self.chip.start(srb.target_id, srb.lun, task))
        elif sin in ("CF-02", "MB-05"):
            self.try_to(lambda: srb.data_buffer.read(0, 4))
        elif sin in ("CF-04", "MB-12"):
            self.try_to(lambda: port.get_physical_address(None, srb.data_buffer))
            self.try_to(lambda: port.get_physical_address(srb, srb.srb_extension))
        elif sin == "OW-09":
            self.try_to(lambda: srb.mdl)
        elif sin == "LB-01":
            self.try_to(lambda: cast(StorPortServices, port).registry_read("Colour", True, REG_SZ, None, 0))
        elif sin == "LB-02":
            self.try_to(lambda: port.get_bus_data(PCI_CONFIGURATION, 0, 0))
        elif sin == "LB-03":
            self.try_to(lambda: port.read_register_ulong(cast(Any, MEMORY_BASE)))
        elif sin == "LB-04":
            self.try_to(self.free_twice)
        elif sin == "IN-08":
            self.chip.raise_interrupt()  # commands that end at once raise none
            return
        elif sin == "LK-04":
            self.try_to(lambda: cast(StorPortServices, port).acquire_msi_spin_lock(0))
        elif sin == "PF-06":
            self.try_to(lambda: cast(StorPortServices, port).get_start_io_perf_params(srb, None))
        elif sin == "ST-02":
            self.try_to(lambda: port.notification(NEXT_REQUEST))
        elif sin == "QD-04":
            stor = cast(StorPortServices, port)
            self.try_to(lambda: stor.set_device_queue_depth(srb.path_id, srb.target_id, srb.lun, 0))
        else:
            return
        self.next_turn()

    def free_twice(self) -> None:
        port = cast(StorPortServices, self.port)
        buffer = port.allocate_registry_buffer(4)
        port.free_registry_buffer(buffer)
        port.free_registry_buffer(buffer)

    def hw_msi_interrupt(self, message_id: int) -> bool:
        self.chip.acknowledge()
        self.reap()
        if self.sin == "IN-08":
            self.try_to(lambda: cast(StorPortServices, self.port).get_msi_info(message_id))
            self.next_turn()
        return True

    def complete(self, srb: Srb) -> None:
        """Sins around a completion."""
        sin = self.sin
        if sin == "Q-13":
            srb.srb_status |= SRB_STATUS_QUEUE_FROZEN
        segments = None
        if sin == "MB-11":
            segments = cast(StorPortServices, self.port).get_scatter_gather_list(srb)
        if not self.try_to(lambda: super(NaughtyMiniport, self).complete(srb)):
            # Level strict refused it as it was, and has put it right: the guest must get its request back.
            self.try_to(lambda: super(NaughtyMiniport, self).complete(srb))
        if sin == "OW-01":
            self.try_to(lambda: srb.cdb)
        elif sin == "OW-02":
            self.try_to(lambda: super(NaughtyMiniport, self).complete(srb))
        elif sin == "OW-08":
            self.try_to(lambda: srb.srb_extension)
        elif sin == "MB-11" and segments is not None:
            self.try_to(lambda: list(segments))
        elif sin != "Q-13":
            return
        self.next_turn()

    def next_turn(self) -> None:
        self.sin = ""

    def try_to(self, sin: Callable[[], object]) -> bool:
        """Commit it. What the verifier (strict) or a guarded buffer throws at us must not reach the guest's request."""
        try:
            sin()
        except Exception:
            return False
        return True

    def end(self, srb: Srb, task: Task) -> None:
        if task.owner is not None:  # the MB-13 command has nobody to tell
            super().end(srb, task)
