"""The COMMAND, COMMAND_DATA and COMMAND_STATUS registers: commands with a descriptor of 32-bit words.

A command runs when its last descriptor word has been written, before the next register access is looked at: drivers
rely on its effect being there by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from hba.adapters.pvscsi.config_pages import config_page
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.registers import (
    CMD_ABORT_CMD,
    CMD_ADAPTER_RESET,
    CMD_CONFIG,
    CMD_RESET_BUS,
    CMD_RESET_DEVICE,
    CMD_SETUP_MSG_RING,
    CMD_SETUP_REQCALLTHRESHOLD,
    CMD_SETUP_RINGS,
    COMMAND_NAMES,
    STATUS_FAILED,
)
from hba.adapters.pvscsi.rings import Rings
from hba.adapters.pvscsi.structures import (
    ABORT_CMD,
    CONFIG,
    RESET_DEVICE,
    SETUP_MSG_RING,
    SETUP_MSG_RING_MAX_PAGES,
    SETUP_REQCALLTHRESHOLD,
    SETUP_RINGS,
    SETUP_RINGS_MAX_PAGES,
)
from hba.adapters.ring.adapter import RingAdapter
from hba.errors import DmaFault
from hba.pci.registers import RegisterBlock
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    Srb,
)

STATUS_OK: Final = 0


def _legal_pages(count: int, most: int) -> bool:
    return 0 < count <= most and count & (count - 1) == 0


class CommandRegisters:
    """The command latch of one adapter.

    `last` names the last command and what came of it, `counts` how often each ran.
    """

    def __init__(self, adapter: RingAdapter[Rings], registers: RegisterBlock, options: PvscsiOptions) -> None:
        self.adapter = adapter
        self._options = options
        self.counts: Counter[str] = Counter()
        self._status = registers.cell("COMMAND_STATUS")
        # descriptor size in bytes, what runs it
        self._commands: dict[int, tuple[int, Callable[[bytes], int]]] = {
            CMD_ADAPTER_RESET: (0, self._adapter_reset),
            CMD_SETUP_RINGS: (SETUP_RINGS.size, self._setup_rings),
            CMD_RESET_BUS: (0, self._reset_bus),
            CMD_RESET_DEVICE: (RESET_DEVICE.size, self._reset_device),
            CMD_ABORT_CMD: (ABORT_CMD.size, self._abort),
        }
        if options.config_page:
            self._commands[CMD_CONFIG] = (CONFIG.size, self._config)
        if options.message_ring:
            self._commands[CMD_SETUP_MSG_RING] = (SETUP_MSG_RING.size, self._setup_messages)
        if options.request_call_threshold:
            self._commands[CMD_SETUP_REQCALLTHRESHOLD] = (SETUP_REQCALLTHRESHOLD.size, self._threshold)
        registers.on_write("COMMAND", self._latch)
        registers.on_write("COMMAND_DATA", self._data)
        self.reset()

    def reset(self) -> None:
        self._current = 0
        self._descriptor = bytearray()
        self.threshold_enabled = False
        self.last = ""

    def pending(self) -> tuple[int, bytes]:
        """The command whose descriptor is being written, 0 for none, and what of it has been."""
        return self._current, bytes(self._descriptor)

    def restore(self, command: int, descriptor: bytes, threshold: bool, last: str) -> None:
        """Go on with what `pending` gave. Raises ValueError for what cannot have been."""
        size = self._commands[command][0] if command in self._commands else 0
        if (command and not size) or len(descriptor) % 4 or len(descriptor) > max(0, size - 4):
            raise ValueError(f"command {command} with {len(descriptor)} bytes of its descriptor")
        self._current, self._descriptor = command, bytearray(descriptor)
        self.threshold_enabled, self.last = threshold, last

    def _latch(self, value: int) -> None:
        self._current = value
        self._descriptor.clear()
        command = self._commands.get(value)
        if command is None:
            self.last = f"{COMMAND_NAMES.get(value, hex(value))}: unsupported"
            self.counts["unsupported"] += 1
            self._current = 0
            self._status.value = STATUS_FAILED
        elif command[0]:
            # The words still wanted: what a driver reads that only asks whether the command exists.
            self._status.value = command[0] // 4
        else:
            self._run(command[1])

    def _data(self, value: int) -> None:
        command = self._commands.get(self._current)
        if command is None:
            return  # data for nothing: an unsupported command's, or more than was wanted
        self._descriptor += value.to_bytes(4, "little")
        if len(self._descriptor) == command[0]:
            self._run(command[1])

    def _run(self, function: Callable[[bytes], int]) -> None:
        name = COMMAND_NAMES[self._current]
        descriptor = bytes(self._descriptor)
        self._current = 0
        self._descriptor.clear()
        self.counts[name] += 1
        try:
            status = function(descriptor)
            self.last = f"{name}: {'failed' if status == STATUS_FAILED else 'ok'}"
        except DmaFault as fault:
            status = STATUS_FAILED
            self.last = f"{name}: {fault}"
            self.adapter.access.cannot_reach(f"what {name} gave", fault)
            for watcher in self.adapter.access.watchers:
                watcher.failed(name, fault)
        self._status.value = status

    # -- the commands ---------------------------------------------------------------------------------------------

    def _adapter_reset(self, _descriptor: bytes) -> int:
        self.adapter.adapter_reset()
        self.threshold_enabled = False
        return STATUS_OK

    def _setup_rings(self, descriptor: bytes) -> int:
        fields = SETUP_RINGS.unpack(descriptor)
        requests, completions, state = fields[:3]
        if not _legal_pages(requests, SETUP_RINGS_MAX_PAGES) or not _legal_pages(completions, SETUP_RINGS_MAX_PAGES):
            return STATUS_FAILED
        adapter = self.adapter
        if adapter.access.rings is not None:
            adapter.adapter_reset()  # the old rings go the way a reset makes them go
        requests_at, completions_at = list(fields[3 : 3 + requests]), list(fields[35 : 35 + completions])
        rings = Rings(adapter.memory, state, requests_at, completions_at)
        rings.set_up()
        adapter.access.set_up(rings)
        return STATUS_OK

    def _setup_messages(self, descriptor: bytes) -> int:
        fields = SETUP_MSG_RING.unpack(descriptor)
        pages = fields[0]
        rings = self.adapter.access.rings
        if rings is None:
            return STATUS_OK  # without rings it does nothing, by the interface's own words
        if not _legal_pages(pages, SETUP_MSG_RING_MAX_PAGES):
            return STATUS_FAILED
        self.adapter.units.forget("set up its message ring anew")
        rings.setup_messages(list(fields[2 : 2 + pages]))
        return STATUS_OK

    def _reset_bus(self, _descriptor: bytes) -> int:
        self.adapter.look("command")  # what is on the request ring may be what it is about
        self._submit(Srb(SRB_FUNCTION_RESET_BUS))
        return STATUS_OK

    def _reset_device(self, descriptor: bytes) -> int:
        target, lun = RESET_DEVICE.unpack(descriptor)
        if target > 255 or lun[0] or any(lun[2:]):
            return STATUS_FAILED
        self.adapter.look("command")  # what is on the request ring may be what it is about
        self._submit(Srb(SRB_FUNCTION_RESET_DEVICE, 0, target, lun[1]))
        return STATUS_OK

    def _abort(self, descriptor: bytes) -> int:
        context, target, _pad = ABORT_CMD.unpack(descriptor)
        self.adapter.look("command")  # what is on the request ring may be what it is about
        victim = self.adapter.in_flight.by_handle.get(context)
        if victim is None or victim.target_id != target:
            return STATUS_OK  # it has completed meanwhile: its completion is on the ring
        abort = Srb(SRB_FUNCTION_ABORT_COMMAND, 0, victim.target_id, victim.lun)
        abort.next_srb = victim
        self._submit(abort)
        return STATUS_OK

    def _submit(self, srb: Srb) -> None:
        # The effect is the completions of the requests it ends; how it ended itself is the port's to count.
        srb.completion = lambda _srb: None
        self.adapter.port.submit(srb)

    def _config(self, descriptor: bytes) -> int:
        where, address, number, _pad = CONFIG.unpack(descriptor)
        adapter = self.adapter
        page = config_page(number, address, self._options, adapter.bus)
        if adapter.memory.by_message(where, len(page)):
            # By message it could be written only after this register write has been answered. The driver would find
            # nothing then, give the page back, and the answer would come into memory that is something else by now.
            return STATUS_FAILED
        adapter.memory.write(where, page)
        return STATUS_OK

    def _threshold(self, descriptor: bytes) -> int:
        (enable,) = SETUP_REQCALLTHRESHOLD.unpack(descriptor)
        # The threshold in the state page is 0 but for the time in which the ring is looked at anyway.
        self.threshold_enabled = bool(enable)
        return int(self.threshold_enabled)
