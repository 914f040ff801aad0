from __future__ import annotations

from collections.abc import Callable

import pytest

from hba import __version__
from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.pvscsi.status import BTSTAT_SUCCESS
from hba.srb import SRB_FUNCTION_ABORT_COMMAND, SRB_FUNCTION_RESET_BUS, SRB_FUNCTION_RESET_DEVICE
from tests.adapters.pvscsi.driver import DATA, STATE, Driver
from tests.scsi.util import disk

Make = Callable[..., Driver]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (r.CMD_SETUP_RINGS, 132),
        (r.CMD_RESET_DEVICE, 3),
        (r.CMD_ABORT_CMD, 4),
        (r.CMD_CONFIG, 6),
        (r.CMD_SETUP_MSG_RING, 34),
        (r.CMD_SETUP_REQCALLTHRESHOLD, 1),
    ],
)
def test_a_command_asked_for_without_its_descriptor_says_how_many_words_it_wants(
    make: Make, number: int, words: int
) -> None:
    assert make().command(number) == words


@pytest.mark.parametrize("number", [0, r.CMD_ISSUE_SCSI, r.CMD_DEVICE_UNPLUG, 11, 0xFFFFFFFF])
def test_an_unsupported_command_reads_all_ones(make: Make, number: int) -> None:
    assert make().command(number) == r.STATUS_FAILED


def test_a_supported_command_can_be_switched_off(make: Make) -> None:
    driver = make(options=PvscsiOptions(message_ring=False, request_call_threshold=False, config_page=False))
    for number in (r.CMD_SETUP_MSG_RING, r.CMD_SETUP_REQCALLTHRESHOLD, r.CMD_CONFIG):
        assert driver.command(number) == r.STATUS_FAILED


@pytest.mark.parametrize("pages", [1, 2, 4, 8, 16, 32])
def test_rings_of_every_legal_size(make: Make, pages: int) -> None:
    driver = make()
    assert driver.setup(pages, pages) == 0
    assert driver.u32(STATE + st.REQ_NUM_ENTRIES_LOG2) == (pages * 32).bit_length() - 1
    assert driver.u32(STATE + st.CMP_NUM_ENTRIES_LOG2) == (pages * 128).bit_length() - 1


@pytest.mark.parametrize(
    ("requests", "completions"), [(0, 1), (1, 0), (3, 1), (1, 5), (33, 1), (1, 64), (0xFFFFFFFF, 1)]
)
def test_rings_of_illegal_size_are_refused(make: Make, requests: int, completions: int) -> None:
    driver = make()
    words = st.SETUP_RINGS.pack(requests, completions, STATE >> 12, *[0x10] * 64)
    assert driver.command(r.CMD_SETUP_RINGS, words) == r.STATUS_FAILED
    assert driver.adapter.access.rings is None


def test_rings_outside_memory_are_refused_and_the_device_goes_on(make: Make) -> None:
    driver = make()
    words = st.SETUP_RINGS.pack(1, 1, 0xFFFFF, *[0x10] * 64)
    assert driver.command(r.CMD_SETUP_RINGS, words) == r.STATUS_FAILED
    assert "not mapped" in str(driver.adapter.snapshot()["last_command"])
    assert driver.setup() == 0


def test_setup_never_writes_an_index_the_guest_owns(make: Make) -> None:
    """SETUP_RINGS is posted: the guest may have queued its first request before the device looks at it."""
    driver = make()
    for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX, st.MSG_CONS_IDX):
        driver.set_u32(STATE + offset, 0x1234)
    for offset in (st.REQ_CONS_IDX, st.CMP_PROD_IDX, st.MSG_PROD_IDX, st.REQ_CALL_THRESHOLD):
        driver.set_u32(STATE + offset, 0x5678)
    assert driver.setup() == 0
    assert driver.setup_messages() == 0
    for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX, st.MSG_CONS_IDX):
        assert driver.u32(STATE + offset) == 0x1234
    for offset in (st.REQ_CONS_IDX, st.CMP_PROD_IDX, st.MSG_PROD_IDX, st.REQ_CALL_THRESHOLD):
        assert driver.u32(STATE + offset) == 0


