"""PERSISTENT RESERVE: register, reserve, preempt, release, clear, as one initiator can do it."""

from __future__ import annotations

import re

import pytest
import sg

KEY, OTHER = 0xABBA, 0xCAFE
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WE_REGISTRANTS_ONLY = 1, 3, 5


class Reservations:
    """The persistent reservations of one disk."""

    def __init__(self, node: str) -> None:
        self._node = node

    def out(self, action: str, *arguments: str, key: int = 0, new: int = 0, code: int = sg.GOOD) -> None:
        keys = [f"--param-rk={key:x}", f"--param-sark={new:x}"]
        sg.run("sg_persist", "--out", f"--{action}", *keys, *arguments, self._node, code=code)

    def keys(self) -> list[int]:
        said = sg.run("sg_persist", "--in", "--read-keys", self._node)
        return [int(key, 16) for key in re.findall(r"^\s+0x([0-9a-f]+)$", said, re.MULTILINE)]

    def holder(self) -> tuple[int, str] | None:
        """Key and type of the reservation."""
        said = sg.run("sg_persist", "--in", "--read-reservation", self._node)
        if "there is NO reservation held" in said:
            return None
        return int(re.search(r"Key=0x([0-9a-f]+)", said)[1], 16), re.search(r"scope: LU_SCOPE, +type: (.+)", said)[
            1
        ].strip()

    def generation(self) -> int:
        return int(re.search(r"PR generation=0x([0-9a-f]+)", sg.run("sg_persist", "--read-keys", self._node))[1], 16)


@pytest.fixture
def reservations(disk):
    found = Reservations(disk.generic)
    assert found.keys() == [] and found.holder() is None
    yield found
    if found.keys():
        found.out("register-ignore", new=KEY)
        found.out("clear", key=KEY)


def test_capabilities(disk):
    said = sg.run("sg_persist", "--in", "--report-capabilities", disk.generic)
    for kind in ("Write Exclusive", "Exclusive Access"):
        for who in ("", ", registrants only", ", all registrants"):
            assert f"{kind}{who}: 1" in said, said


def test_the_whole_round(disk, reservations):
    generation = reservations.generation()
    reservations.out("register", new=KEY)
    assert reservations.keys() == [KEY]
    assert reservations.generation() == generation + 1

    reservations.out("reserve", f"--prout-type={WRITE_EXCLUSIVE}", key=KEY)
    assert reservations.holder() == (KEY, "Write Exclusive")
    said = sg.run("sg_persist", "--in", "--read-full-status", disk.generic)
    assert "<< Reservation holder >>" in said and "Transport Id of initiator" in said
    # The holder reads and writes as ever.
    disk.write(0, b"held" * 1024)
    assert disk.read(0, 4096) == b"held" * 1024

    # Preempted, by the only registrant there is: the same key, another type.
    reservations.out("preempt", f"--prout-type={EXCLUSIVE_ACCESS}", key=KEY, new=KEY)
    assert reservations.holder() == (KEY, "Exclusive Access")
    reservations.out("preempt-abort", f"--prout-type={WE_REGISTRANTS_ONLY}", key=KEY, new=KEY)
    assert reservations.holder() == (KEY, "Write Exclusive, registrants only")

    reservations.out("release", f"--prout-type={WE_REGISTRANTS_ONLY}", key=KEY)
    assert reservations.holder() is None and reservations.keys() == [KEY]
    reservations.out("register", key=KEY, new=OTHER)
    assert reservations.keys() == [OTHER]
    reservations.out("register", key=OTHER, new=0)
    assert reservations.keys() == []


def test_a_wrong_key_conflicts(reservations):
    reservations.out("register", key=OTHER, new=KEY, code=sg.RESERVATION_CONFLICT)
    assert reservations.keys() == []
    reservations.out("register", new=KEY)
    reservations.out("reserve", "--prout-type=1", key=OTHER, code=sg.RESERVATION_CONFLICT)
    assert reservations.holder() is None


def test_release_of_another_type_is_refused(reservations):
    reservations.out("register", new=KEY)
    reservations.out("reserve", "--prout-type=1", key=KEY)
    reservations.out("release", "--prout-type=3", key=KEY, code=sg.ILLEGAL_REQUEST)
    assert reservations.holder() == (KEY, "Write Exclusive")


def test_clear(reservations):
    reservations.out("register-ignore", new=KEY)
    reservations.out("reserve", "--prout-type=6", key=KEY)
    reservations.out("clear", key=KEY)
    assert reservations.keys() == [] and reservations.holder() is None


def test_reserve_and_release_of_old(disk):
    """RESERVE(6), RELEASE(6): by CDB, sg3_utils has no program for them."""
    sg.run("sg_raw", disk.generic, "16", "00", "00", "00", "00", "00")
    disk.write(0, b"mine" * 1024)
    sg.run("sg_raw", disk.generic, "17", "00", "00", "00", "00", "00")
