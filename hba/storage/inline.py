"""When a buffered write may run in the event loop, on file systems that cannot promise not to wait.

ext4 has no RWF_NOWAIT for buffered writes, so every one would need a worker: a thread's wake-up there and one back,
several times the cost of the copy into the page cache that such a write mostly is. What it can wait for instead, and
what keeps that out of the loop (a register access must be answered within seconds, and mostly at once):

- for a page to be read first: only writes of whole pages run here;
- for the file's lock: the caller runs none while a worker punches holes, writes much, or writes parts of pages;
- for a throttled writer's turn, once too much memory of this machine is dirty: the kernel does not throttle anybody
  below the middle between its two thresholds (mm/page-writeback.c, dirty_freerun_ceiling), so the distance to that is
  looked at before each `CREDIT` bytes, at least every `VALID`, and half of it is left alone;
- for anything else (a full journal, stable pages, a memory cgroup's own limit): one write that took longer than
  `SLOW` sends all to the workers for `REST`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hba.clock import MS, S

PAGE = os.sysconf("SC_PAGESIZE")
LARGEST = 32 << 10  # bytes; what is longer is copied by a worker while the loop goes on
CREDIT = 16 << 20  # bytes between two looks at the kernel's counters
VALID = 200 * MS
SLOW = 20 * MS  # longer than losing the processor to another process for a turn, shorter than a throttled pause
REST = 1 * S

_VMSTAT = Path("/proc/vmstat")
_FIELDS = ("nr_dirty", "nr_writeback", "nr_dirty_threshold", "nr_dirty_background_threshold")


def dirty_room(vmstat: Path = _VMSTAT) -> int:
    """Bytes that may still become dirty on this machine before the kernel begins to throttle writers.

    0 or less: it may throttle now; also where the counters cannot be read.
    Source: Documentation/admin-guide/sysctl/vm.rst (dirty_ratio); the counters are pages.
    """
    found: dict[str, int] = {}
    try:
        for line in vmstat.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in _FIELDS:
                found[name] = int(value)
    except (OSError, ValueError):
        return 0
    if len(found) != len(_FIELDS):
        return 0
    dirty, writeback, threshold, background = (found[name] for name in _FIELDS)
    return ((threshold + background) // 2 - dirty - writeback) * PAGE


class InlineWrites:
    """Asked before each write of one store; told afterwards how long it took. Times are ns of any monotonic clock."""

    __slots__ = ("_credit", "_resting_until", "_room", "_valid_until", "slow")

    def __init__(self, room: Callable[[], int] = dirty_room) -> None:
        self._room = room
        self._credit = 0  # bytes that may be written before the next look
        self._valid_until = 0
        self._resting_until = 0
        self.slow = 0  # writes that took longer than `SLOW`

    def permits(self, offset: int, length: int, now: int) -> bool:
        """May `length` bytes be written at `offset` in the loop?"""
        if length > LARGEST or (offset | length) % PAGE:
            return False
        if length > self._credit or now >= self._valid_until:
            return self._look(length, now)
        self._credit -= length
        return True

    def _look(self, length: int, now: int) -> bool:
        if now < self._resting_until:
            return False
        credit = min(CREDIT, self._room() // 2)
        if credit < length:
            self._resting_until = now + VALID
            return False
        self._credit = credit - length
        self._valid_until = now + VALID
        return True

    def took(self, begin: int, end: int) -> None:
        """The write that was permitted at `begin` returned at `end`."""
        if end - begin > SLOW:
            self.slow += 1
            self._credit = 0
            self._resting_until = end + REST
