"""GD-11 to GD-13: what is said of how a driver reaches for registers, once of each way."""

from __future__ import annotations

import pytest

from hba.adapters.registry import ADAPTERS
from hba.clock import VirtualClock
from hba.instruments.verifier.registers import MOST_TOLD, MSIX, RegisterVerifier
from hba.pci.registers import RO, WO, Register
from hba.verifier import Verifier
from tests.adapters.pvscsi.driver import Driver


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(VirtualClock(), rules=ADAPTERS.rules)


def told(verifier: Verifier) -> list[tuple[str, str, object]]:
    assert {finding.where for finding in verifier.findings} <= {"BAR 3"}
    return [(finding.rule, finding.message, finding.details["value"]) for finding in verifier.findings]


def test_what_is_said_and_how_often(verifier: Verifier) -> None:
    """The size of an access where there is nothing does not make it another one, nor does the value anywhere."""
    watcher = RegisterVerifier(verifier, "BAR 3")
    status, doorbell = Register("STATUS", 0x10, access=RO), Register("DOORBELL", 0x14, access=WO)
    for value in (7, 8):
        watcher.undefined("read", 0x20, 4, value)
        watcher.undefined("read", 0x20, 2, value)
        watcher.undefined("write", 0x20, 4, value)
        watcher.undefined("read", 0x24, 4, value)
        watcher.wrong_width("read", status, 0x10, 2, value)
        watcher.wrong_width("read", status, 0x12, 2, value)
        watcher.wrong_width("read", status, 0x13, 1, value)
        watcher.wrong_width("write", doorbell, 0x14, 2, value)
        watcher.wrong_direction("write", status, 0x10, 4, value)
        watcher.wrong_direction("read", doorbell, 0x14, 4, value)
    assert told(verifier) == [
        ("GD-11", "read of 4 bytes at 0x20", 7),
        ("GD-11", "write of 4 bytes at 0x20", 7),
        ("GD-11", "read of 4 bytes at 0x24", 7),
        ("GD-12", "read of 2 bytes at 0x10 (STATUS)", 7),
        ("GD-12", "read of 1 bytes at 0x13 (STATUS)", 7),
        ("GD-12", "write of 2 bytes at 0x14 (DOORBELL)", 7),
        ("GD-13", "write of STATUS, which is ro", 7),
        ("GD-13", "read of DOORBELL, which is wo", 7),
    ]


def test_a_guest_that_makes_up_more_and_more_is_told_of_so_often_and_no_more(verifier: Verifier) -> None:
    watcher = RegisterVerifier(verifier, "BAR 3")
    for offset in range(MOST_TOLD + 10):
        watcher.undefined("read", 4 * offset, 4, 0)
    assert verifier.counts["GD-11"] == MOST_TOLD


def test_tables_of_MSI_X_are_not_the_drivers() -> None:
    """Where the client keeps the guest's, nobody knows what it does there; everything beside them is watched."""
    watched = Driver(verify=True, msix_vectors=2)
    function = watched.adapter.function
    tables = [
        (number, offset) for number, bar in function.bars.items() for offset, block in bar.blocks if block.name in MSIX
    ]
    assert len(tables) == 2
    for number, offset in tables:
        function.region_read(number, offset, 1)
    assert watched.found() == {}
    watched.read(0x1, 1)
    watched.read(0x8, 1)
    watched.read(0x7FFC)
    assert watched.found() == {"GD-11": 1, "GD-12": 1, "GD-13": 1}
    watched.close()
