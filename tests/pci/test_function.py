"""The PCI function as the engine calls it: decoding, bus mastering, interrupt mechanisms, power, reset, life cycle."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.loop import EventLoop
from hba.pci.bars import IO, Bar, MsixLayout
from hba.pci.function import CONFIG_REGION, ROM_REGION, VGA_REGION, PciFunction
from hba.pci.identity import Identity
from hba.pci.memory import GuestMemory
from hba.pci.registers import RO, RW1C, WO, DeclarationError, Register, RegisterBlock
from hba.vfio_user.device import DMA_READ, DMA_WRITE, REGION_READ, REGION_WRITE, Client, Device, RequestError

IDENTITY = Identity(0x15AD, 0x07C0, 0x010000, 0x15AD, 0x07C0, 2)
LAYOUT = MsixLayout(24, 0, 0x6000, 0x7000)
COMMAND = 0x04


class NoDma:
    """A client whose memory is all mapped: nobody may ask it by message."""

    def dma_read(self, address: int, length: int) -> bytes:
        raise AssertionError("DMA by message")

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        raise AssertionError("DMA by message")


def registers() -> RegisterBlock:
    return RegisterBlock(
        "DEVICE",
        [
            Register("COMMAND", 0, access=WO),
            Register("STATUS", 8, access=RO, reset=0xC0FFEE),
            Register("CAUSE", 0x100C, access=RW1C, fields={"DONE": (3, 0)}),
            Register("MASK", 0x2010, fields={"ENABLED": (3, 0)}),
            Register("KICK", 0x4018, access=WO),
        ],
    )


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop(VirtualClock())
    yield loop
    loop.close()


def make(
    loop: EventLoop, msix: MsixLayout | None = None, msi_vectors: int = 1, rom: bytes | None = None
) -> PciFunction:
    bars = {0: Bar(0x8000, {0: registers()}), 1: Bar(0x80, {0: block_io()}, space=IO)}
    return PciFunction(loop, IDENTITY, bars, GuestMemory(), msix=msix, msi_vectors=msi_vectors, rom=rom)


def block_io() -> RegisterBlock:
    return RegisterBlock("PORTS", [Register("PORT", 0, 8, reset=0x5A)])


@pytest.fixture
def function(loop: EventLoop) -> Iterator[PciFunction]:
    function = make(loop)
    yield function
    function.disconnected()


def config_read(function: PciFunction, offset: int, size: int) -> int:
    return int.from_bytes(function.region_read(CONFIG_REGION, offset, size), "little")


def config_write(function: PciFunction, offset: int, size: int, value: int) -> None:
    function.region_write(CONFIG_REGION, offset, value.to_bytes(size, "little"))


def named(function: PciFunction, name: str, value: int) -> None:
    """Write config register `name` as the guest does."""
    register = function.config.cell(name).register
    config_write(function, register.offset, register.size, value)


def fired(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def eventfd(function: PciFunction, index: int) -> int:
    """Give interrupt `index` an eventfd for vector 0; returns the client's end."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    function.set_irqs(index, 0x24, 0, 1, [os.dup(fd)], b"")
    return fd


def block(function: PciFunction) -> RegisterBlock:
    return function.bars[0].blocks[0][1]


def test_it_is_a_device(function: PciFunction) -> None:
    device: Device = function
    assert (device.num_regions, device.num_irqs) == (9, 5)


def test_regions(loop: EventLoop) -> None:
    function = make(loop, rom=b"\x55\xaa" + bytes(3000))
    sizes = [function.region_info(index).size for index in range(9)]
    assert sizes == [0x8000, 0x80, 0, 0, 0, 0, 4096, 4096, 0]
    assert function.region_info(0).flags == REGION_READ | REGION_WRITE
    assert function.region_info(ROM_REGION).flags == REGION_READ
    assert function.region_info(2).flags == 0
    for index in (-1, 9):
        with pytest.raises(RequestError):
            function.region_info(index)


