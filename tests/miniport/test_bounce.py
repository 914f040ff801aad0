"""Memory of the host for one transfer: found at its bus addresses as long as it lives, and nothing else is there."""

from __future__ import annotations

import gc

import pytest

from hba.errors import DmaFault
from hba.miniport.bounce import bounce_buffer
from hba.miniport.chip import Chip
from tests.miniport.rig import AnsweringBus, Memory


@pytest.mark.parametrize("own", [False, True])
def test_the_chip_reaches_each_at_its_addresses(own: bool) -> None:
    chip = Chip(AnsweringBus(), Memory())
    if own:
        chip.add_host_memory(memoryview(bytearray(64)))
    first, second = bounce_buffer(512), bounce_buffer(4096)
    (address, _), (other, _) = *first.segments, *second.segments
    assert chip.map(None, [(address + 500, 12), (other, 8)], 1).write(b"twelve bytes+ eight b") == 20
    assert first.read(500) == b"twelve bytes" and second.read(0, 9) == b"+ eight \0"
    for beyond in ((address + 500, 13), (other + 4096, 1)):
        with pytest.raises(DmaFault):
            chip.map(None, [beyond], 0)
    del first
    gc.collect()
    with pytest.raises(DmaFault):
        chip.map(None, [(address, 1)], 0)
