"""The stream: several messages in a receive, torn ones, descriptors at the right message."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.vfio_user import protocol as p
from hba.vfio_user.framing import Stream, close_fds, send_message
from hba.vfio_user.protocol import ProtocolError
from tests.descriptors import open_fds
from tests.vfio_user.support import message


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def drain(stream: Stream) -> list[tuple[int, bytes, int]]:
    """Everything that is there: (id, body, number of descriptors)."""
    found = []
    while stream.receive() > 0:
        while (header := stream.next()) is not None:
            found.append((header[0], bytes(stream.body), len(stream.fds)))
            close_fds(stream.fds)
    return found


def test_several_messages_in_one_receive(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0])
    pair[1].sendall(message(1, b"a", message_id=1) + message(2, message_id=2) + message(3, b"ccc", message_id=3))
    assert stream.receive() == 16 * 3 + 4
    assert [h[0] for h in iter(stream.next, None)] == [1, 2, 3]
    assert stream.receive() == -1


def test_descriptors_belong_to_the_message_that_ends_the_receive(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0])
    before = open_fds()
    for number in (1, 2):
        send_message(pair[1], [message(2, b"x" * 32, message_id=number)])
    send_message(pair[1], [message(2, b"y" * 32, message_id=3)], [0, 1])
    send_message(pair[1], [message(2, b"z" * 32, message_id=4)])
    send_message(pair[1], [message(2, b"z" * 32, message_id=5)], [0])
    assert [(number, fds) for number, _, fds in drain(stream)] == [(1, 0), (2, 0), (3, 2), (4, 0), (5, 1)]
    assert open_fds() == before


def test_descriptors_of_a_torn_message(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0])
    whole = message(2, b"x" * 32, message_id=9)
    pair[1].sendall(message(2, message_id=8) + whole[:5])
    assert drain(stream) == [(8, b"", 0)]
    send_message(pair[1], [whole[5:20]], [0])
    assert drain(stream) == []
    send_message(pair[1], [whole[20:]], [1])
    assert drain(stream) == [(9, b"x" * 32, 2)]


def test_close_closes_descriptors_of_a_message_that_never_ended(pair: tuple[socket.socket, socket.socket]) -> None:
    before = open_fds()
    stream = Stream(pair[0])
    send_message(pair[1], [message(2, b"x" * 32)[:20]], [0, 1, 0])
    assert drain(stream) == []
    assert open_fds() == before + 3
    stream.close()
    assert open_fds() == before


def test_more_descriptors_than_a_message_may_carry(pair: tuple[socket.socket, socket.socket]) -> None:
    before = open_fds()
    stream = Stream(pair[0])
    send_message(pair[1], [message(2)], [0] * (p.MAX_MSG_FDS + 5))
    assert stream.receive() == 16
    assert stream.next() is not None
    assert stream.fds_cut
    assert len(stream.fds) <= p.MAX_MSG_FDS
    close_fds(stream.fds)
    assert open_fds() == before
    send_message(pair[1], [message(2)], [0])
    stream.receive()
    stream.next()
    assert (len(stream.fds), stream.fds_cut) == (1, False)
    close_fds(stream.fds)


def test_a_message_in_pieces_with_descriptors_each_does_not_use_ours_up(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    before = open_fds()
    stream = Stream(pair[0])
    for byte in message(2, b"x" * 100):
        send_message(pair[1], [bytes([byte])], [0] * 16)
        stream.receive()
        assert open_fds() <= before + 4 * p.MAX_MSG_FDS
    assert stream.next() is not None
    assert stream.fds_cut
    close_fds(stream.fds)
    assert open_fds() == before


@pytest.mark.parametrize("size", [0, 15, p.MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_impossible_sizes(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    stream = Stream(pair[0])
    pair[1].sendall(message(1, size=size))
    stream.receive()
    assert stream.ready
    with pytest.raises(ProtocolError, match=str(size)):
        stream.next()


def test_messages_of_the_largest_size_one_after_the_other(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0])
    body = os.urandom(p.MAX_MESSAGE - 16)
    data = (message(1, b"x", message_id=1) + message(2, body, message_id=2)) * 3
    pair[1].setblocking(False)
    sent, found = 0, []
    while len(found) < 6:
        try:
            sent += pair[1].send(data[sent:])
        except BlockingIOError:
            pass
        found += drain(stream)
    assert found == [(1, b"x", 0), (2, body, 0)] * 3


def test_pinned_bytes_stay_while_a_nested_receive_goes_on(pair: tuple[socket.socket, socket.socket]) -> None:
    limit = 4096
    stream = Stream(pair[0], limit)
    pair[1].sendall(message(1, b"keep me"))
    stream.receive()
    assert stream.next() is not None
    kept = stream.body
    stream.pinned = True
    for number in range(100):
        body = bytes([number]) * 4000
        pair[1].sendall(message(1, body, message_id=number))
        assert drain(stream) == [(number, body, 0)]
    stream.pinned = False
    assert bytes(kept) == b"keep me"


def test_a_full_buffer_is_not_the_end_of_the_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream(pair[0], 64)
    one = message(1, b"x" * 48)
    pair[1].setblocking(False)
    sent = 0
    while True:  # receive without ever parsing
        try:
            sent += pair[1].send(one * 100)
        except BlockingIOError:
            pass
        if (count := stream.receive()) <= 0:
            break
    assert count == -1
    assert stream.next() is not None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 3)), min_size=1, max_size=12),
    st.lists(st.integers(1, 90), max_size=20),
)
def test_any_stream_in_any_pieces(messages: list[tuple[bytes, int]], cuts: list[int]) -> None:
    """Bodies arrive whole and in order however the bytes are cut, and no descriptor is lost or kept."""
    before = open_fds()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Stream(ours)
    found: list[tuple[int, bytes, int]] = []
    pieces = iter(cuts)
    for number, (body, fds) in enumerate(messages):
        whole = message(5, body, message_id=number)
        first = True
        while whole:
            cut = next(pieces, len(whole))
            send_message(theirs, [whole[:cut]], [0] * fds if first else [])
            whole, first = whole[cut:], False
            if cut % 2:
                found += drain(stream)
    found += drain(stream)
    assert found == [(number, body, fds) for number, (body, fds) in enumerate(messages)]
    ours.close()
    theirs.close()
    assert open_fds() == before