def test_rom_is_read_and_padded_with_ones(loop: EventLoop) -> None:
    function = make(loop, rom=b"\x55\xaa")
    assert function.region_read(ROM_REGION, 0, 2048) == b"\x55\xaa" + b"\xff" * 2046
    with pytest.raises(RequestError):
        function.region_write(ROM_REGION, 0, b"\0")


def test_without_a_rom_there_is_nothing_to_size(function: PciFunction) -> None:
    config_write(function, 0x30, 4, 0xFFFFF800)
    assert config_read(function, 0x30, 4) == 0
    with pytest.raises(RequestError) as caught:
        function.region_read(ROM_REGION, 0, 4)
    assert caught.value.errno == errno.EINVAL


def test_memory_space_enable(function: PciFunction) -> None:
    kicks: list[int] = []
    block(function).on_write("KICK", kicks.append)
    function.region_write(0, 0x4018, b"\1\0\0\0")
    assert function.region_read(0, 8, 4) == b"\xff\xff\xff\xff"
    assert (kicks, function.refused) == ([], 2)
    config_write(function, COMMAND, 2, 2)
    function.region_write(0, 0x4018, memoryview(b"\1\0\0\0"))
    assert function.region_read(0, 8, 4) == (0xC0FFEE).to_bytes(4, "little")
    assert kicks == [1]
    assert function.region_read(1, 0, 1) == b"\xff"
    assert (function.reads, function.writes) == (1, 1)


def test_io_space_enable(function: PciFunction) -> None:
    config_write(function, COMMAND, 2, 1)
    assert function.region_read(1, 0, 1) == b"\x5a"
    assert function.region_read(0, 8, 4) == b"\xff\xff\xff\xff"


def test_bus_master_enable(function: PciFunction) -> None:
    seen = []
    for command in (0, 4, 0):
        config_write(function, COMMAND, 1, command)
        seen.append(function.memory.enabled)
    assert seen == [False, True, False]


def test_config_change_is_told(function: PciFunction) -> None:
    seen: list[bool] = []
    function.on_config_change.append(lambda: seen.append(function.memory.enabled))
    config_write(function, COMMAND, 2, 6)
    named(function, "MSI_CONTROL", 1)
    config_write(function, 0x3C, 1, 11)
    assert seen == [True, True]


class TestMechanism:
    def test_intx_by_default_unless_disabled(self, function: PciFunction) -> None:
        assert function.interrupts.mode == "intx"
        config_write(function, COMMAND, 2, 1 << 10)
        assert function.interrupts.mode == "none"

    def test_msi_before_intx_and_msix_before_msi(self, loop: EventLoop) -> None:
        function = make(loop, LAYOUT)
        named(function, "MSI_CONTROL", 1)
        assert function.interrupts.mode == "msi"
        named(function, "MSIX_CONTROL", 1 << 15)
        assert function.interrupts.mode == "msix"
        named(function, "MSIX_CONTROL", 0)
        named(function, "MSI_CONTROL", 0)
        assert function.interrupts.mode == "intx"

    def test_without_capabilities(self, loop: EventLoop) -> None:
        function = make(loop, msi_vectors=0)
        assert "MSI_CONTROL" not in function.config
        assert [function.irq_info(index).count for index in (0, 1, 2)] == [1, 0, 0]

    def test_a_message_needs_bus_mastering(self, function: PciFunction) -> None:
        fd = eventfd(function, 1)
        named(function, "MSI_CONTROL", 1)
        function.interrupts.signal()
        assert fired(fd) == 0
        config_write(function, COMMAND, 2, 4)
        assert fired(fd) == 1

    def test_granted_msi_vectors(self, loop: EventLoop) -> None:
        function = make(loop, msi_vectors=4)
        config_write(function, COMMAND, 2, 4)
        fd = eventfd(function, 1)
        named(function, "MSI_CONTROL", 1)
        function.interrupts.signal(3)
        assert fired(fd) == 1
        function.disconnected()

    def test_function_mask_and_the_pending_bit_array(self, loop: EventLoop) -> None:
        function = make(loop, LAYOUT)
        config_write(function, COMMAND, 2, 6)
        fd = eventfd(function, 2)
        named(function, "MSIX_CONTROL", 3 << 14)
        function.interrupts.signal()
        assert fired(fd) == 0
        assert function.region_read(0, 0x7000, 8) == b"\1" + bytes(7)
        assert function.region_read(0, 0x7000, 4) == b"\1\0\0\0"
        named(function, "MSIX_CONTROL", 1 << 15)
        assert fired(fd) == 1
        assert function.region_read(0, 0x7000, 8) == bytes(8)
        function.disconnected()

    def test_interrupt_status_shows_the_line(self, function: PciFunction) -> None:
        function.interrupts.set_line(True)
        assert config_read(function, 6, 2) & 8
        config_write(function, 6, 2, 0xFFFF)
        assert config_read(function, 6, 2) & 8
        function.interrupts.set_line(False)
        assert not config_read(function, 6, 2) & 8

    def test_msix_layout_is_checked(self, loop: EventLoop) -> None:
        with pytest.raises(DeclarationError, match="BAR 3, which does not exist"):
            make(loop, MsixLayout(1, 3, 0, 0x800))
        with pytest.raises(DeclarationError, match="overlaps DEVICE"):
            make(loop, MsixLayout(1, 0, 0x4000, 0x7000))


