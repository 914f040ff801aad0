"""VFIO_USER_VERSION: versions, capabilities, and JSON that is none."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator

import msgspec
import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected
from tests.vfio_user.conformance.rig import Rig

DEFAULTS = {"max_msg_fds": 16, "max_data_xfer_size": 1 << 20, "pgsizes": 4096, "write_multiple": True}


@pytest.fixture
def fresh() -> Iterator[Rig]:
    made = Rig(negotiate=False)
    yield made
    made.close()


def ask(rig: Rig, major: int, minor: int, data: bytes, fds: tuple[int, ...] = ()) -> tuple[int, bytes]:
    """(errno or 0, body) of the answer to a VERSION."""
    body = p.VERSION_BODY.encode(p.Version(major, minor)) + data
    number = rig.client.send(p.VERSION, body, fds=fds)
    rig.turn()
    message = rig.client.receive(wait=False)
    assert message is not None and message[0][:2] == (number, p.VERSION)
    return message[0][4], message[1]


def answered(body: bytes) -> object:
    """The JSON of an answer, which ends with a NUL."""
    assert body[:4] == bytes(4) and body[-1:] == b"\0"
    return json.loads(body[4:-1])


def hung_up(rig: Rig) -> bool:
    rig.turn()
    try:
        rig.client.receive(wait=False)
    except Disconnected:
        return not rig.engine.connected
    return False


@pytest.mark.parametrize(("major", "minor"), [(1, 0), (2, 0), (0xFFFF, 0xFFFF)])
def test_a_major_version_that_is_not_served(fresh: Rig, major: int, minor: int) -> None:
    assert ask(fresh, major, minor, b'{"capabilities":{}}\0') == (errno.EINVAL, b"")
    assert hung_up(fresh)


@pytest.mark.parametrize("minor", [0, 1, 2, 0xFFFF])
def test_the_minor_version_is_not_above_the_proposed_one(fresh: Rig, minor: int) -> None:
    code, body = ask(fresh, 0, minor, b"{}\0")
    assert code == 0 and body[:4] == bytes(4)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", {}),
        (b"\0", {}),
        (b"{}\0", {}),
        (b'{"capabilities":{}}\0', {}),
        (b'{"capabilities":{"max_msg_fds":1}}\0', {"max_msg_fds": 16}),
        (b'{"capabilities":{"write_multiple":false,"pgsizes":4096}}\0', {"write_multiple": True, "pgsizes": 4096}),
        (b'{"capabilities":{"unknown":[1,{"a":2}]},"more":null}\0', {}),
        (b'{"capabilities":{"twin_socket":{"supported":true}}}\0', {}),
        (b'{"capabilities":{"migration":{"pgsize":4096}}}\0', {}),
        (b' {\n"capabilities" :\t{"max_data_xfer_size" : 1}}\0', {"max_data_xfer_size": 1 << 20}),
    ],
)
def test_the_answer_names_what_was_proposed_and_no_more(fresh: Rig, data: bytes, named: dict[str, object]) -> None:
    code, body = ask(fresh, 0, 0, data)
    assert code == 0
    assert answered(body) == {"capabilities": named}
    assert fresh.call(fresh.client.device_info).num_regions == 9


def test_all_of_them(fresh: Rig) -> None:
    capabilities = fresh.call(fresh.client.version)
    assert {name: getattr(capabilities, name) for name in DEFAULTS} == DEFAULTS
    assert capabilities.max_dma_maps is not None and 64 <= capabilities.max_dma_maps <= 4096


@pytest.mark.parametrize(
    "data",
    [
        b"{}",  # no NUL
        b"{}\0x",
        b"{\0",
        b"[]\0",
        b"null\0",
        b"text\0",
        b'{"capabilities":"string"}\0',
        b'{"capabilities":[]}\0',
        b'{"capabilities":{"max_msg_fds":"foo"}}\0',
        b'{"capabilities":{"max_msg_fds":-1}}\0',
        b'{"capabilities":{"max_msg_fds":1.5}}\0',
        b'{"capabilities":{"max_data_xfer_size":0}}\0',
        b'{"capabilities":{"max_data_xfer_size":-5}}\0',
        b'{"capabilities":{"max_data_xfer_size":99999999999999999999999}}\0',
        b'{"capabilities":{"max_dma_maps":0}}\0',
        b'{"capabilities":{"pgsizes":"4096"}}\0',
        b'{"capabilities":{"write_multiple":1}}\0',
        b"\xff\xfe{}\0",
        b"[" * 2000 + b"\0",
        b'{"a":"' + b"x" * 5000 + b'"}\0',
    ],
)
def test_json_that_is_none(fresh: Rig, data: bytes) -> None:
    assert ask(fresh, 0, 0, data) == (errno.EINVAL, b"")
    assert hung_up(fresh)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_no_version_in_it(fresh: Rig, size: int) -> None:
    fresh.client.send(p.VERSION, bytes(size))
    fresh.turn()
    message = fresh.client.receive(wait=False)
    assert message is not None and message[0][4] == errno.EINVAL
    assert hung_up(fresh)


def test_descriptors_it_does_not_take(fresh: Rig) -> None:
    assert ask(fresh, 0, 0, b"{}\0", (0, 1))[0] == errno.EINVAL
    assert hung_up(fresh)


def test_anything_before_it_is_refused(fresh: Rig) -> None:
    fd = os.memfd_create("ram")
    body = p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0, 4096))
    fresh.client.send(p.DMA_MAP, body, fds=(fd,))
    fresh.turn()
    message = fresh.client.receive(wait=False)
    assert message is not None and message[0][4] == errno.EINVAL
    assert fresh.memory.maps == []
    os.close(fd)


def test_a_second_one_is_refused(rig: Rig) -> None:
    body = p.encode_version(0, 0, p.Capabilities())
    assert rig.refused(p.VERSION, body) == errno.EINVAL


def test_without_an_answer_it_makes_no_sense(fresh: Rig) -> None:
    fresh.client.send(p.VERSION, p.encode_version(0, 0, p.Capabilities()), flags=p.NO_REPLY)
    assert hung_up(fresh)


def test_the_answer_fits_the_room_of_its_request(fresh: Rig) -> None:
    """QEMU takes no answer that is longer than what it has sent."""
    proposed = p.Capabilities(16, 1 << 20, 65535, 4096, True)
    request = p.encode_version(0, 0, proposed)
    _, body = ask(fresh, 0, 0, request[4:])
    assert len(body) <= len(request)
    assert msgspec.json.decode(body[4:-1])
