"""VFIO_USER_REGION_READ, _WRITE and _WRITE_MULTI, VFIO_USER_DEVICE_RESET, and what config space has behind them."""

from __future__ import annotations

import errno

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected
from tests.vfio_user.conformance.rig import BAR, CONFIG, IDENTITY, ROM, STATUS, UNUSED, VALUE, VECTORS, WIDE, Rig


def access(region: int, offset: int, count: int) -> bytes:
    return p.REGION_ACCESS_BODY.encode(p.RegionAccess(offset, region, count))


def capabilities(rig: Rig) -> dict[int, int]:
    """Where each capability is, by walking the list as software does."""
    space = rig.call(lambda: rig.client.region_read(CONFIG, 0, 256))
    assert space[6] & 0x10
    found, at = {}, space[0x34]
    while at:
        assert at % 4 == 0 and at not in found.values()
        found[space[at]] = at
        at = space[at + 1]
    return found


def test_the_answer_to_a_read_repeats_it(rig: Rig) -> None:
    answer = rig.call(lambda: rig.client.request(p.REGION_READ, access(BAR, STATUS, 4)))
    assert answer == access(BAR, STATUS, 4) + (0xC0FFEE).to_bytes(4, "little")


def test_the_answer_to_a_write_repeats_it_without_its_data(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.request(p.REGION_WRITE, access(BAR, VALUE, 4) + b"abcd")) == access(
        BAR, VALUE, 4
    )
    assert rig.registers["VALUE"] == int.from_bytes(b"abcd", "little")


def test_posted_writes_come_before_what_follows_them(rig: Rig) -> None:
    for number in range(50):
        rig.client.region_write(BAR, VALUE, number.to_bytes(4, "little"), posted=True)
    assert rig.call(lambda: rig.client.region_read(BAR, VALUE, 4)) == (49).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("region", "offset", "count", "code"),
    [
        (9, 0, 4, errno.EINVAL),
        (0xFFFFFFFF, 0, 4, errno.EINVAL),
        (UNUSED, 0, 1, errno.EINVAL),
        (BAR, 0x2000, 1, errno.EINVAL),
        (BAR, 0x1FFF, 2, errno.EINVAL),
        (BAR, (1 << 64) - 1, 1, errno.EINVAL),
        (BAR, (1 << 64) - 1, 0xFFFFFFFF, errno.EINVAL),
        (CONFIG, 4096, 1, errno.EINVAL),
        (CONFIG, 0, 4097, errno.EINVAL),
        (WIDE + 1, 0, 4, errno.EINVAL),
    ],
)
def test_accesses_outside(rig: Rig, region: int, offset: int, count: int, code: int) -> None:
    assert rig.refused(p.REGION_READ, access(region, offset, count)) == code
    if count < 10_000:
        assert rig.refused(p.REGION_WRITE, access(region, offset, count) + bytes(count)) == code


def test_what_can_only_be_read(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.region_read(ROM, 0, 2)) == b"\x55\xaa"
    assert rig.refused(p.REGION_WRITE, access(ROM, 0, 2) + b"xx") == errno.EPERM


@pytest.mark.parametrize("data", [3, 5, 0])
def test_a_write_whose_data_is_not_its_count(rig: Rig, data: int) -> None:
    assert rig.refused(p.REGION_WRITE, access(BAR, VALUE, 4) + bytes(data)) == errno.EINVAL
    assert rig.registers["VALUE"] == 0


def test_a_read_without_an_answer(rig: Rig) -> None:
    rig.client.send(p.REGION_READ, access(BAR, VALUE, 4), flags=p.NO_REPLY)
    assert rig.call(rig.client.device_info).num_regions == 9


def test_nothing_at_all_is_fine(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.region_read(BAR, 0, 0)) == b""
    rig.call(lambda: rig.client.region_write(BAR, 0x2000, b""))


def test_several_writes_in_one_message(rig: Rig) -> None:
    writes = [(VALUE, BAR, b"\1\0\0\0"), (0x3C, CONFIG, b"\x0b"), (VALUE, BAR, b"\2\0\0\0")]
    answer = rig.call(lambda: rig.client.request(p.REGION_WRITE_MULTI, p.encode_multi(writes)))
    assert answer == p.MULTI_COUNT.pack(3)
    assert rig.registers["VALUE"] == 2
    assert rig.call(lambda: rig.client.region_read(CONFIG, 0x3C, 1)) == b"\x0b"
    rig.client.write_multi([(VALUE, BAR, b"\3\0\0\0")])  # posted
    assert rig.call(lambda: rig.client.region_read(BAR, VALUE, 4)) == b"\3\0\0\0"