class TestPower:
    def test_d3hot_stops_decoding_bus_mastering_and_interrupts(self, function: PciFunction) -> None:
        config_write(function, COMMAND, 2, 6)
        named(function, "PM_CONTROL", 3)
        assert function.region_read(0, 8, 4) == b"\xff" * 4
        assert not function.memory.enabled
        assert function.interrupts.mode == "none"
        assert config_read(function, 0, 2) == 0x15AD

    def test_state_survives_d3hot(self, function: PciFunction) -> None:
        config_write(function, COMMAND, 2, 6)
        function.region_write(0, 0x2010, b"\3\0\0\0")
        named(function, "PM_CONTROL", 3)
        named(function, "PM_CONTROL", 0)
        assert function.region_read(0, 0x2010, 4) == b"\3\0\0\0"
        assert function.memory.enabled

    def test_a_state_that_is_not_offered_changes_nothing(self, function: PciFunction) -> None:
        named(function, "PM_CONTROL", 3)
        named(function, "PM_CONTROL", 1)
        assert function.config.field("PM_CONTROL", "POWER_STATE") == 3
        named(function, "PM_CONTROL", 0)
        named(function, "PM_CONTROL", 2)
        assert function.config.field("PM_CONTROL", "POWER_STATE") == 0


class TestReset:
    def test_everything_is_as_at_power_on(self, function: PciFunction) -> None:
        before = function.region_read(CONFIG_REGION, 0, 4096)
        config_write(function, 0x10, 4, 0xFEB00000)
        named(function, "PM_CONTROL", 3)
        named(function, "PM_CONTROL", 0)
        config_write(function, COMMAND, 2, 7)
        named(function, "MSI_CONTROL", 1)
        function.region_write(0, 0x2010, b"\x0f\0\0\0")
        function.interrupts.set_line(True)
        function.reset()
        assert function.region_read(CONFIG_REGION, 0, 4096) == before
        assert block(function)["MASK"] == 0
        assert (function.memory.enabled, function.interrupts.mode, function.interrupts.asserted) == (
            False,
            "intx",
            False,
        )
        assert function.region_read(0, 8, 4) == b"\xff" * 4

    def test_the_adapter_is_told_before_its_registers_go(self, function: PciFunction) -> None:
        seen: list[tuple[int, bool]] = []
        config_write(function, COMMAND, 2, 6)
        block(function)["MASK"] = 5

        def on_reset() -> None:
            seen.append((block(function)["MASK"], function.memory.enabled))
            function.interrupts.set_line(True)  # what completes now must not be left standing

        function.on_reset.append(on_reset)
        function.reset()
        assert seen == [(5, False)]
        assert (block(function)["MASK"], function.interrupts.asserted) == (0, False)

    def test_a_line_that_was_up_under_msi_does_not_fire_intx(self, function: PciFunction) -> None:
        config_write(function, COMMAND, 2, 6)
        intx = eventfd(function, 0)
        named(function, "MSI_CONTROL", 1)
        function.interrupts.set_line(True)
        function.reset()
        assert fired(intx) == 0


