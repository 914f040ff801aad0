"""A back end's error, as the sense data a real device would give for it."""

from __future__ import annotations

import errno

from hba.errors import StorageError
from hba.scsi.sense import (
    INTERNAL_TARGET_FAILURE,
    INVALID_COMMAND_OPERATION_CODE,
    NOT_READY_CAUSE_NOT_REPORTABLE,
    NOT_READY_COMMUNICATION_FAILURE,
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    WRITE_PROTECTED,
    CheckCondition,
)
from hba.scsi.task import DATA_IN, Task

_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_PROTECTED = frozenset((errno.EROFS, errno.EPERM, errno.EACCES, errno.EBADF))
_GONE = frozenset((errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ENOMEDIUM, errno.ESTALE))
_UNREACHABLE = frozenset(
    (
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENOLINK,
    )
)


_REFUSED = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))
_OPTIONAL = frozenset(("zero", "discard"))  # operations that a store need not have


# What the direction of the data does not tell (SBC-4).
_READING = frozenset((0x2F, 0x8F, 0xAF, 0x34, 0x90))  # VERIFY, PRE-FETCH
_FLUSHING = frozenset((0x35, 0x91, 0x1B))  # SYNCHRONIZE CACHE, START STOP UNIT


def was_writing(task: Task, error: StorageError) -> bool:
    """Whether the medium was being written when `task` failed: by the operation that did, where the error has it (a
    command may both read and write); else, of a command that is a single operation, by the command."""
    if error.operation:
        return error.operation != "read"
    opcode = task.cdb[0] if task.cdb else 0
    return opcode in _FLUSHING or (task.direction != DATA_IN and opcode not in _READING)


class SenseError(StorageError):
    """An error from below that knows its sense data itself."""

    def __init__(self, condition: CheckCondition) -> None:
        super().__init__(str(condition))
        self.condition = condition


def condition_for(error: StorageError, writing: bool, lba: int | None = None) -> CheckCondition:
    """The condition for an error number; `lba` is where it happened, if that is known.

    No space      DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (SBC-4 "Thin provisioned logical units")
    read-only     DATA PROTECT, WRITE PROTECTED
    gone          NOT READY, cause not reportable
    unreachable   NOT READY, LOGICAL UNIT COMMUNICATION FAILURE
    no memory     HARDWARE ERROR, INTERNAL TARGET FAILURE
    cannot        ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE for zeroing and giving up space, which need not be
                  there; else, and when it calls the request wrong, HARDWARE ERROR, INTERNAL TARGET FAILURE: the guest
                  asked for nothing that the unit has not announced, and the medium is not at fault
    all else      MEDIUM ERROR, UNRECOVERED READ ERROR or WRITE ERROR
    """
    if isinstance(error, SenseError):
        return error.condition
    code = error.errno
    if code in _SPACE:
        return CheckCondition(SPACE_ALLOCATION_FAILED_WRITE_PROTECT, lba)
    if code in _PROTECTED and writing:
        return CheckCondition(WRITE_PROTECTED, lba)
    if code in _GONE:
        return CheckCondition(NOT_READY_CAUSE_NOT_REPORTABLE)
    if code in _UNREACHABLE:
        return CheckCondition(NOT_READY_COMMUNICATION_FAILURE)
    if code in _REFUSED and error.operation in _OPTIONAL:
        return CheckCondition(INVALID_COMMAND_OPERATION_CODE)
    if code in _REFUSED or code in (errno.EINVAL, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return CheckCondition(INTERNAL_TARGET_FAILURE)
    return CheckCondition(WRITE_ERROR if writing else UNRECOVERED_READ_ERROR, lba)
