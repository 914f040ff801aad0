"""A harness that breaks, to see that the fuzzer finds it: a message that adds up, of which nothing is given."""

from __future__ import annotations

from hba.vfio_user.protocol import ProtocolError, decode_multi
from tests.fuzz.target import Target


def run(data: bytes) -> None:
    try:
        writes = decode_multi(memoryview(data))
    except ProtocolError:
        return
    assert len(writes) != 2


TARGET = Target("breakable", run)
