"""The chip's queues: command blocks that it fetches from memory by DMA, and completions that it writes there.

The other way in than `Chip.start`, for miniports that are built as those of real adapters are. A miniport lays a
command block and a list of data segments into memory the chip can reach (its SRB extension), rings the doorbell with
the block's bus address, and finds a completion in a ring (in its uncached extension) when the queue's message comes.

    block = srb.srb_extension                               COMMAND_BLOCK, and ELEMENTs at its list_address
    queues.post(0, get_physical_address(None, block)[0])
    ... message, or the line ...
    completions[head]                                       COMPLETION; new if its phase is the one that is due

Everything is read and written at bus addresses, so whatever is wrong with one is found as it is for data (MB-13).
"""

from __future__ import annotations

from struct import Struct

from hba.dma import DmaBuffer
from hba.errors import DmaFault
from hba.miniport.chip import Chip
from hba.scsi.task import DATA_IN, DATA_NONE, DATA_OUT, Task

# target, LUN, bytes of CDB, direction (DATA_*), task attribute, room for sense data, 0, tag, elements of the list,
# bus address of the list, bus address of the sense buffer, CDB
COMMAND_BLOCK = Struct("<BBBBBBHIIQQ32s")
ELEMENT = Struct("<QII")  # bus address, bytes, 0
# tag, bytes moved, bytes there was no room for, SAM status, RESPONSE_*, bytes of sense data, phase
COMPLETION = Struct("<IIIBBBB")
MOST_ELEMENTS = 4096
RESPONSE_BAD_BLOCK = 0x80  # beside RESPONSE_*: the block or its list makes no sense, or leads nowhere


class QueueTask(Task):
    """A command that was fetched from a block."""

    def __init__(self, cdb: bytes, direction: int, data: DmaBuffer | None, queue: Queue, tag: int) -> None:
        super().__init__(cdb, direction, data)
        self.queue = queue
        self.tag = tag
        self.sense_address = 0
        self.sense_room = 0


class Queue:
    """One queue as the chip knows it: whose it is, where completions go, and which message tells of them."""

    def __init__(self, of: CommandQueues, ring_address: int, entries: int, message: int) -> None:
        self.of = of
        self.ring_address = ring_address
        self.entries = entries
        self.message = message
        self.next = 0
        self.phase = 1  # of the completions in this round through the ring; the ring is zeroed at first
        self.commands: dict[int, QueueTask] = {}  # by tag


class CommandQueues:
    """The doorbells of one chip."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._queues: dict[int, Queue] = {}
        chip.on_report = self._finish

    def create(self, number: int, ring_address: int, entries: int, message: int = 0) -> None:
        """Set up a queue, anew if it is there already. The ring is `entries` COMPLETIONs of zeroes; there must never be
        more commands than that whose completions were not taken."""
        self._queues[number] = Queue(self, ring_address, entries, message)

    def post(self, number: int, block_address: int) -> None:
        """Ring the doorbell: execute the command in the block. Its end is always told by a completion.

        Raises `DmaFault` when the block cannot be read, and KeyError for a queue that is not set up.
        """
        queue = self._queues[number]
        block = self._chip.read_memory(block_address, COMMAND_BLOCK.size, "command block")
        target, lun, cdb_length, direction, attribute, room, _, tag, elements, at, sense_at, cdb = COMMAND_BLOCK.unpack(
            block
        )
        try:
            data = self._data(direction, elements, at)
            if cdb_length > len(cdb):
                raise DmaFault(block_address, len(block), f"a CDB of {cdb_length} bytes in a command block")
        except DmaFault:
            task = QueueTask(cdb, DATA_NONE, None, queue, tag)
            task.response = RESPONSE_BAD_BLOCK
            self._finish([task])
            return
        task = QueueTask(cdb[:cdb_length], direction, data, queue, tag)
        task.attribute = attribute
        task.sense_address, task.sense_room = sense_at, room
        queue.commands[tag] = task
        if self._chip.start(target, lun, task):
            self._finish([task])

    def abort(self, number: int, tag: int) -> bool:
        """End one command; its completion says so. False: it is not here."""
        task = self._queues[number].commands.get(tag)
        return task is not None and self._chip.abort(task)

    def _data(self, direction: int, elements: int, list_address: int) -> DmaBuffer | None:
        if direction == DATA_NONE:
            return None
        if direction not in (DATA_IN, DATA_OUT) or not 0 < elements <= MOST_ELEMENTS:
            raise DmaFault(list_address, elements * ELEMENT.size, "no direction, or no list of such a length")
        raw = self._chip.read_memory(list_address, elements * ELEMENT.size, "list of data segments")
        segments = [(address, length) for address, length, _ in ELEMENT.iter_unpack(raw)]
        return self._chip.map(None, segments, direction == DATA_IN)

    def _finish(self, tasks: list[Task]) -> list[Task]:
        """Write the completions of those that are a queue's, and tell of them; the others."""
        others: list[Task] = []
        told: dict[int, None] = {}
        for task in tasks:
            if isinstance(task, QueueTask):
                if task.queue.of is self:  # else of one there was before the driver was loaded anew: nobody's any more
                    self._complete(task)
                    told[task.queue.message] = None
            else:
                others.append(task)
        for message in told:
            self._chip.raise_interrupt(message)
        return others

    def _complete(self, task: QueueTask) -> None:
        queue = task.queue
        queue.commands.pop(task.tag, None)
        sense = task.sense[: task.sense_room]
        if sense:
            self._chip.write_memory(task.sense_address, sense, "sense data")
        entry = COMPLETION.pack(
            task.tag, task.transferred, task.overrun, task.status, task.response, len(sense), queue.phase
        )
        self._chip.write_memory(queue.ring_address + queue.next * COMPLETION.size, entry, "completion")
        queue.next += 1
        if queue.next == queue.entries:
            queue.next = 0
            queue.phase ^= 1
