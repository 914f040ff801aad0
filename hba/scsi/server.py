"""The device server all device types share: admission, order, dispatch, ending, unit attentions, resets (SAM-5, SPC-4).

A command's handler (see `hba.scsi.command`) returns None, data-in bytes, PENDING (somebody will call `finish_io`),
or a generator that yields operations. An operation is `backend.flush` or `partial(backend.read, views, offset)` or the
like: called with `done`, it says True when it has finished at once. `None` instead of an operation gives the event loop
a turn. Errors are thrown into the generator; they say which operation failed, so that the sense data does.
"""

from __future__ import annotations

import errno
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hba.clock import MS, Clock
from hba.errors import StorageError
from hba.scsi.address import unit_name
from hba.scsi.attention import Attentions
from hba.scsi.command import Command, CommandTable
from hba.scsi.reservations import Reservations
from hba.scsi.sense import (
    INTERNAL_TARGET_FAILURE,
    INVALID_COMMAND_OPERATION_CODE,
    INVALID_MESSAGE_ERROR,
    LOGICAL_UNIT_NOT_SUPPORTED,
    NO_SENSE,
    REPORTED_LUNS_DATA_HAS_CHANGED,
    CheckCondition,
    descriptor_sense,
    fixed_sense,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.state import SavedState
from hba.scsi.storage_sense import SenseError, condition_for, was_writing
from hba.scsi.task import (
    ACA,
    DATA_IN,
    DATA_OUT,
    HEAD_OF_QUEUE,
    INITIATOR,
    ORDERED,
    RESPONSE_ABORTED,
    RESPONSE_RESET,
    HostTask,
    Task,
)
from hba.scsi.trouble import Trouble
from hba.scsi.unit import LogicalUnit
from hba.scsi.unit_state import Deferred, ServerState, UnitState

if TYPE_CHECKING:
    from hba.scsi.spc.log import LogPages
    from hba.scsi.spc.mode import ModePage, ModePages

GOOD = 0x00
CHECK_CONDITION = 0x02
RESERVATION_CONFLICT = 0x18
TASK_SET_FULL = 0x28

Operation = Callable[[Callable[[StorageError | None], None]], bool]
Steps = Generator[Operation | None, None, None]

PENDING = False
MAX_WAITING = 4096  # more than any adapter's rings hold; beyond it TASK SET FULL

log = logging.getLogger(__name__)


def _name(operation: Operation) -> str:
    """What an operation does to the store: "read", "write", "flush", ..."""
    return str(getattr(operation, "func", operation).__name__)


def _ended(resume: Callable[[StorageError | None], None], name: str, error: StorageError | None) -> None:
    resume(None if error is None else error.during(name))


class Identity:
    """What INQUIRY says about a unit. Text is ASCII, cut and padded where it is sent."""

    def __init__(
        self,
        vendor: str = "HBA",
        product: str = "VIRTUAL DISK",
        revision: str = "0001",
        serial: str = "0",
        naa: int = 0,
        target: int = 0,
        lun: int = 0,
    ) -> None:
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.serial = serial
        self.naa = naa  # 64 bits, NAA 3h (locally assigned) or whatever was configured; 0: derived from the serial
        self.target = target
        self.lun = lun

    def words(self) -> list[str]:
        """By which two units are told apart."""
        return [self.vendor, self.product, self.revision, self.serial, f"{self.naa:016x}"]


class DeviceServer(LogicalUnit):
    """One logical unit. Device types derive from it and bring their command table."""

    commands: CommandTable
    removable = False

    def __init__(self, identity: Identity, clock: Clock, state: SavedState | None = None) -> None:
        self.identity = identity
        self.clock = clock
        self.state = state if state is not None else SavedState(None)
        self.attentions = Attentions()
        self.attentions.meet(INITIATOR)
        self.reservations = Reservations(self.attentions, self.state)
        self.descriptor_sense = False  # the control mode page's D_SENSE
        self.deferred: CheckCondition | None = None  # an error that no command was there to end with
        self.started_at = clock.now()
        self.commands_run = 0  # commands that were no plain reads or writes
        self.trouble = Trouble(clock, self.tell)
        self.checks = 0  # commands ended with CHECK CONDITION
        self.self_tests: list[bytes] = []  # results of SEND DIAGNOSTIC, the latest first, 16 bytes each
        self.buffer = bytearray()  # the data buffer of READ BUFFER and WRITE BUFFER
        self.echo = b""  # the echo buffer of READ BUFFER and WRITE BUFFER
        self.timestamp = (0, 0)  # (origin, offset in ms to the clock) of REPORT TIMESTAMP
        self._in_flight: dict[Task, Steps | None] = {}
        self._waiting: deque[Task] = deque()
        self._barrier: Task | None = None
        self._draining = False
        self._special = True

    # -- what a device type fills in ---------------------------------------------------------------------------------

    mode: ModePages
    logs: LogPages

    @abstractmethod
    def inquiry_data(self) -> bytes:
        """Standard INQUIRY data."""

    @abstractmethod
    def vpd_pages(self) -> dict[int, Callable[[], bytes]]:
        """Vital product data pages: the code, and what makes the bytes after the 4-byte header."""

    def block_descriptor(self, long_lba: bool) -> bytes:
        """The block descriptor of the mode parameters: 8 bytes, 16 for a long LBA, or none."""
        return b""

    def check_block_descriptor(self, descriptor: bytes, position: int, long_lba: bool) -> None:
        """MODE SELECT brought one, `position` bytes into the list. Raises `CheckCondition` for a change."""
        raise invalid_parameter(position - 1)

    def medium_type(self) -> int:
        return 0

    def device_specific(self) -> int:
        """The device-specific parameter of the mode parameter header."""
        return 0

    def mode_changes(self, pages: Sequence[tuple[ModePage, bytes]]) -> Steps:
        """What has to be done before these pages become current; an error keeps them from it."""
        yield from ()

    def mode_changed(self) -> None:
        """The current mode pages have changed: obey them."""

    def pollable_sense(self) -> int:
        """What REQUEST SENSE reports when nothing is wrong."""
        return NO_SENSE

    def diagnostic_page(self, code: int) -> bytes | None:
        """RECEIVE DIAGNOSTIC RESULTS: a whole page, or None when there is no such page."""
        return b"\x00\x00\x00\x01\x00" if code == 0 else None

    def diagnostic_control(self, data: bytes) -> None:
        """SEND DIAGNOSTIC brought a page. Page 00h asks for nothing; every other is refused here."""
        if data[0]:
            raise invalid_parameter(0)

    def error_lba(self, task: Task) -> int | None:
        """The LBA to report with a storage error."""
        return None

    def check_ready(self) -> None:
        """Raise `CheckCondition` while commands that need a medium cannot run."""

    def check_admission(self, command: Command) -> None:
        """Raise `CheckCondition` for a command the present state of the unit forbids whatever it needs."""

    def is_special(self) -> bool:
        """Whether in the device type's own state no read or write is plain (`hba.scsi.plan`)."""
        return False

    def on_reset(self, kind: str) -> None:
        """Back to saved mode pages and the like."""

    # -- running -----------------------------------------------------------------------------------------------------

    def execute(self, tasks: list[Task]) -> list[Task]:
        return [task for task in tasks if self.attempt(self.admit, task)]

    def attempt(self, step: Callable[[Task], bool], task: Task) -> bool:
        """Take a step (its answer: has the task ended) that may raise why the task ends."""
        try:
            return step(task)
        except CheckCondition as condition:
            self._refuse(task, condition)
        except StorageError as error:
            self.storage_failed(task, error)
        except Exception as error:
            self.defect(task, error)
        return True

    def admit(self, task: Task) -> bool:
        """Task attributes and the order of the task set."""
        attribute = task.attribute
        if attribute == ACA:
            raise CheckCondition(INVALID_MESSAGE_ERROR)  # SAM-5: no ACA condition is ever in effect here
        blocked = bool(self._waiting) or self._barrier is not None
        if attribute == ORDERED:
            blocked = blocked or bool(self._in_flight)
        if blocked and attribute != HEAD_OF_QUEUE:
            return self._wait(task)
        return self._start(task)

    def _wait(self, task: Task) -> bool:
        if len(self._waiting) >= MAX_WAITING and not isinstance(task, HostTask):
            task.status = TASK_SET_FULL
            return True
        task.unit = self
        self._waiting.append(task)
        self.refresh()
        return False

    def _start(self, task: Task) -> bool:
        """Run a task whose turn it is."""
        if isinstance(task, HostTask):
            return self._start_host_task(task)
        command = self.commands.find(task.cdb)
        if command.exclusive and self._in_flight:
            return self._wait(task)
        if command.attention:
            pending = self.attentions.next(task.initiator)
            if pending is not None:
                self.refresh()
                raise CheckCondition(pending)
            if self.deferred is not None:
                return self._report_deferred(task)
        else:
            self.attentions.meet(task.initiator)
        if self.reservations.conflict(command, task):
            task.status = RESERVATION_CONFLICT
            return True
        command.check(task.cdb)
        self.check_admission(command)
        if command.medium:
            self.check_ready()
        ended = self._invoke(task, command)
        if ended or task not in self._in_flight:
            return ended
        # an exclusive command that works in the background (see `pending_io`) lets others be answered meanwhile
        if task.attribute == ORDERED or (command.barrier and self._in_flight[task] is not None):
            self._barrier = task
            self.refresh()
        return False

    def _start_host_task(self, task: HostTask) -> bool:
        if self._begin(task, self._for_host(task)):
            return True
        self._barrier = task
        self.refresh()
        return False

    def _for_host(self, task: HostTask) -> Steps:
        try:
            yield from task.steps()
        except StorageError as error:
            task.error = error
            self.store_failed(error)

    def run_alone(self, steps: Callable[[], Steps], ended: Callable[[StorageError | None], None]) -> None:
        """Have the unit do something of the host's in its turn; `ended` is called once, perhaps before this returns.

        A reset ends it, with ECANCELED.
        """

        def done(task: HostTask) -> None:
            if task.aborted:
                task.error = StorageError("a reset or an eject came in between; try again", errno.ECANCELED)
            ended(task.error)

        task = HostTask(steps, done)
        if self.admit(task):
            done(task)

    def _report_deferred(self, task: Task) -> bool:
        """SPC-4 "Deferred errors": a command that did not run says so, with response code 71h or 73h."""
        condition, self.deferred = self.deferred, None
        assert condition is not None
        self._refuse(task, condition)
        task.sense = bytes((task.sense[0] | 1,)) + task.sense[1:]
        self.refresh()
        return True

    def _invoke(self, task: Task, command: Command) -> bool:
        self.commands_run += 1
        result = command.handler(self, task)
        if result is None:
            return True
        if result is PENDING:
            return self.pending_io(task)
        if isinstance(result, (bytes, bytearray)):
            self.send(task, result, command.allocation_length(task.cdb))
            return True
        return self._begin(task, result)

    # -- data --------------------------------------------------------------------------------------------------------

    def send(self, task: Task, data: bytes | bytearray, allocation: int) -> None:
        """Data-in, cut at the allocation length and at what the initiator has room for."""
        wanted = min(len(data), allocation)
        buffer = task.data
        if task.direction == DATA_IN and buffer is not None:
            task.transferred = buffer.write(memoryview(data)[:wanted])
        task.overrun = wanted - task.transferred

    def parameters(self, task: Task, length: int) -> bytes:
        """A parameter list of `length` bytes (or fewer, when the initiator sent fewer)."""
        buffer = task.data
        if task.direction != DATA_OUT or buffer is None or length <= 0:
            return b""
        data = buffer.read(0, length)
        task.transferred = len(data)
        return data

    # -- steps -------------------------------------------------------------------------------------------------------

    def _begin(self, task: Task, steps: Steps) -> bool:
        if self._advance(task, steps, None):
            return True
        task.unit = self
        self._in_flight[task] = steps
        return False

    def _advance(self, task: Task, steps: Steps, error: StorageError | None) -> bool:
        """Run steps until one does not finish at once. True when the task has ended; its result is in it."""
        try:
            self.drive(steps, error, partial(self._continue, task, steps))
        except StopIteration:
            return True
        except CheckCondition as condition:
            self._refuse(task, condition)
            return True
        except StorageError as failure:
            self.storage_failed(task, failure)
            return True
        except Exception as defect:
            self.defect(task, defect)
            return True
        return False

    def drive(self, steps: Steps, error: StorageError | None, resume: Callable[[StorageError | None], None]) -> None:
        """Advance until an operation is pending (`resume` will be called) or StopIteration or an error comes out."""
        while True:
            operation = steps.send(None) if error is None else steps.throw(error)
            error = None
            if operation is None:
                self.clock.call_later(0, partial(resume, None))
                return
            name = _name(operation)
            try:
                if not operation(partial(_ended, resume, name)):
                    return
            except StorageError as failure:
                error = failure.during(name)

    def _continue(self, task: Task, steps: Steps, error: StorageError | None) -> None:
        if self._in_flight.get(task) is not steps:
            return  # aborted meanwhile: the task has ended, and its generator is closed
        if self._advance(task, steps, error):
            self.finish(task)

    def finish(self, task: Task) -> None:
        """An asynchronous task has ended: tell its owner, then let the next ones go."""
        del self._in_flight[task]
        task.unit = None
        if task is self._barrier:
            self._barrier = None
        if task.done is not None:
            task.done(task)
        if self._waiting:
            self._drain()
        elif self._special:
            self.refresh()

    def finish_io(self, task: Task, error: StorageError | CheckCondition | None) -> None:
        """The answer to a task that is pending. Nothing happens when it was aborted meanwhile."""
        if task not in self._in_flight:
            return
        if isinstance(error, CheckCondition):
            self._refuse(task, error)
        elif error is not None:
            self.storage_failed(task, error)
        self.finish(task)

    def pending_io(self, task: Task) -> bool:
        """A task now waits for `finish_io`. Returns False, as `execute` then does."""
        task.unit = self
        self._in_flight[task] = None
        return False

    def _drain(self) -> None:
        """Start waiting tasks in order, as far as barriers allow."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._waiting and self._barrier is None:
                task = self._waiting[0]
                if task.attribute == ORDERED and self._in_flight:
                    break
                if self._in_flight and self._needs_to_be_alone(task):
                    break
                self._waiting.popleft()
                task.unit = None
                if self.attempt(self._start, task) and task.done is not None:
                    task.done(task)
        finally:
            self._draining = False
        self.refresh()

    def _needs_to_be_alone(self, task: Task) -> bool:
        try:
            return self.commands.find(task.cdb).exclusive
        except CheckCondition:
            return False

    # -- endings -----------------------------------------------------------------------------------------------------

    def _refuse(self, task: Task, condition: CheckCondition) -> None:
        self.checks += 1
        task.status = CHECK_CONDITION
        make = descriptor_sense if self.descriptor_sense else fixed_sense
        task.sense = make(condition.condition, condition.information, condition.specific)

    def store_failed(self, error: StorageError) -> None:
        """The unit's store, or the file of its saved state, did not do something: the host is told the cause."""
        if not isinstance(error, SenseError):  # or the guest's protection information does not fit
            self.trouble.note(error)

    def storage_failed(self, task: Task, error: StorageError) -> None:
        self.store_failed(error)
        task.transferred = 0
        self._refuse(task, condition_for(error, was_writing(task, error), self.error_lba(task)))

    def defect(self, task: Task, error: Exception) -> None:
        """A defect of ours must not take the adapter down: the guest gets a hardware error, the log the traceback."""
        if isinstance(task, HostTask):
            log.error("what the host wanted of %s failed inside the target", self.address, exc_info=error)
            task.error = StorageError(f"internal error: {error!r}; the server's standard error has the traceback")
            return
        if not task.cdb:
            self._refuse(task, CheckCondition(INVALID_COMMAND_OPERATION_CODE))
            return
        log.error("command %s at %s failed inside the target", task.cdb.hex(), self.address, exc_info=error)
        task.transferred = 0
        self._refuse(task, CheckCondition(INTERNAL_TARGET_FAILURE))

    # -- the target's answers for others -----------------------------------------------------------------------------

    def execute_for_absent_lun(self, task: Task) -> bool:
        """SPC-4 "Incorrect logical unit selection": INQUIRY says 7Fh, REPORT LUNS answers, the rest is refused."""
        cdb = task.cdb
        opcode = cdb[0] if cdb else None
        try:
            if opcode == 0x12 and len(cdb) >= 6 and not cdb[1] & 1:
                data = bytearray(36)
                data[0] = 0x7F  # peripheral qualifier 011b: no device can be here
                data[2] = 0x06
                data[3] = 0x02
                data[4] = 31
                self.send(task, data, int.from_bytes(cdb[3:5], "big"))
                return True
            if opcode == 0xA0:
                command = self.commands.find(cdb)
                command.check(cdb)
                return self._invoke(task, command)
            if opcode == 0x03 and len(cdb) >= 6:
                make = descriptor_sense if cdb[1] & 1 else fixed_sense
                self.send(task, make(LOGICAL_UNIT_NOT_SUPPORTED), cdb[4])
                return True
            raise CheckCondition(LOGICAL_UNIT_NOT_SUPPORTED)
        except CheckCondition as condition:
            self._refuse(task, condition)
            return True

    def execute_for_well_known_lun(self, task: Task) -> bool:
        """The REPORT LUNS well known unit: INQUIRY (device type 1Eh), REPORT LUNS, REQUEST SENSE, TEST UNIT READY."""
        cdb = task.cdb
        try:
            opcode = cdb[0] if cdb else None
            if opcode not in (0x00, 0x03, 0x12, 0xA0):
                raise CheckCondition(INVALID_COMMAND_OPERATION_CODE)
            command = self.commands.find(cdb)
            command.check(cdb)
            if opcode == 0xA0:
                return self._invoke(task, command)
            if opcode == 0x12:
                self.send(task, self._well_known_inquiry(cdb), command.allocation_length(cdb))
            elif opcode == 0x03:
                make = descriptor_sense if cdb[1] & 1 else fixed_sense
                self.send(task, make(NO_SENSE), command.allocation_length(cdb))
        except CheckCondition as condition:
            self._refuse(task, condition)
        return True

    def _well_known_inquiry(self, cdb: bytes) -> bytes:
        """Standard data; of the vital product data those that every unit has: 00h and 83h, about the target only."""
        page = cdb[2]
        if not cdb[1] & 0x01:
            if page:
                raise invalid_cdb(2)
            return b"\x1e" + self.inquiry_data()[1:]
        if page == 0x00:
            body = b"\x00\x83"
        elif page == 0x83:
            body = self._target_designators()
        else:
            raise invalid_cdb(2)
        return bytes((0x1E, page)) + len(body).to_bytes(2, "big") + body

    def _target_designators(self) -> bytes:
        page, kept, at = self.vpd_pages()[0x83](), b"", 0
        while at < len(page):
            end = at + 4 + page[at + 3]
            if page[at + 1] & 0x30:  # ASSOCIATION: not the logical unit's
                kept += page[at:end]
            at = end
        return kept

    # -- task management ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """What is still being done for commands that end now must not reach the initiator's memory afterwards."""

    def abort(self, task: Task) -> bool:
        if task in self._in_flight:
            steps = self._in_flight.pop(task)
            if steps is not None:
                steps.close()
            self.settle()
            if task is self._barrier:
                self._barrier = None
        elif task in self._waiting:
            self._waiting.remove(task)
        else:
            return False
        self._end_aborted(task, RESPONSE_ABORTED)
        self._drain()
        return True

    def abort_all(self, response: int) -> None:
        tasks = [*self._in_flight, *self._waiting]
        started = bool(self._in_flight)
        generators = [steps for steps in self._in_flight.values() if steps is not None]
        self._in_flight.clear()
        self._waiting.clear()
        self._barrier = None
        for steps in generators:
            steps.close()
        if started:
            self.settle()
        for task in tasks:
            self._end_aborted(task, response)
        self.refresh()

    def abort_initiator(self, initiator: int) -> None:
        """Abort the tasks of one initiator (PREEMPT AND ABORT)."""
        for task in [*self._in_flight, *self._waiting]:
            if task.initiator == initiator:
                self.abort(task)

    def _end_aborted(self, task: Task, response: int) -> None:
        task.unit = None
        task.aborted = True
        task.response = response
        task.transferred = 0
        if task.done is not None:
            task.done(task)

    def reset(self, kind: str) -> None:
        self.abort_all(RESPONSE_RESET)
        self.deferred = None
        self.echo = b""
        if kind != "lun":
            self.timestamp = (0, 0)
        self.reservations.reset(power_loss=kind == "power-on")
        self.attentions.reset(kind)
        self.on_reset(kind)
        self.refresh()

    def attention(self, condition: int, but: int | None = None) -> None:
        """Establish a unit attention for every initiator except `but`."""
        self.attentions.establish_all(condition, but)
        self.refresh()

    def luns_changed(self) -> None:
        self.attention(REPORTED_LUNS_DATA_HAS_CHANGED)

    def luns_reported(self, initiator: int) -> None:
        self.attentions.clear(REPORTED_LUNS_DATA_HAS_CHANGED, initiator)
        self.refresh()

    def refresh(self) -> None:
        """Something has changed that may forbid a plain read or write: fold all of it into one attribute."""
        self._special = (
            self._barrier is not None
            or bool(self._waiting)
            or self.attentions.any()
            or self.deferred is not None
            or self.reservations.active
            or self.is_special()
        )

    # -- migration -------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return not self._in_flight and not self._waiting

    @property
    def _now(self) -> int:
        """ms since the unit's start, in which its timestamp counts."""
        return (self.clock.now() - self.started_at) // MS

    def saved(self) -> dict[str, Any]:
        origin, offset = self.timestamp
        deferred = self.deferred
        return {
            "target": self.address[0],
            "lun": self.address[1],
            "identity": self.identity.words(),
            "attentions": self.attentions.save(),
            "mode_pages": self.mode.export(),
            "reservations": self.reservations.export(),
            "deferred": None
            if deferred is None
            else Deferred(deferred.condition, deferred.information, deferred.specific),
            "echo": self.echo,
            "buffer": bytes(self.buffer),
            "self_tests": list(self.self_tests),
            "timestamp": (origin, self._now + offset),
        }

    def check_saved(self, state: UnitState) -> None:
        super().check_saved(state)
        assert isinstance(state, ServerState)
        where = f"unit {unit_name(*self.address)}"
        if state.identity != self.identity.words():
            raise ValueError(
                f"{where} is {' '.join(state.identity)} in the state and {' '.join(self.identity.words())} here: "
                "another one; give both the same vendor, product, revision, serial and naa"
            )
        try:
            self.mode.check_exported(state.mode_pages)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def restore(self, state: UnitState) -> None:
        assert isinstance(state, ServerState)
        self.attentions.restore(state.attentions)
        self.mode.take_over(state.mode_pages)
        self.reservations.take_over(state.reservations)
        deferred = state.deferred
        self.deferred = (
            None if deferred is None else CheckCondition(deferred.condition, deferred.information, deferred.specific)
        )
        self.echo, self.buffer, self.self_tests = state.echo, bytearray(state.buffer), list(state.self_tests)
        origin, now = state.timestamp
        self.timestamp = (origin, now - self._now)
        self.mode_changed()
        self.refresh()

    def describe(self) -> dict[str, object]:
        identity = self.identity
        return {
            "target": self.address[0],
            "lun": self.address[1],
            "vendor": identity.vendor,
            "product": identity.product,
            "revision": identity.revision,
            "serial": identity.serial,
            "commands": self.commands_run,
            "check_conditions": self.checks,
            **self.trouble.describe(),
            "in_flight": len(self._in_flight),
            "waiting": len(self._waiting),
            "unit_attentions": self.attentions.describe(),
            "reservations": self.reservations.describe(),
        }

    def close(self) -> None:
        self.abort_all(RESPONSE_ABORTED)
        self.state.close()
