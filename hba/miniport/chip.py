"""The chip of the simple bus-master host adapter that the miniports of this project program.

It executes commands on the SCSI bus, moves their data by DMA and interrupts when a command has ended. Its "registers"
are plain methods: `start`, `abort`, `reset_*` on the way in; the queue `completed`, the interrupt line `asserted` and
`acknowledge()` on the way back.

A command that ends while it is being started (data in the page cache, an empty target, bad CDB) does not interrupt:
`start` says so, as a chip does whose status register the driver may poll.

The interrupt is the line, or, once the port was granted some, messages: `task.message` says which one the end of a
command raises, and `completions(message)` has what has ended with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hba.dma import HOST_MEMORY_BASE, LOW_MEMORY_BASE, LOW_MEMORY_END, DmaBuffer, DmaSpace, Segment
from hba.errors import DmaFault
from hba.miniport.bounce import BOUNCE_BASE, bounced
from hba.miniport.seen import SeenSrb
from hba.miniport.windows import DmaWindows
from hba.scsi.bus import ScsiBus
from hba.scsi.task import DATA_IN, RESPONSE_RESET, Task
from hba.srb import Srb


class Chip:
    """One adapter's chip, in front of one bus.

    `dma`         how it reaches the guest's memory (`hba.pci.memory.GuestMemory`).
    `windows`     what it may reach now: set by a port with a verifier, else None (MB-13).
    `active`      commands it has and has not reported yet.
    `identity`    of the PCI function it sits on (`hba.pci.identity.Identity`), when there is one
    `board`       that function, as the miniport sees it: `hba.miniport.board.board_of`
    `completed`   commands that ended later than `start`, oldest first; the interrupt routine takes them out.
    `messages`    message signalled interrupts it may raise; 0: it drives its line instead.
    """

    def __init__(self, bus: ScsiBus, dma: DmaSpace) -> None:
        self.bus = bus
        self.dma = dma
        self.windows: DmaWindows | None = None
        self.identity: object = None
        self.board: object = None
        self.active: dict[Task, None] = {}  # ordered set
        self.completed: deque[Task] = deque()
        self.asserted = False
        self.messages = 0
        self._by_message: list[deque[Task]] = [self.completed]
        self._raised = 0  # messages to be delivered, a bit for each
        self._masked = 0  # those that wait until they are unmasked, likewise
        self._enabled = True
        self._plugged = False
        self._rows: list[tuple[int, int, list[Task]]] = []  # started while plugged: those in a row for a target and LUN
        self._target = self._lun = -1  # of the last row
        self._row: list[Task] = []
        self.on_interrupt: Callable[[], None] | None = None
        # Who gets commands that have ended before they are in `completed`: takes its own, gives the others back.
        self.on_report: Callable[[list[Task]], list[Task]] | None = None
        self._own_memory: list[tuple[int, memoryview]] = []
        self._low_memory: list[tuple[int, memoryview]] = []  # in order
        self._done = self._task_done  # bound once: the hot path sets it on every task

    # -- commands ---------------------------------------------------------------------------------------------

    def start(self, target: int, lun: int, task: Task) -> bool:
        """Run a command. True: it has ended, its result is in `task`. False: it interrupts when it has.

        lun: as addressed; or the first two bytes of the LUN field for the REPORT LUNS well known unit.
        """
        if self.windows is not None:
            self.windows.begin(task)
        task.done = self._done
        self.active[task] = None
        if not self._plugged:
            return task in self._retire(self.bus.execute(target, lun, [task]))
        if lun != self._lun or target != self._target:
            self._target, self._lun, self._row = target, lun, []
            self._rows.append((target, lun, self._row))
        self._row.append(task)
        return False

    def plug(self) -> None:
        """More commands are about to be started: keep them, and execute them together at `unplug`."""
        self._plugged = True

    def unplug(self) -> None:
        """Execute what was started since `plug`; one interrupt for all that end at once."""
        self._plugged = False
        self._settle()

    def _retire(self, tasks: list[Task]) -> list[Task]:
        """Commands have ended: the chip moves nothing for them any more, the guest can see their data.

        Returns those somebody waits for: what a reset or `forget` gave up was completed long ago.
        """
        active, windows = self.active, self.windows
        waited_for = tasks
        for task in tasks:
            if windows is not None:
                windows.end(task)
            try:
                del active[task]
            except KeyError:
                waited_for = [other for other in waited_for if other is not task]
                continue
            data = task.data
            if data is not None and data.by_message and task.direction == DATA_IN:
                data.commit(task.transferred)
        return waited_for

    def _report(self, tasks: list[Task]) -> None:
        """Commands have ended later than `start`."""
        if self.on_report is not None:
            tasks = self.on_report(tasks)
        if not tasks:
            return
        if not self.messages:
            self.completed += tasks
            self.raise_interrupt()
            return
        raised: dict[int, None] = {}
        for task in tasks:
            message = task.message if 0 <= task.message < self.messages else 0
            self._by_message[message].append(task)
            raised[message] = None
        for message in raised:
            self.raise_interrupt(message)

    def abort(self, task: Task) -> bool:
        """End one command with RESPONSE_ABORTED; it comes back through `completed`. False: it is not here."""
        self._settle()
        return task in self.active and self.bus.abort(task)

    def _settle(self) -> None:
        """What was kept back is executed: nothing is while commands are aborted or reset."""
        rows, self._rows, self._row = self._rows, [], []  # nothing here keeps the guest's memory mapped
        self._target = -1
        ended: list[Task] = []
        for target, lun, tasks in rows:
            ended += self.bus.execute(target, lun, tasks)
        self._report(self._retire(ended))

    def reset_unit(self, target: int, lun: int) -> bool:
        """False when there is no such unit. The commands come back through `completed` with RESPONSE_RESET."""
        self._settle()
        return self.bus.reset_unit(target, lun)

    def reset_target(self, target: int) -> bool:
        self._settle()
        return self.bus.reset_target(target)

    def reset_bus(self) -> None:
        """Every command the chip has comes back with RESPONSE_RESET, also one the bus no longer knows."""
        self._settle()
        self.bus.reset_bus()
        for task in list(self.active):
            task.response = RESPONSE_RESET
            self._task_done(task)

    def forget(self, task: Task) -> None:
        """Give a command up: if it ever ends, nobody is told."""
        if task in self.active:
            del self.active[task]

    # -- interrupt --------------------------------------------------------------------------------------------

    def _task_done(self, task: Task) -> None:
        self._report(self._retire([task]))

    def raise_interrupt(self, message: int = 0) -> None:
        """Assert the line; level triggered, so a second cause while it is up makes no second edge. With messages: raise
        one, which is an edge each time; those that were not delivered yet merge."""
        if self.messages:
            self.asserted = True
            self._raised |= 1 << message
            if self._enabled and self.on_interrupt is not None:
                self.on_interrupt()
        elif not self.asserted:
            self.asserted = True
            if self._enabled and self.on_interrupt is not None:
                self.on_interrupt()

    def acknowledge(self) -> None:
        """Dismiss the interrupt. Take `completed` out after this, or an end in between goes unnoticed."""
        self.asserted = False

    @property
    def interrupts_enabled(self) -> bool:
        """The chip's interrupt mask register. Enabling it with the line up interrupts at once."""
        return self._enabled

    @interrupts_enabled.setter
    def interrupts_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        waiting = self._raised & ~self._masked if self.messages else self.asserted
        if enabled and waiting and self.on_interrupt is not None:
            self.on_interrupt()

    # -- messages ---------------------------------------------------------------------------------------------

    def use_messages(self, count: int) -> None:
        """For the port: so many messages are granted; 0: the line."""
        self.messages = count
        self._by_message = [self.completed, *(deque[Task]() for _ in range(1, count))]
        self._raised = self._masked = 0

    def completions(self, message: int) -> deque[Task]:
        """Commands that have ended with this message, oldest first; its interrupt routine takes them out."""
        return self._by_message[message]

    def next_message(self) -> int:
        """For the port: the lowest message that was raised and not delivered, which it is now; -1: none."""
        raised = self._raised & ~self._masked
        if not raised or not self._enabled:
            return -1
        lowest = raised & -raised
        self._raised &= ~lowest
        return lowest.bit_length() - 1

    def message_waits(self) -> bool:
        """For the port: whether `next_message` has one."""
        return self._raised & ~self._masked != 0 and self._enabled

    def mask_message(self, message: int, masked: bool) -> None:
        """The mask bit of a message in the MSI-X table: one that is masked waits, and comes when it is unmasked."""
        if masked:
            self._masked |= 1 << message
            return
        self._masked &= ~(1 << message)
        if self._raised >> message & 1 and self._enabled and self.on_interrupt is not None:
            self.on_interrupt()

    def quiet(self) -> None:
        """For the port: what has ended is forgotten, and no interrupt waits."""
        for completed in self._by_message:
            completed.clear()
        self._raised = 0
        self.asserted = False

    # -- DMA --------------------------------------------------------------------------------------------------

    def map(self, srb: SeenSrb | None, segments: Sequence[Segment], write: int) -> DmaBuffer:
        """Program the scatter/gather engine: what `task.data` must be for these bus addresses.

        `write`: the chip will write to them (not 0). With `srb`, a list equal to the port's own for this request is not
        translated a second time. Raises `DmaFault` when an address leads nowhere.
        """
        if srb is not None:
            # What stands for an SRB has no `mdl`: the SRB behind it has.
            mdl: DmaBuffer | None = srb.mdl if type(srb) is Srb else srb._port.srb.mdl
            if mdl is not None and (segments is mdl.segments or segments == mdl.segments):
                return mdl
        plain = not self._own_memory and not self._low_memory
        if plain and not (segments and segments[0][0] >= BOUNCE_BASE):
            return self.dma.buffer(segments, bool(write))
        return self._map_mixed(segments, bool(write))

    def read_memory(self, address: int, length: int, what: str) -> bytes:
        """Fetch bytes by DMA that belong to no command's data; `what` they are. Raises `DmaFault`."""
        if self.windows is not None:
            self.windows.access(address, length, what)
        return self.map(None, [(address, length)], False).read()

    def write_memory(self, address: int, data: bytes, what: str) -> None:
        """Store bytes by DMA, likewise."""
        if self.windows is not None:
            self.windows.access(address, len(data), what)
        memory = self.map(None, [(address, len(data))], True)
        memory.write(data)
        memory.commit(len(data))

    def _map_mixed(self, segments: Sequence[Segment], write: bool) -> DmaBuffer:
        """Segments of which some may lie in the host's own memory."""
        views: list[memoryview] = []
        for address, length in segments:
            own = self._own_memory
            if BOUNCE_BASE <= address < HOST_MEMORY_BASE:
                memory = bounced(address, length)
                if memory is None:
                    raise DmaFault(address, length, "no such memory of the host")
                views.append(memory)
                continue
            if address < HOST_MEMORY_BASE:
                own = self._low_memory
                if not own or not LOW_MEMORY_BASE <= address < LOW_MEMORY_END:
                    views += self.dma.buffer([(address, length)], write).views
                    continue
            for base, memory in own:
                if base <= address and address + length <= base + len(memory):
                    views.append(memory[address - base : address - base + length])
                    break
            else:
                raise DmaFault(address, length, "no such memory of the host")
        return DmaBuffer(segments, views, sum(length for _, length in segments))

    def add_host_memory(self, memory: memoryview, boundary: int = 0) -> int:
        """Make memory of the host (an uncached extension) reachable; returns its bus address. It crosses no multiple of
        `boundary` when that is given."""
        base = HOST_MEMORY_BASE
        if self._own_memory:
            last, view = self._own_memory[-1]
            base = last + ((len(view) + 0xFFF) & ~0xFFF)
        if boundary and base // boundary != (base + len(memory) - 1) // boundary:
            base = -(-base // boundary) * boundary
        self._own_memory.append((base, memory))
        return base

    def add_low_memory(self, memory: memoryview, boundary: int, first: int, last: int) -> int:
        """The same with a bus address of 32 bits, all of it from `first` to `last`. 0: there is no room."""
        size = len(memory)
        base = max(first, LOW_MEMORY_BASE)
        end = min(last + 1, LOW_MEMORY_END)
        for at, (taken, view) in enumerate([*self._low_memory, (end, memory)]):  # the room before each, and the last
            base = (base + 0xFFF) & ~0xFFF
            if boundary and base // boundary != (base + size - 1) // boundary:
                base = -(-base // boundary) * boundary
            if base + size <= min(taken, end):
                self._low_memory.insert(at, (base, memory))
                return base
            base = max(base, taken + len(view))
        return 0

    def remove_host_memory(self, memory: memoryview) -> None:
        """It can be reached no more."""
        self._low_memory = [own for own in self._low_memory if own[1] is not memory]
        self._own_memory = [own for own in self._own_memory if own[1] is not memory]

    def release_host_memory(self) -> None:
        self._own_memory.clear()
        self._low_memory.clear()