class TestLifeCycle:
    def test_after_a_disconnect_the_function_is_as_after_power_on(self, function: PciFunction) -> None:
        client: Client = NoDma()
        function.connected(client)
        clients = [function.memory.client]
        fd = os.memfd_create("guest")
        os.ftruncate(fd, 0x1000)
        function.dma_map(0x1000, 0x1000, DMA_READ | DMA_WRITE, fd, 0)
        config_write(function, COMMAND, 2, 6)
        function.region_write(0, 0x2010, b"\3\0\0\0")
        function.disconnected()
        assert function.memory.maps == []
        clients.append(function.memory.client)
        assert clients == [client, None]
        function.connected(client)
        assert function.region_read(0, 0x2010, 4) == b"\xff" * 4  # nothing decodes
        config_write(function, COMMAND, 2, 6)
        assert function.region_read(0, 0x2010, 4) == bytes(4)

    def test_maps_are_passed_on(self, function: PciFunction) -> None:
        function.dma_map(0x1000, 0x1000, DMA_READ, None, 0)
        function.dma_map(0x4000, 0x1000, DMA_READ, None, 0)
        function.dma_unmap(0x1000, 0x1000)
        with pytest.raises(RequestError):
            function.dma_unmap(0x1000, 0x1000)
        function.dma_unmap_all()
        assert function.memory.maps == []


class TestViews:
    def test_snapshot_is_json_and_changes_nothing(self, loop: EventLoop) -> None:
        function = make(loop, LAYOUT)
        config_write(function, 0x10, 4, 0xFEB00000)
        config_write(function, COMMAND, 2, 7)
        before = function.region_read(CONFIG_REGION, 0, 4096)
        view = json.loads(json.dumps(function.snapshot()))
        assert view["bars"][0]["address"] == 0xFEB00000
        assert view["bars"][0]["enabled"]
        assert view["power_state"] == "D0"
        assert function.region_read(CONFIG_REGION, 0, 4096) == before

    def test_decoded_registers_are_those_of_the_adapter(self, loop: EventLoop) -> None:
        function = make(loop, LAYOUT)
        assert [(view["bar"], view["block"]) for view in function.decode_registers()] == [
            (0, "DEVICE"),
            (0, "MSIX_PBA"),
            (1, "PORTS"),
        ]

    def test_document(self, function: PciFunction) -> None:
        text = function.document()
        assert "## Config space" in text
        assert "## BAR 0 (memory, 0x8000 bytes): DEVICE at 0x0" in text
        assert "**MSI_CONTROL**" in text


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_accesses_raise_nothing_but_request_errors(data: st.DataObject) -> None:
    loop = EventLoop(VirtualClock())
    function = make(loop, LAYOUT, rom=b"\x55\xaa")
    function.on_reset.append(lambda: None)
    for _ in range(data.draw(st.integers(1, 12))):
        index = data.draw(st.sampled_from([0, 0, 0, 1, 2, ROM_REGION, CONFIG_REGION, CONFIG_REGION, VGA_REGION]))
        size = function.region_info(index).size
        offset = data.draw(st.integers(0, max(0, min(size, 0x8000) - 1)))
        count = data.draw(st.integers(0, max(0, min(size - offset, 64))))
        try:
            if data.draw(st.booleans()):
                function.region_write(index, offset, data.draw(st.binary(min_size=count, max_size=count)))
            else:
                assert len(function.region_read(index, offset, count)) == count
        except RequestError:
            assert index in (2, ROM_REGION, VGA_REGION)
        if data.draw(st.integers(0, 9)) == 0:
            function.reset()
    assert function.region_read(CONFIG_REGION, 0, 4) == b"\xad\x15\xc0\x07"
    json.dumps(function.snapshot())
    loop.close()
