"""Physical addresses of what the port gave out (hba.port.addresses): to the last byte, and not one further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.port.fakes import Rig

Make = Callable[..., Rig]
Found = tuple[int, int] | None
SIZE = 64  # of an SRB extension
SENSE = 18


class Asker:
    """A miniport with one request, which asks for addresses."""

    def __init__(self, rig: Make, **info: Any) -> None:
        self.rig = rig(srb_extension_size=SIZE, **{"need_physical_addresses": True, **info})
        self.held: Any = self.rig.held(self.rig.command())

    def ask(self, srb: Any, address: Any) -> Found:
        found: Found = self.rig.miniport.port.get_physical_address(srb, address)
        return found

    def refused(self, srb: Any, address: Any) -> str:
        """What is said of it; nothing is given out."""
        before = len(self.rig.verifier.findings)
        assert self.ask(srb, address) is None
        (finding,) = list(self.rig.verifier.findings)[before:]
        assert finding.rule == "CF-04"
        return finding.message.removeprefix("get_physical_address of ")


def test_CF_04_places_in_an_extension(rig: Make) -> None:
    asker = Asker(rig)
    extension = asker.held.srb_extension
    found = asker.ask(None, extension)
    assert found is not None and found[1] == SIZE
    base = found[0]
    for offset in (0, 1, SIZE - 1):
        assert asker.ask(None, extension + offset) == (base + offset, SIZE - offset)
        assert asker.ask(None, extension.memory[offset:]) == (base + offset, SIZE - offset)
        assert asker.ask(None, extension.memory[offset : offset + 1]) == (base + offset, SIZE - offset)
    assert asker.rig.rules == []
    for offset in (-1, SIZE, SIZE + 1):
        assert "which is no address the port gave out" in asker.refused(None, extension + offset)
    assert "which is no address" in asker.refused(None, extension.memory[SIZE:])
    assert (
        asker.refused(asker.held, extension) == "an address in the SRB extension with an SRB, which must be NULL for it"
    )


@pytest.mark.parametrize("of", [lambda extension: extension, lambda extension: extension.memory[8:]])
def test_CF_04_the_extension_of_a_request_that_has_ended(rig: Make, of: Callable[[Any], Any]) -> None:
    asker = Asker(rig)
    address = of(asker.held.srb_extension)
    asker.rig.finish()
    assert "which is no address the port gave out" in asker.refused(None, address)


def test_CF_04_the_uncached_extension(rig: Make) -> None:
    r = rig(start=False, need_physical_addresses=True, srb_extension_size=SIZE)
    got: list[memoryview] = []
    r.miniport.on_find = lambda config: got.append(r.miniport.port.get_uncached_extension(config, 4096))
    r.port.start()
    port, memory = r.miniport.port, got[0]
    base, length = port.get_physical_address(None, memory)
    assert length == 4096
    assert port.get_physical_address(None, memory[4095:]) == (base + 4095, 1)
    assert port.get_physical_address(None, memory[1:3]) == (base + 1, 4095)
    assert r.rules == []
    assert port.get_physical_address(None, memory.toreadonly()) is None
    assert port.get_physical_address(None, memory[4096:]) is None
    assert port.get_physical_address(None, memoryview(bytearray(memory))) is None
    held = r.held(r.command())
    assert port.get_physical_address(held, memory) is None
    assert r.verifier.findings[-1].message.endswith(
        "an address in the uncached extension with an SRB, which must be NULL for it"
    )
    assert r.rules == ["CF-04"] * 4


def test_CF_04_a_sense_buffer_to_its_last_byte(rig: Make) -> None:
    asker = Asker(rig)
    sense = asker.held.sense_info_buffer
    for srb in (asker.held, None):
        found = asker.ask(srb, sense)
        assert found is not None and found[1] == SENSE
        assert asker.ask(srb, sense + (SENSE - 1)) == (found[0] + SENSE - 1, 1)
    assert asker.rig.rules == []
    beyond = "a sense buffer the miniport does not own, or beyond it"
    assert asker.refused(asker.held, sense + SENSE) == beyond
    assert asker.refused(asker.held, sense + -1) == beyond
    other = asker.rig.held(asker.rig.command())
    assert asker.refused(other, sense) == "a sense buffer without its live SRB"
    assert asker.refused("no SRB", sense) == "a sense buffer without its live SRB"
    asker.rig.finish()
    assert asker.refused(None, sense) == beyond


def test_CF_04_a_data_buffer_goes_with_its_srb(rig: Make) -> None:
    """The address is given all the same: that it was asked for in the wrong way is what there is to say."""
    asker = Asker(rig)
    buffer = asker.held.data_buffer
    right = asker.ask(asker.held, buffer)
    assert right is not None and right[1] == 512
    assert asker.ask(asker.held, buffer + 511) == (right[0] + 511, 1)
    assert asker.rig.rules == []
    other = asker.rig.held(asker.rig.command())
    for srb in (None, other, 5):
        assert asker.ask(srb, buffer) == right
    assert asker.rig.rules == ["CF-04"] * 3
    assert {finding.message for finding in asker.rig.verifier.findings} == {
        "get_physical_address of a data buffer without its live SRB"
    }
    assert asker.refused(asker.held, buffer + 512).startswith(
        "an address beyond the data buffer (<OpaqueBuffer +0x200>"
    )
    assert asker.refused(asker.held, buffer + -1).startswith("an address beyond the data buffer")


def test_CF_04_physical_addresses_have_to_be_asked_for(rig: Make) -> None:
    asker = Asker(rig, need_physical_addresses=False)
    message = "an address in the SRB extension by a miniport without NeedPhysicalAddresses"
    assert asker.refused(None, asker.held.srb_extension) == message
    assert asker.ask(asker.held, asker.held.data_buffer) is not None


def test_CF_04_a_request_without_data_has_no_address_of_it(rig: Make) -> None:
    asker = Asker(rig)
    buffer = asker.held.data_buffer
    asker.held._port.srb.mdl = None
    assert asker.refused(asker.held, buffer).startswith("an address beyond the data buffer")
