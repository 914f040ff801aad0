"""Every error a user can see, with the exit code that goes with it.

An `HbaError` carries one message that names the cause and the next step. The command line prints it without
a traceback and exits with `exit_code`; the codes are documented in README.md ("Exit codes").
"""

from __future__ import annotations

from copy import copy

EXIT_OK = 0
EXIT_FAILED = 1  # it ran, and the verdict is red
EXIT_USAGE = 2  # wrong command line (click's own code)
EXIT_CONFIG = 3
EXIT_SOCKET = 4
EXIT_STORAGE = 5
EXIT_PERMISSION = 6
EXIT_NO_QEMU = 7
EXIT_GUEST = 8
EXIT_CONTROL = 9
EXIT_SERVER = 10  # the HBA server of an experiment died
EXIT_INTERNAL = 70  # a defect of ours, reported as such


class HbaError(Exception):
    """Base of all errors meant for the user: `str(error)` is the whole message."""

    exit_code = EXIT_FAILED


class ConfigError(HbaError):
    """The configuration is wrong; names file, key and what was expected."""

    exit_code = EXIT_CONFIG


class SocketError(HbaError):
    """A UNIX socket cannot be created, bound or reached."""

    exit_code = EXIT_SOCKET


class StorageError(HbaError):
    """A backing store cannot be opened or no longer does what it should.

    `errno` is the operating system's code where there is one, `operation` what failed ("read", "write", "flush", ...)
    where that is known; the SCSI layer turns both into sense data.
    """

    exit_code = EXIT_STORAGE
    operation = ""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno

    def during(self, operation: str) -> StorageError:
        """This error as one of `operation`; one that knows what failed further down keeps that."""
        if self.operation:
            return self
        error = copy(self)
        error.operation = operation
        error.__cause__ = self.__cause__
        return error


class PermissionDenied(HbaError):
    """The user may not do this; names what is missing."""

    exit_code = EXIT_PERMISSION


class QemuNotFound(HbaError):
    """No QEMU with vfio-user is to be had."""

    exit_code = EXIT_NO_QEMU


class GuestError(HbaError):
    """The guest did not boot, did not answer, or died."""

    exit_code = EXIT_GUEST


class ControlError(HbaError):
    """No running adapter answers, or it refused the call."""

    exit_code = EXIT_CONTROL


class DmaFault(Exception):
    """The device was told to reach guest memory it cannot reach.

    Never fatal: the adapter turns it into the error its interface has for it, and counts it.
    """

    def __init__(self, iova: int, length: int, why: str) -> None:
        super().__init__(f"DMA to 0x{iova:x}+0x{length:x}: {why}")
        self.iova = iova
        self.length = length
        self.why = why
