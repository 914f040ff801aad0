"""Every error a user can see, with the exit code that goes with it.

An `HbaError` carries one message that names the cause and the next step. The command line prints it without
a traceback and exits with `exit_code`; `EXITS` says what the codes mean.
"""

from __future__ import annotations

from copy import copy
from typing import Final, NamedTuple

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2  # click's own code
EXIT_CONFIG: Final = 3
EXIT_SOCKET: Final = 4
EXIT_STORAGE: Final = 5
EXIT_PERMISSION: Final = 6
EXIT_NO_QEMU: Final = 7
EXIT_GUEST: Final = 8
EXIT_CONTROL: Final = 9
EXIT_SERVER: Final = 10
EXIT_SETUP: Final = 11
EXIT_ENGINE: Final = 12
EXIT_INTERNAL: Final = 70
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE: Final = 141


class Exit(NamedTuple):
    """One exit code: `kind` is its name in JSON, `meaning` is for people."""

    code: int
    kind: str
    meaning: str


# The one list of exit codes. The help of the commands is made from it; README.md and docs/cli.md are compared with it.
EXITS = (
    Exit(EXIT_OK, "good", "good"),
    Exit(EXIT_FAILED, "verdict", "it ran, and the verdict is red"),
    Exit(EXIT_USAGE, "usage", "wrong usage"),
    Exit(EXIT_CONFIG, "configuration", "the configuration is wrong"),
    Exit(EXIT_SOCKET, "socket", "a socket: taken, too long, no folder, nobody behind it"),
    Exit(EXIT_STORAGE, "storage", "storage, or a disk of the host is full"),
    Exit(EXIT_PERMISSION, "permission", "permission"),
    Exit(EXIT_NO_QEMU, "qemu", "no QEMU with vfio-user"),
    Exit(EXIT_GUEST, "guest", "the guest did not boot, answer or survive"),
    Exit(EXIT_CONTROL, "control", "no running adapter answers, or it refused"),
    Exit(EXIT_SERVER, "server", "the HBA server of an experiment or a benchmark died"),
    Exit(EXIT_SETUP, "setup", "what an experiment needs is missing here and cannot be made"),
    Exit(EXIT_ENGINE, "engine", "libvfio-user is not there, or cannot be used"),
    Exit(EXIT_INTERNAL, "internal", "a defect of hba"),
    Exit(EXIT_INTERRUPTED, "interrupted", "interrupted (128 + signal: ended by that signal)"),
    Exit(EXIT_PIPE, "pipe", "whoever read our output went away before its end, as by SIGPIPE"),
)


def exit_kind(code: int) -> str:
    """The name of an exit code in JSON; `signal` for one that is not in the table."""
    return next((known.kind for known in EXITS if known.code == code), "signal")


class HbaError(Exception):
    """Base of all errors meant for the user: `str(error)` is the whole message.

    One without a class of its own says that something needed is missing. No error is a red verdict.
    """

    exit_code = EXIT_SETUP


class WrongUsage(HbaError):
    """The command line asks for what there is not; names the option as it is written."""

    exit_code = EXIT_USAGE


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


class EngineMissing(HbaError):
    """The library behind an engine is not to be had, or is none that can be used."""

    exit_code = EXIT_ENGINE


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