def test_message_ring_sizes(driver: Driver) -> None:
    for pages in (1, 2, 4, 8, 16):
        assert driver.setup_messages(pages) == 0
        assert driver.u32(STATE + st.MSG_NUM_ENTRIES_LOG2) == (pages * 32).bit_length() - 1
    bad = st.SETUP_MSG_RING.pack(3, 0, *[0x80] * 16)
    assert driver.command(r.CMD_SETUP_MSG_RING, bad) == r.STATUS_FAILED


def test_message_ring_without_rings_does_nothing(make: Make) -> None:
    driver = make()
    assert driver.setup_messages() == 0
    assert driver.u32(STATE + st.MSG_NUM_ENTRIES_LOG2) == 0


def test_adapter_reset_completes_what_is_outstanding_then_leaves_the_rings_alone(driver: Driver) -> None:
    driver.put(context=7)
    driver.kick()
    assert driver.command(r.CMD_ADAPTER_RESET) == 0
    assert driver.port.resets == 1
    assert [(c[0], c[3]) for c in driver.completions()] == [(7, 0x25)]
    assert driver.read(0x100C) == 0
    before = driver.peek(STATE, 4096)
    driver.put(context=8)
    driver.kick()
    after = bytearray(driver.peek(STATE, 4096))
    after[0:4] = before[0:4]  # the guest's own index
    assert bytes(after) == before
    assert not driver.port.srbs


def test_reset_bus_and_reset_device_reach_the_port(driver: Driver) -> None:
    assert driver.command(r.CMD_RESET_BUS) == 0
    assert driver.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(3, bytes((0, 2, 0, 0, 0, 0, 0, 0)))) == 0
    assert [(s.function, s.target_id, s.lun) for s in driver.port.srbs] == [
        (SRB_FUNCTION_RESET_BUS, 0, 0),
        (SRB_FUNCTION_RESET_DEVICE, 3, 2),
    ]


def test_reset_device_of_an_impossible_address_fails(driver: Driver) -> None:
    assert driver.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(300, bytes(8))) == r.STATUS_FAILED
    assert driver.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(0, bytes((1,) * 8))) == r.STATUS_FAILED


def test_abort_names_its_victim_by_context(driver: Driver) -> None:
    driver.put(context=0x10)
    driver.put(context=0x11)
    driver.write(0x4018, 0)  # not looked at yet: the command must see it all the same
    assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(0x11, 0, 0)) == 0
    abort = driver.port.srbs[-1]
    assert abort.function == SRB_FUNCTION_ABORT_COMMAND
    assert abort.next_srb is driver.port.srbs[1]


def test_abort_of_a_name_used_twice_is_about_the_latest(driver: Driver) -> None:
    """Also when the first has ended; that keeps nothing of the guest's memory."""
    driver.put(context=9, length=512)
    driver.put(context=9, length=512)
    driver.kick()
    first, second = driver.port.srbs
    driver.port.complete(first)
    assert first.mdl is None
    assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(9, 0, 0)) == 0
    assert driver.port.srbs[-1].next_srb is second
    driver.port.complete(second)
    before = len(driver.port.srbs)
    assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(9, 0, 0)) == 0
    assert len(driver.port.srbs) == before


def test_abort_of_what_is_not_there_does_nothing(driver: Driver) -> None:
    assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(0x99, 0, 0)) == 0
    assert not driver.port.srbs


def test_controller_page(driver: Driver) -> None:
    driver.poke(DATA, st.CONFIG_HEADER.pack(0x1958, 0, 0x1A, 2))
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, 0x2120 << 32, 0x1958, 0)) == 0
    page = driver.peek(DATA, 480)
    number, dwords, host, scsi = st.CONFIG_HEADER.unpack(page[:16])
    assert (number, dwords, host, scsi) == (0x1958, 120, 0, 0)
    assert page[24:26] == "h".encode("utf-16-le")
    assert int.from_bytes(page[472:476], "little") == 64


NODE, PHY, DEVICE = 0x5000C29000000000, 0x5000C29000100000, 0x5000C29000200000


