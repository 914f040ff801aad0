"""SRB extensions and places inside of them."""

from __future__ import annotations

from typing import Any

from hba.miniport.memory import SrbExtension
from tests.miniport.rig import Rig


def test_an_extension_is_memory_and_an_object() -> None:
    memory = memoryview(bytearray(range(64)))
    extension = SrbExtension(memory, 0x1000)
    extension.task = "mine"
    extension[8:10] = b"ab"
    assert (len(extension), bytes(extension), extension[8], extension.task) == (64, bytes(memory), 0x61, "mine")
    assert bool(SrbExtension(memoryview(b""), 0)) is True  # a pointer, which is not NULL


def test_places_inside() -> None:
    extension = SrbExtension(memoryview(bytearray(range(64))), 0x1000)
    place = extension + 16 + 24
    assert (place.extension, place.offset, bytes(place.memory)) == (extension, 40, bytes(range(40, 64)))
    assert repr(place) == "<<SrbExtension of 64 bytes> + 0x28>"


def test_MB_13_an_extension_that_nobody_was_given() -> None:
    rig = Rig("storport", "hba.miniport.examples.good:GoodMiniport")
    rig.bus.hold = True
    rig.submit()
    miniport: Any = rig.miniport
    address, length = miniport.port.get_physical_address(None, rig.bus.held[0].owner.srb_extension)
    rig.chip.read_memory(address, length, "command block")
    assert length == 8 and rig.found == set()
    rig.chip.read_memory(address + 16, length, "command block")  # the next one
    assert rig.found == {"MB-13"}
