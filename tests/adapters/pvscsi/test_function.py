"""How the PCI function presents itself, and what a driver may ask it for."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi.registers import MSIX_PBA_OFFSET, MSIX_TABLE_OFFSET
from tests.adapters.pvscsi.driver import Driver

Make = Callable[..., Driver]
MSI, MSIX = 5, 17  # PCI capabilities


@pytest.mark.parametrize(
    ("ioeventfd", "posted_writes", "offered"),
    [(True, False, True), (False, False, False), (True, True, False), (False, True, False)],
)
def test_when_a_kick_may_be_an_event(make: Make, ioeventfd: bool, posted_writes: bool, offered: bool) -> None:
    """Never with posted writes: it may overtake them."""
    function = make(ioeventfd=ioeventfd, posted_writes=posted_writes).adapter.function
    events = function.region_io_fds(0)
    assert {event.offset for event in events} == ({0x3014, 0x4018} if offered else set())
    for index in range(1, 6):
        assert function.region_io_fds(index) == ()


def capabilities(driver: Driver) -> dict[int, bytes]:
    """The first twelve bytes of each."""

    def config(offset: int, size: int) -> bytes:
        return driver.adapter.function.region_read(7, offset, size)

    found, at = {}, config(0x34, 1)[0]
    while at:
        found[config(at, 1)[0]] = b"".join(config(at + byte, 1) for byte in range(12))
        at = config(at + 1, 1)[0]
    return found


@pytest.mark.parametrize("msi", [True, False])
@pytest.mark.parametrize("vectors", [0, 1, 3])
def test_which_interrupts_there_are(make: Make, msi: bool, vectors: int) -> None:
    found = capabilities(make(msi=msi, msix_vectors=vectors))
    assert (MSI in found, MSIX in found) == (msi, vectors > 0)
    if vectors:
        control = int.from_bytes(found[MSIX][2:4], "little")
        table, pending = (int.from_bytes(found[MSIX][at : at + 4], "little") for at in (4, 8))
        assert (control & 0x7FF, table, pending) == (vectors - 1, MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET)  # all in BAR 0


def test_it_can_be_run_with_events(make: Make) -> None:
    driver = make()
    assert driver.setup() == 0
    driver.put(context=5)
    (event,) = [event for event in driver.adapter.function.region_io_fds(0) if event.offset == 0x3014]
    os.eventfd_write(event.fd, 1)
    driver.turn()
    driver.turn()
    assert [srb.context[0] for srb in driver.port.srbs] == [5]