def page(driver: Driver, number: int, kind: int, low: int = 0) -> bytes:
    """What CONFIG gives, as long as its header says."""
    driver.poke(DATA, b"\xee" * 1024)
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, kind << 32 | low, number, 0)) == 0
    found, dwords, host_status, scsi_status = st.CONFIG_HEADER.unpack(driver.peek(DATA, 16))
    assert (found, host_status, scsi_status) == (number, 0, 0)
    assert driver.peek(DATA + 4 * dwords, 1) == b"\xee" != driver.peek(DATA + 4 * dwords - 1, 1)
    return driver.peek(DATA + 16, 4 * dwords - 16)


def utf16(text: str, size: int) -> bytes:
    return text.encode("utf-16-le").ljust(size, b"\0")


def test_every_field_of_the_pages(make: Make) -> None:
    """What is too long for its field is cut, and ends with a zero all the same."""
    driver = make(options=PvscsiOptions(max_targets=7, manufacturer="\u0436" * 70, serial="s" * 70, firmware="f" * 40))
    driver.bus.attach(2, 1, disk())
    texts = [utf16("\u0436" * 63, 128), utf16("s" * 63, 128), bytes(64), utf16("2", 64), utf16("f" * 31, 64)]
    assert page(driver, 0x1958, 0x2120) == st.CONFIG_CONTROLLER.pack(NODE, *texts, 7, 1)
    assert page(driver, 0x1959, 0x2122, 2) == st.CONFIG_PHY.pack(PHY + 2, DEVICE | 2, 1)
    assert page(driver, 0x1959, 0x2122, 4) == st.CONFIG_PHY.pack(PHY + 4, 0, 0)
    assert page(driver, 0x195A, 0x2121, 2) == st.CONFIG_DEVICE.pack(DEVICE | 2, PHY + 2, 2, 2, 0)
    for number, where in ((0x195A, 0x2121 << 32 | 4), (0x195A, 0x2121 << 32 | 1 << 16 | 2), (0x195A, 0x2122 << 32 | 2)):
        assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, where, number, 0)) == 0
        assert st.CONFIG_HEADER.unpack(driver.peek(DATA, 16)) == (number, 4, 0x1A, 2)
    driver = make(options=PvscsiOptions(firmware=""))
    assert utf16(__version__, 64) in page(driver, 0x1958, 0x2120)


@pytest.mark.parametrize(
    ("target", "lun", "there"),
    [
        (0, {}, True),
        (255, {1: 255}, True),
        (256, {}, False),
        *((0, {byte: 1}, byte == 1) for byte in range(8)),
    ],
)
def test_which_addresses_a_device_may_have(driver: Driver, target: int, lun: dict[int, int], there: bool) -> None:
    address = bytes(lun.get(byte, 0) for byte in range(8))
    status = driver.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(target, address))
    assert status == (0 if there else r.STATUS_FAILED)
    assert [(srb.path_id, srb.target_id, srb.lun) for srb in driver.port.srbs] == [(0, target, address[1])] * there


def test_an_abort_is_for_the_target_its_request_went_to(driver: Driver) -> None:
    driver.put(context=0x10, target=3, lun=bytes((0, 2, 0, 0, 0, 0, 0, 0)))
    driver.kick()
    for target in (2, 4):
        assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(0x10, target, 0)) == 0
    assert len(driver.port.srbs) == 1
    assert driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(0x10, 3, 0)) == 0
    abort = driver.port.srbs[-1]
    assert (abort.path_id, abort.target_id, abort.lun) == (0, 3, 2)


