"""The header, and what is wrong with a request whatever it is: sizes, types, commands, descriptors."""

from __future__ import annotations

import errno
import struct

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected
from tests.descriptors import open_fds
from tests.vfio_user.conformance.rig import BAR, CONFIG, Rig

WITHOUT_BODY = (p.DEVICE_RESET,)
WITH_BODY = [
    command for command in p.COMMAND_NAMES if command not in (p.VERSION, p.DMA_READ, p.DMA_WRITE, *WITHOUT_BODY)
]


def hung_up(rig: Rig) -> bool:
    rig.turn()
    try:
        while rig.client.receive(wait=False) is not None:
            pass
    except Disconnected:
        return not rig.engine.connected
    return False


def raw(command: int, size: int, flags: int = 0, body: bytes = b"", error: int = 0) -> bytes:
    return p.HEADER.pack(7, command, size, flags, error) + body


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_size_below_the_headers(rig: Rig, size: int) -> None:
    rig.client.send_raw(raw(p.DEVICE_GET_INFO, size))
    assert hung_up(rig)


@pytest.mark.parametrize("size", [p.MAX_MESSAGE + 1, 1 << 30, 0xFFFFFFFF])
def test_a_size_no_message_has(rig: Rig, size: int) -> None:
    rig.client.send_raw(raw(p.REGION_WRITE, size))
    assert hung_up(rig)


@pytest.mark.parametrize("command", WITH_BODY)
def test_no_body_where_one_is_needed(rig: Rig, command: int) -> None:
    assert rig.refused(command) == errno.EINVAL


@pytest.mark.parametrize("command", WITH_BODY)
def test_a_body_that_is_too_short(rig: Rig, command: int) -> None:
    assert rig.refused(command, bytes(7)) == errno.EINVAL


@pytest.mark.parametrize("command", [0, 14, 19, 255, 0xFFFF, p.DMA_READ, p.DMA_WRITE])
def test_commands_that_are_not_served(rig: Rig, command: int) -> None:
    """Reserved numbers, and those that are ours to send."""
    assert rig.refused(command, bytes(64)) == errno.ENOSYS


@pytest.mark.parametrize("kind", [2, 3, 15])
def test_a_type_that_is_neither_command_nor_reply(rig: Rig, kind: int) -> None:
    rig.client.send_raw(raw(p.DEVICE_GET_INFO, 32, kind, bytes(16)))
    assert hung_up(rig)


@pytest.mark.parametrize("command", [p.DMA_READ, p.DMA_WRITE, p.DEVICE_GET_INFO])
def test_a_reply_nobody_asked_for(rig: Rig, command: int) -> None:
    rig.client.send_raw(raw(command, 32, p.TYPE_REPLY, bytes(16)))
    assert hung_up(rig)


def test_what_is_reserved_in_a_command_is_not_looked_at(rig: Rig) -> None:
    body = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))
    rig.client.send_raw(raw(p.DEVICE_GET_INFO, 32, 1 << 8 | p.ERROR, body, error=99))
    rig.turn()
    message = rig.client.receive(wait=False)
    assert message is not None and message[0] == (7, p.DEVICE_GET_INFO, 32, p.TYPE_REPLY, 0)


def test_an_error_is_the_header_alone(rig: Rig) -> None:
    rig.client.send_raw(raw(p.DEVICE_GET_IRQ_INFO, 32, 0, p.IRQ_INFO_BODY.encode(p.IrqInfoBody(16, 0, 99, 0))))
    rig.turn()
    message = rig.client.receive(wait=False)
    assert message is not None
    assert message[0] == (7, p.DEVICE_GET_IRQ_INFO, 16, p.TYPE_REPLY | p.ERROR, errno.EINVAL)


def test_ids_are_the_senders(rig: Rig) -> None:
    """The same one over and over, concurrently; answers in the order of the requests."""
    body = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))
    read = p.REGION_ACCESS_BODY.encode(p.RegionAccess(0, CONFIG, 2))
    rig.client.send_raw(raw(p.DEVICE_GET_INFO, 32, 0, body) + raw(p.REGION_READ, 32, 0, read) * 2)
    rig.turn()
    commands = []
    while (message := rig.client.receive(wait=False)) is not None:
        assert message[0][0] == 7
        commands.append(message[0][1])
    assert commands == [p.DEVICE_GET_INFO, p.REGION_READ, p.REGION_READ]


@pytest.mark.parametrize("command", [command for command in WITH_BODY if command != p.REGION_READ])
def test_without_a_reply_there_is_none(rig: Rig, command: int) -> None:
    """Whether it was right or not; what comes behind it is answered."""
    rig.client.send(command, bytes(64), flags=p.NO_REPLY)
    assert rig.call(rig.client.device_info).num_regions == 9


@pytest.mark.parametrize("fds", [1, 2, 16])
@pytest.mark.parametrize(
    "command", [command for command in p.COMMAND_NAMES if command not in (p.VERSION, p.DMA_MAP, p.DEVICE_SET_IRQS)]
)
def test_descriptors_nobody_asked_for_are_refused_and_closed(rig: Rig, command: int, fds: int) -> None:
    before = open_fds()
    assert rig.refused(command, bytes(64), fds=[0] * fds) in (errno.EINVAL, errno.ENOSYS)
    assert open_fds() == before


def test_more_descriptors_than_were_announced(rig: Rig) -> None:
    """The kernel closes those there was no room for; the request is not half of one."""
    before = open_fds()
    body = p.SET_IRQS_BODY.encode(p.SetIrqs(20, 0x24, 1, 0, 8))
    assert rig.refused(p.DEVICE_SET_IRQS, body, fds=[0] * 17) == errno.EINVAL
    assert open_fds() == before


def test_the_largest_transfer_and_one_byte_more(rig: Rig) -> None:
    body = p.REGION_ACCESS_BODY.encode(p.RegionAccess(0, BAR, p.MAX_DATA_XFER))
    assert rig.refused(p.REGION_WRITE, body + bytes(p.MAX_DATA_XFER)) == errno.EINVAL  # past the region's end
    rig.client.send(p.REGION_WRITE, body, size=p.MAX_MESSAGE + 1)
    assert hung_up(rig)


def test_descriptors_of_a_request_that_never_comes_whole_are_closed(rig: Rig) -> None:
    before = open_fds()
    for _ in range(10):
        rig.client.send_raw(struct.pack("=H", 1) * 8, (0,))
        rig.turn()
    assert open_fds() <= before + 64
    rig.client.close()
    rig.turn()
    assert open_fds() < before
