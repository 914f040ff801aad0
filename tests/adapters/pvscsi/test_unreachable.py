"""Rings that cannot be reached: the cause is told with what to do, once."""

from __future__ import annotations

from collections.abc import Callable

from hba.adapters.pvscsi.registers import STATUS_FAILED
from hba.errors import DmaFault
from hba.pci.unreachable import SHARE
from tests.adapters.pvscsi.driver import COMMAND_REGISTER, MEMORY_ENABLE, RAM, REQ, STATE, Driver

Make = Callable[..., Driver]


def listen(driver: Driver) -> list[str]:
    told: list[str] = []
    driver.adapter.on_unreachable = told.append
    return told


class Silent:
    """A client that answers no message."""

    def dma_read(self, address: int, length: int) -> bytes:
        raise DmaFault(address, length, "no reply from the client within 2000 ms")

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        raise DmaFault(address, len(data), "no reply from the client within 2000 ms")


class Partly:
    """A client that answers messages, but from some time on not those for the request ring."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.refuses = False

    def dma_read(self, address: int, length: int) -> bytes:
        if self.refuses and REQ <= address < REQ + 0x1000:
            raise DmaFault(address, length, "refused")
        return self.driver.peek(address, length)

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        self.driver.poke(address, bytes(data))


def test_a_client_that_gives_no_memory(make: Make) -> None:
    driver = make(ram=False)
    told = listen(driver)
    assert driver.setup() == STATUS_FAILED
    assert told == [
        f"what SETUP_RINGS gave: 0x{STATE:x}+0x1000: the client has given no memory at all; for QEMU: {SHARE}"
    ]
    assert driver.adapter.snapshot()["unreachable"] == told[0]
    driver.setup()
    assert len(told) == 1


def test_an_address_outside_all_memory(make: Make) -> None:
    driver = make()
    told = listen(driver)
    assert driver.setup(state=RAM + 0x5000) == STATUS_FAILED
    assert (
        f"0x{RAM + 0x5000:x}+0x1000 is outside the one region of memory the client gave, up to 0x{RAM - 1:x}" in told[0]
    )
    assert "see `hba show dma`" in told[0]
    assert driver.setup() == 0
    assert driver.adapter.snapshot()["unreachable"] == ""


def test_memory_that_is_not_shared_and_no_message_reaches(make: Make) -> None:
    driver = make(ram=False)
    driver.memory.map(0, RAM, 3, None, 0)
    driver.memory.client = Silent()
    told = listen(driver)
    assert driver.setup() == STATUS_FAILED
    assert "share=off" in told[0] and "no reply from the client within 2000 ms" in told[0] and told[0].endswith(SHARE)


def test_a_request_ring_that_no_message_reaches(make: Make) -> None:
    """The indices can be read, the requests cannot."""
    driver = make(ram=False)
    driver.memory.map(0, RAM, 3, None, 0)
    driver.memory.client = client = Partly(driver)
    told = listen(driver)
    assert driver.setup() == 0
    client.refuses = True
    driver.put()
    driver.kick()
    assert driver.adapter.access.fault and not driver.adapter.in_flight.outstanding
    assert "share=off" in told[0] and told[0].endswith(SHARE)


def test_bus_mastering_that_is_off(make: Make) -> None:
    driver = make()
    told = listen(driver)
    driver.write_config(COMMAND_REGISTER, MEMORY_ENABLE, 2)
    assert driver.setup() == STATUS_FAILED
    assert "bus mastering is off; the guest's driver has to set the bus master bit first" in told[0]


def test_memory_that_is_taken_away_under_the_rings(driver: Driver) -> None:
    told = listen(driver)
    driver.memory.unmap_all()
    for _ in range(3):
        driver.write(0x4018, 0)
        driver.turn()
    assert told == [f"its rings: 0x{STATE:x}+0x1000: the client has given no memory at all; for QEMU: {SHARE}"]


def test_what_can_be_reached_is_not_told_of(driver: Driver) -> None:
    told = listen(driver)
    driver.put()
    driver.kick()
    assert told == []
