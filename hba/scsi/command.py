"""How a command is declared: once, and dispatch, CDB checks, truncation, reservations and the answer of REPORT
SUPPORTED OPERATION CODES all follow from it.

    commands = CommandTable()

    @commands.add("25 00 00000000 0000 00 00", "READ CAPACITY(10)", medium=True)
    def read_capacity10(unit: Disk, task: Task) -> bytes: ...

The usage map is the CDB in hex: the operation code (and the service action) as they are, then a 1 for every bit the
device server evaluates (SPC-5 "CDB usage data"). A bit outside the map that is set in a CDB is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from hba.scsi.sense import INVALID_COMMAND_OPERATION_CODE, CheckCondition, invalid_cdb

# What a reservation of somebody else does to the command (SPC-4 "Reservations", tables of the command standards)
ALLOWED = 0  # always allowed
READS = 1  # allowed under Write Exclusive, a conflict under Exclusive Access
CONFLICTS = 2  # a conflict under both

Handler = Callable[[Any, Any], Any]
H = TypeVar("H", bound=Handler)

VARIABLE_LENGTH = 0x7F


def field(cdb: bytes, byte: int, mask: int) -> int:
    """A field within one byte: the bits of `mask`, as a number."""
    return (cdb[byte] & mask) >> (mask & -mask).bit_length() - 1


class Command:
    """One command of a device type."""

    __slots__ = (
        "access",
        "allocation",
        "attention",
        "barrier",
        "exclusive",
        "handler",
        "length",
        "medium",
        "name",
        "nominal",
        "opcode",
        "recommended",
        "service_action",
        "unused",
        "usage",
        "values",
    )

    def __init__(
        self,
        usage: str,
        name: str,
        handler: Handler,
        *,
        service: bool = False,
        allocation: tuple[int, int] | None = None,
        medium: bool = False,
        attention: bool = True,
        access: int | Callable[[bytes], int] = ALLOWED,
        exclusive: bool = False,
        barrier: bool = False,
        timeout: tuple[int, int] = (1, 30),
        values: Mapping[tuple[int, int], Iterable[int]] | None = None,
    ) -> None:
        """
        service     the operation code has service actions; this one is in the usage map
        allocation  (byte, size) of the ALLOCATION LENGTH field; data-in is cut there
        medium      needs a medium that is present and ready
        attention   ends with a pending unit attention instead of running
        access      ALLOWED, READS or CONFLICTS, or a function of the CDB that says which
        exclusive   runs alone, as an ordered task does (it reads, then writes)
        barrier     others wait while it is not finished
        timeout     nominal and recommended seconds for the command timeouts descriptor
        values      what a field may say: (byte, mask) -> its values; every other is refused
        """
        self.usage = bytes.fromhex(usage)
        self.opcode = self.usage[0]
        self.length = len(self.usage)
        self.name = name
        self.handler = handler
        self.service_action: int | None = None
        if service:
            if self.opcode == VARIABLE_LENGTH:
                self.service_action = int.from_bytes(self.usage[8:10], "big")
            else:
                self.service_action = self.usage[1] & 0x1F
        fixed = bytearray(self.usage)
        fixed[0] = 0xFF
        if service:
            if self.opcode == VARIABLE_LENGTH:
                fixed[7:10] = b"\xff\xff\xff"
            else:
                fixed[1] |= 0x1F
        self.unused = ~int.from_bytes(fixed, "big") & ((1 << 8 * self.length) - 1)
        self.allocation = allocation
        self.medium = medium
        self.attention = attention
        self.access = access
        self.exclusive = exclusive
        self.barrier = barrier or exclusive
        self.nominal, self.recommended = timeout
        self.values = tuple((byte, mask, frozenset(allowed)) for (byte, mask), allowed in (values or {}).items())

    def check(self, cdb: bytes) -> None:
        """Refuse a CDB that is cut short, sets a bit nobody evaluates (NACA included: there is no ACA here) or has a
        value that means nothing in a field; the field pointer says where."""
        length = self.length
        if len(cdb) < length:
            raise invalid_cdb(len(cdb))
        wrong = int.from_bytes(cdb[:length], "big") & self.unused
        if wrong:
            top = wrong.bit_length() - 1
            raise invalid_cdb(length - 1 - top // 8, top % 8)
        for byte, mask, allowed in self.values:
            if field(cdb, byte, mask) not in allowed:
                raise invalid_cdb(byte, mask.bit_length() - 1)

    def reservation_access(self, cdb: bytes) -> int:
        access = self.access
        return access if isinstance(access, int) else access(cdb)

    def allocation_length(self, cdb: bytes) -> int:
        if self.allocation is None:
            return 0xFFFFFFFF
        start, size = self.allocation
        return int.from_bytes(cdb[start : start + size], "big")


class CommandTable:
    """Commands by operation code and service action."""

    def __init__(self, *parts: CommandTable) -> None:
        """A table with all of `parts`; a later one replaces what an earlier one declared."""
        self._commands: dict[int, Command | dict[int, Command]] = {}
        for part in parts:
            for command in part:
                self._insert(command)

    def _insert(self, command: Command) -> None:
        if command.service_action is None:
            self._commands[command.opcode] = command
            return
        actions = self._commands.setdefault(command.opcode, {})
        if not isinstance(actions, dict):
            raise ValueError(f"operation code 0x{command.opcode:02x} is declared with and without service actions")
        actions[command.service_action] = command

    def add(self, usage: str, name: str, **options: Any) -> Callable[[H], H]:
        """Declare the decorated function `handler(unit, task)` as a command; see `Command` for the options.

        The handler returns None (GOOD), bytes (data-in), or a generator of back-end operations (see
        `hba.scsi.server`), or raises `CheckCondition`.
        """

        def declare(handler: H) -> H:
            self._insert(Command(usage, name, handler, **options))
            return handler

        return declare

    def only(self, *opcodes: int) -> CommandTable:
        """The part of the table with these operation codes."""
        part = CommandTable()
        for opcode in opcodes:
            part._commands[opcode] = self._commands[opcode]
        return part

    def __iter__(self) -> Iterator[Command]:
        """All commands, by operation code and service action."""
        for opcode in sorted(self._commands):
            entry = self._commands[opcode]
            if isinstance(entry, Command):
                yield entry
            else:
                for action in sorted(entry):
                    yield entry[action]

    def entry(self, opcode: int) -> Command | dict[int, Command] | None:
        return self._commands.get(opcode)

    def find(self, cdb: bytes) -> Command:
        """The command a CDB asks for. Raises `CheckCondition` when there is none."""
        entry = self._commands.get(cdb[0]) if cdb else None
        if entry is None:
            raise CheckCondition(INVALID_COMMAND_OPERATION_CODE)
        if isinstance(entry, Command):
            return entry
        if cdb[0] == VARIABLE_LENGTH:
            action = int.from_bytes(cdb[8:10], "big")
            byte = 8
        else:
            action = cdb[1] & 0x1F if len(cdb) > 1 else 0
            byte = 1
        command = entry.get(action)
        if command is None:
            raise invalid_cdb(byte, 4 if byte == 1 else None)
        return command
