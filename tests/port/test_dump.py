"""Dump mode (hba.port.dump): where its limits are; what it is like is in tests/classdriver/test_dump.py."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.chip import Chip
from hba.miniport.config import (
    DUMP_MODE_CRASH,
    DUMP_MODE_HIBER,
    DUMP_MODE_MARK_MEMORY,
    PortConfigurationInformation,
)
from hba.port.dump import MEMORY_LIMIT, Dump
from hba.port.memory import PortMemory
from hba.scsi.task import Task
from tests.miniport.rig import AnsweringBus, Memory


class Heard:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def offence(self, rule: str, message: str) -> None:
        self.said.append((rule, message))

    def finding(self, rule: str, message: str) -> None:
        self.said.append((rule, message))


@pytest.mark.parametrize(
    ("requested", "limit"),
    [(0, MEMORY_LIMIT), (MEMORY_LIMIT - 1, MEMORY_LIMIT), (MEMORY_LIMIT + 1, MEMORY_LIMIT + 1)],
)
def test_DM_02_what_goes_beyond_the_limit_is_told_once(requested: int, limit: int) -> None:
    heard = Heard()
    dump = Dump(DUMP_MODE_CRASH, requested)
    dump.allocated(heard, "A", 1)
    dump.allocated(heard, "B", limit - 1)
    assert heard.said == []
    dump.allocated(heard, "C", 1)
    assert heard.said == [("DM-02", f"C of 1 bytes makes {limit + 1} in dump mode; {limit} at most")]
    dump.allocated(heard, "D", 1)
    assert len(heard.said) == 1 and dump.used == limit + 2


def test_DM_03_what_is_not_for_dump_mode() -> None:
    heard = Heard()
    Dump(DUMP_MODE_CRASH).asked(heard, "StorPortQueueWorkItem")
    assert heard.said == [("DM-03", "StorPortQueueWorkItem in dump mode")]


@pytest.mark.parametrize(
    ("mode", "marks", "used", "marked", "found"),
    [
        (DUMP_MODE_HIBER, True, 64, [], True),
        (DUMP_MODE_MARK_MEMORY, True, 64, [], True),
        (DUMP_MODE_CRASH, True, 64, [], False),
        (DUMP_MODE_HIBER, False, 64, [], False),
        (DUMP_MODE_HIBER, True, 0, [], False),
        (DUMP_MODE_HIBER, True, 64, [(0, 64)], False),
    ],
)
def test_DM_04_memory_has_to_be_marked(mode: int, marks: bool, used: int, marked: list[Any], found: bool) -> None:
    heard = Heard()
    dump = Dump(mode)
    assert dump.marks
    dump.marks = marks
    if used:
        dump.allocated(heard, "A", used)
    memory = PortMemory(Chip(AnsweringBus(), Memory()))
    memory.marked = marked
    dump.found(heard, memory)
    message = "hw_find_adapter has 64 bytes, and marked none with StorPortMarkDumpMemory"
    assert heard.said == ([("DM-04", message)] if found else [])


def test_DM_05_what_is_left_of_the_crashed_system() -> None:
    heard = Heard()
    dump = Dump(DUMP_MODE_CRASH)
    theirs, mine = Task(b""), Task(b"")
    mine.owner = "a request"
    chip = Chip(AnsweringBus(), Memory())
    chip.active[mine] = None
    chip.completed.append(mine)
    dump.initialized(heard, chip)
    assert heard.said == []
    chip.active[theirs] = None
    chip.completed.append(theirs)
    dump.initialized(heard, chip)
    assert heard.said == [("DM-05", "hw_initialize left 2 commands of the crashed system with the adapter")]


def test_DM_01_the_mode_is_in_the_configuration() -> None:
    info = PortConfigurationInformation()
    Dump(DUMP_MODE_HIBER).preset(info)
    assert info.dump_mode == DUMP_MODE_HIBER