def test_what_is_counted_and_remembered(driver: Driver) -> None:
    commands = driver.adapter.commands
    told = []
    for number, descriptor in (
        (r.CMD_RESET_BUS, b""),
        (r.CMD_ISSUE_SCSI, b""),
        (99, b""),
        (r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(300, bytes(8))),
        (r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(0, bytes(8))),
    ):
        driver.command(number, descriptor)
        told.append(commands.last)
        assert commands.pending() == (0, b"")
    assert told == [
        "RESET_BUS: ok",
        "ISSUE_SCSI: unsupported",
        "0x63: unsupported",
        "RESET_DEVICE: failed",
        "RESET_DEVICE: ok",
    ]
    assert commands.counts == {"SETUP_RINGS": 1, "RESET_BUS": 1, "unsupported": 2, "RESET_DEVICE": 2}
    driver.write(0x0, r.CMD_RESET_DEVICE)
    driver.write(0x4, 5)
    assert commands.pending() == (r.CMD_RESET_DEVICE, (5).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("command", "length", "there"),
    [
        (0, 0, True),
        (0, 4, False),
        (r.CMD_RESET_DEVICE, 0, True),
        (r.CMD_RESET_DEVICE, 4, True),
        (r.CMD_RESET_DEVICE, 6, False),
        (r.CMD_RESET_DEVICE, 8, True),
        (r.CMD_RESET_DEVICE, 12, False),  # it would have run
        (r.CMD_RESET_BUS, 0, False),  # has none
        (99, 0, False),
    ],
)
def test_what_can_have_been_written_of_a_descriptor(driver: Driver, command: int, length: int, there: bool) -> None:
    commands = driver.adapter.commands
    if there:
        commands.restore(command, bytes(length), True, "x")
        assert (commands.pending(), commands.threshold_enabled, commands.last) == ((command, bytes(length)), True, "x")
    else:
        with pytest.raises(ValueError, match=f"command {command} with {length} bytes of its descriptor"):
            commands.restore(command, bytes(length), True, "x")


@pytest.mark.parametrize("number", [0x1957, 0x1958, 0x1959, 0x195A])
def test_a_page_that_does_not_exist_fails_in_its_header(driver: Driver, number: int) -> None:
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, 0x9999 << 32, number, 0)) == 0
    assert st.CONFIG_HEADER.unpack(driver.peek(DATA, 16)) == (number, 4, 0x1A, 2)


def test_phy_page_says_what_is_attached(driver: Driver) -> None:
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, (0x2122 << 32) | 5, 0x1959, 0)) == 0
    phy, attached, kind = st.CONFIG_PHY.unpack(driver.peek(DATA + 16, st.CONFIG_PHY.size))
    assert phy
    assert (attached, kind) == (0, 0)


@pytest.mark.parametrize("number, there", [(0, True), (63, True), (64, False), (255, False)])
def test_there_is_a_phy_for_each_target(driver: Driver, number: int, there: bool) -> None:
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, (0x2122 << 32) | number, 0x1959, 0)) == 0
    _page, dwords, host_status, scsi_status = st.CONFIG_HEADER.unpack(driver.peek(DATA, st.CONFIG_HEADER.size))
    size = st.CONFIG_HEADER.size + st.CONFIG_PHY.size * there
    assert (dwords * 4, host_status == BTSTAT_SUCCESS, scsi_status == 0) == (size, there, there)


def test_config_outside_memory_fails(driver: Driver) -> None:
    words = st.CONFIG.pack(1 << 40, 0x2120 << 32, 0x1958, 0)
    assert driver.command(r.CMD_CONFIG, words) == r.STATUS_FAILED


def test_request_call_threshold(driver: Driver) -> None:
    assert driver.command(r.CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little")) != 0
    assert driver.u32(STATE + st.REQ_CALL_THRESHOLD) == 0
    assert driver.command(r.CMD_SETUP_REQCALLTHRESHOLD, (0).to_bytes(4, "little")) == 0


def test_a_new_command_drops_words_of_an_earlier_one(driver: Driver) -> None:
    driver.write(0x0, r.CMD_RESET_DEVICE)
    driver.write(0x4, 1)
    driver.write(0x0, r.CMD_RESET_DEVICE)
    for word in (2, 0, 0):
        driver.write(0x4, word)
    assert [s.target_id for s in driver.port.srbs] == [2]
    driver.write(0x4, 5)  # one too many: for nobody
    assert len(driver.port.srbs) == 1


def test_device_reset_is_as_after_power_on(driver: Driver) -> None:
    driver.write(0x2010, 0xF)
    driver.adapter.function.reset()
    assert driver.adapter.access.rings is None
    driver.write_config(4, 6, 2)
    assert driver.read(0x2010) == 0
