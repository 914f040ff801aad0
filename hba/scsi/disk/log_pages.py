"""A disk's log pages (SPC-4, SBC-4): counters of what it really did, and what a solid state store can say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.clock import S
from hba.scsi.spc.log import BINARY_LIST, COUNTER, LogPages, Parameter

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk

WRITE_ERRORS = 0x02
READ_ERRORS = 0x03
VERIFY_ERRORS = 0x05
NON_MEDIUM_ERRORS = 0x06
TEMPERATURE = 0x0D
START_STOP = 0x0E
SELF_TEST = 0x10
SOLID_STATE = 0x11
BACKGROUND_SCAN = 0x15
INFORMATIONAL_EXCEPTIONS = 0x2F

ROOM_TEMPERATURE = 25  # degrees Celsius: there is nothing that gets warm
REFERENCE_TEMPERATURE = 60
START_STOP_LIMIT = 50_000
SELF_TESTS = 20
_MINUTE = 60 * S


def disk_logs(unit: Disk) -> LogPages:
    pages = {
        (WRITE_ERRORS, 0): lambda: _error_counters(unit.written_blocks * unit.block_size, unit.write_errors),
        (READ_ERRORS, 0): lambda: _error_counters(unit.read_blocks * unit.block_size, unit.read_errors),
        (VERIFY_ERRORS, 0): lambda: _error_counters(unit.verified_blocks * unit.block_size, 0),
        (NON_MEDIUM_ERRORS, 0): lambda: [(0, COUNTER, _number(0, 4))],
        (TEMPERATURE, 0): _temperature,
        (START_STOP, 0): lambda: _start_stop(unit),
        (SELF_TEST, 0): lambda: _self_tests(unit),
        (BACKGROUND_SCAN, 0): lambda: _background_scan(unit),
        (INFORMATIONAL_EXCEPTIONS, 0): lambda: _informational_exceptions(unit),
    }
    if unit.options.rotation_rate == 1:
        pages[(SOLID_STATE, 0)] = lambda: [(1, BINARY_LIST, bytes(4))]  # 0 % of the endurance used
    return LogPages(pages)


def _number(value: int, length: int) -> bytes:
    return min(value, (1 << 8 * length) - 1).to_bytes(length, "big")


def _error_counters(transferred: int, uncorrected: int) -> list[Parameter]:
    """Corrected without and with delay, rewrites, corrected, correction runs, bytes processed, uncorrected."""
    return [(code, COUNTER, _number(0, 8)) for code in range(5)] + [
        (5, COUNTER, _number(transferred, 8)),
        (6, COUNTER, _number(uncorrected, 8)),
    ]


def _temperature() -> list[Parameter]:
    return [(0, BINARY_LIST, bytes((0, ROOM_TEMPERATURE))), (1, BINARY_LIST, bytes((0, REFERENCE_TEMPERATURE)))]


def _start_stop(unit: Disk) -> list[Parameter]:
    return [
        (1, 0x01, b"202601"),  # manufactured: year and week, ASCII
        (2, 0x01, b"      "),  # accounting date: not set
        (3, BINARY_LIST, _number(START_STOP_LIMIT, 4)),
        (4, BINARY_LIST, _number(unit.starts, 4)),
        (5, BINARY_LIST, _number(START_STOP_LIMIT, 4)),
        (6, BINARY_LIST, _number(unit.loads, 4)),
    ]


def _self_tests(unit: Disk) -> list[Parameter]:
    results = [*unit.self_tests, *[bytes(16)] * SELF_TESTS][:SELF_TESTS]
    return [(index + 1, BINARY_LIST, value) for index, value in enumerate(results)]


def _background_scan(unit: Disk) -> list[Parameter]:
    minutes = (unit.clock.now() - unit.started_at) // _MINUTE
    # no scan is active, none has been performed
    return [(0, BINARY_LIST, _number(minutes, 4) + bytes(8))]


def _informational_exceptions(unit: Disk) -> list[Parameter]:
    condition = unit.pollable_sense()
    return [(0, BINARY_LIST, bytes((condition >> 8 & 0xFF, condition & 0xFF, ROOM_TEMPERATURE, 0)))]