@pytest.mark.parametrize(
    "body",
    [
        p.MULTI_COUNT.pack(2) + p.MULTI_WRITE.pack(0, BAR, 4, bytes(8)),
        p.MULTI_COUNT.pack(0) + p.MULTI_WRITE.pack(0, BAR, 4, bytes(8)),
        p.MULTI_COUNT.pack((1 << 64) - 1),
        p.MULTI_COUNT.pack(1) + p.MULTI_WRITE.pack(0, BAR, 9, bytes(8)),
        p.MULTI_COUNT.pack(1) + p.MULTI_WRITE.pack(0, 9, 4, bytes(8)),
        p.MULTI_COUNT.pack(2)
        + p.MULTI_WRITE.pack(VALUE, BAR, 4, b"\1" * 8)
        + p.MULTI_WRITE.pack(1 << 40, BAR, 4, bytes(8)),
    ],
)
def test_several_writes_of_which_one_makes_no_sense(rig: Rig, body: bytes) -> None:
    assert rig.refused(p.REGION_WRITE_MULTI, body) == errno.EINVAL
    assert rig.registers["VALUE"] == 0  # nor was another one carried out


def test_no_writes_in_one_message(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.request(p.REGION_WRITE_MULTI, p.MULTI_COUNT.pack(0))) == p.MULTI_COUNT.pack(0)


def test_reset(rig: Rig) -> None:
    """As after power on; maps and eventfds stay."""
    rig.call(lambda: rig.client.region_write(BAR, VALUE, b"\1\0\0\0"))
    rig.call(lambda: rig.client.dma_map(0, 4096))
    assert rig.call(lambda: rig.client.request(p.DEVICE_RESET)) == b""
    assert rig.registers["VALUE"] == 0
    assert rig.call(lambda: rig.client.region_read(CONFIG, 4, 2)) == b"\0\0"
    assert len(rig.memory.maps) == 1


# -- config space -----------------------------------------------------------------------------------------------------


def test_the_header(rig: Rig) -> None:
    space = rig.call(lambda: rig.client.region_read(CONFIG, 0, 64))
    assert int.from_bytes(space[0:2], "little") == IDENTITY.vendor
    assert int.from_bytes(space[2:4], "little") == IDENTITY.device
    assert int.from_bytes(space[9:12], "little") == IDENTITY.class_code
    assert space[8] == IDENTITY.revision and space[0x0E] == 0


def test_the_list_of_capabilities(rig: Rig) -> None:
    found = capabilities(rig)
    assert set(found) == {0x01, 0x05, 0x11}
    msi = rig.call(lambda: rig.client.region_read(CONFIG, found[5], 4))
    assert msi[2] >> 1 & 7 == VECTORS.bit_length() - 1
    msix = rig.call(lambda: rig.client.region_read(CONFIG, found[0x11], 12))
    assert int.from_bytes(msix[2:4], "little") & 0x7FF == VECTORS - 1
    assert int.from_bytes(msix[4:8], "little") == 0x1000 | BAR


def test_what_is_read_only_there_stays(rig: Rig) -> None:
    before = rig.call(lambda: rig.client.region_read(CONFIG, 0, 4))
    rig.call(lambda: rig.client.region_write(CONFIG, 0, b"\xff" * 4))
    assert rig.call(lambda: rig.client.region_read(CONFIG, 0, 4)) == before
    found = capabilities(rig)
    for at in found.values():
        rig.call(lambda at=at: rig.client.region_write(CONFIG, at, b"\xff\xff"))  # type: ignore[misc]
    assert capabilities(rig) == found


def test_the_size_of_a_bar(rig: Rig) -> None:
    rig.call(lambda: rig.client.region_write(CONFIG, 0x10, b"\xff" * 12))
    bars = rig.call(lambda: rig.client.region_read(CONFIG, 0x10, 12))
    assert int.from_bytes(bars[0:4], "little") == 0xFFFFE000
    assert int.from_bytes(bars[4:12], "little") == 0xFFFFFFFFFFFFF004


def test_extended_capabilities_there_are_none(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.region_read(CONFIG, 0x100, 4096 - 0x100)) == bytes(4096 - 0x100)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_any_width(rig: Rig, size: int) -> None:
    whole = rig.call(lambda: rig.client.region_read(CONFIG, 0, 256))
    for at in range(0, 256, size):
        assert rig.call(lambda at=at: rig.client.region_read(CONFIG, at, size)) == whole[at : at + size]  # type: ignore[misc]


def test_power_down_and_up(rig: Rig) -> None:
    at = capabilities(rig)[1] + 4
    rig.call(lambda: rig.client.region_write(CONFIG, at, b"\3\0"))
    assert rig.call(lambda: rig.client.region_read(BAR, STATUS, 4)) == b"\xff" * 4
    rig.call(lambda: rig.client.region_write(CONFIG, at, b"\0\0"))
    assert rig.call(lambda: rig.client.region_read(BAR, STATUS, 4)) == (0xC0FFEE).to_bytes(4, "little")


def test_the_client_goes_while_its_request_is_carried_out(rig: Rig) -> None:
    rig.registers.cell("VALUE").on_write = lambda _value: rig.client.close()
    rig.client.send(p.REGION_WRITE, access(BAR, VALUE, 4) + bytes(4))
    rig.turn()
    assert not rig.engine.connected
    with pytest.raises((Disconnected, OSError)):
        rig.client.send(p.DEVICE_RESET)
