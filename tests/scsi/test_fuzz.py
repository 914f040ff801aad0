"""Whatever a guest sends: no exception, one ending, a legal status, never more bytes than there is room for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.dma import DmaBuffer
from hba.scsi.command import Command
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.sense import INTERNAL_TARGET_FAILURE, condition_of
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.task import ACA, DATA_IN, DATA_NONE, DATA_OUT, HEAD_OF_QUEUE, ORDERED, SIMPLE, Task
from hba.storage.memory import MemoryBackend
from tests.scsi.util import disk, settle

LEGAL = {0x00, 0x02, 0x18, 0x28}
UNITS = ("disk", "absent", "removable", "read-only", "big blocks", "protected", "cdrom", "enclosure")


def build(kind: str) -> DeviceServer:
    unit: DeviceServer
    if kind == "disk":
        unit = disk(1 << 18)
    elif kind == "absent":
        unit = disk(absent=True, removable=True)
    elif kind == "removable":
        unit = disk(1 << 18, removable=True, thin=False, write_cache=False)
    elif kind == "read-only":
        unit = disk(1 << 18, read_only=True)
    elif kind == "big blocks":
        unit = disk(1 << 18, block_size=4096)
    elif kind == "protected":
        unit = disk(1 << 14, protection=True)
    elif kind == "cdrom":
        unit = Cdrom(MemoryBackend(1 << 18), Identity(), VirtualClock())
    else:
        unit = Enclosure(Identity(), VirtualClock())
    settle(unit)
    return unit


def declared(kind: str) -> list[Command]:
    return list(build(kind).commands)


@st.composite
def near_misses(draw: st.DrawFn, kind: str) -> bytes:
    """CDBs of declared commands with their evaluated bits set at random, small numbers preferred."""
    command = draw(st.sampled_from(declared(kind)))
    fill = draw(
        st.one_of(
            st.binary(min_size=command.length, max_size=command.length),
            st.lists(st.sampled_from((0, 0, 0, 1, 2, 8, 24, 255)), min_size=command.length, max_size=command.length),
        )
    )
    cdb = bytearray(byte & mask for byte, mask in zip(bytes(fill), command.usage, strict=True))
    cdb[0] = command.opcode
    if command.service_action is not None:
        cdb[1] = cdb[1] & ~0x1F | command.service_action
    return bytes(cdb)


def check(
    unit: DeviceServer, cdb: bytes, direction: int, size: int, attribute: int, initiator: int, content: bytes = b""
) -> None:
    """One command with room for `size` bytes, which begin with `content`, between two guards."""
    guard = bytearray(b"\x5a" * (size + 64))
    memory = memoryview(guard)[32 : 32 + size]
    memory[: len(content)] = content[:size]
    buffer = None if direction == DATA_NONE else DmaBuffer.of(memory[: size // 2], memory[size // 2 :])
    if direction == DATA_OUT and buffer is not None:
        buffer = DmaBuffer(buffer.segments, [view.toreadonly() for view in buffer.views], buffer.length)
    task = Task(cdb, direction, buffer)
    task.attribute = attribute
    task.initiator = initiator
    ended: list[Task] = []
    task.done = ended.append
    if unit.execute([task]):
        ended.append(task)
    assert isinstance(unit.clock, VirtualClock)
    for _ in range(20_000):
        if ended:
            break
        unit.clock.advance(1)
    unit.clock.advance(1)
    assert ended == [task]
    assert task.status in LEGAL, hex(task.status)
    assert 0 <= task.transferred <= size
    assert bool(task.sense) == (task.status == 0x02)
    assert condition_of(task.sense) != INTERNAL_TARGET_FAILURE, cdb.hex()
    assert guard[:32] == guard[-32:] == b"\x5a" * 32


@pytest.mark.parametrize("kind", UNITS)
def test_any_cdb_ends_exactly_once(kind: str) -> None:
    unit = build(kind)

    @settings(max_examples=60, deadline=None)
    @given(
        st.binary(max_size=32),
        st.sampled_from((DATA_NONE, DATA_IN, DATA_OUT)),
        st.integers(0, 2048),
        st.sampled_from((SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE, ACA, 0, 255)),
        st.sampled_from((7, 7, 6)),
    )
    def search(cdb: bytes, direction: int, size: int, attribute: int, initiator: int) -> None:
        check(unit, cdb, direction, size, attribute, initiator)

    search()


@pytest.mark.parametrize("kind", UNITS)
def test_declared_commands_survive_every_field(kind: str) -> None:
    unit = build(kind)

    @settings(max_examples=120, deadline=None)
    @given(
        near_misses(kind),
        st.sampled_from((DATA_NONE, DATA_IN, DATA_OUT, DATA_OUT)),
        st.sampled_from((0, 4, 8, 16, 24, 36, 512, 516, 1024, 4096)),
        st.sampled_from((SIMPLE, SIMPLE, ORDERED)),
        st.sampled_from((7, 7, 6)),
    )
    def search(cdb: bytes, direction: int, size: int, attribute: int, initiator: int) -> None:
        check(unit, cdb, direction, size, attribute, initiator)

    search()


@pytest.mark.parametrize("kind", UNITS)
def test_parameter_lists_survive_every_content(kind: str) -> None:
    unit = build(kind)
    takers = [
        "150000001800", "151100001800", "5511000000000018", "5f00000000000000001800", "5f01010000000000001800",
        "5f0700000000000000300000", "4200000000000000180000", "8300000000000000000000000050", "1d10000054",
        "0410000000", "48010000000000020400", "a40f000000000000000c", "3b0a000000000000180000",
        "5f04030000000000001800",
    ]  # fmt: skip

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(takers),
        st.one_of(
            st.binary(max_size=520), st.lists(st.sampled_from((0, 0, 0, 1, 4, 8, 16, 24, 32, 0xE4)), max_size=200)
        ),
    )
    def search(text: str, content: bytes | list[int]) -> None:
        data = bytearray(content)
        task = Task(bytes.fromhex(text).ljust(16, b"\x00"), DATA_OUT, DmaBuffer.of(data))
        ended: list[Task] = []
        task.done = ended.append
        if unit.execute([task]):
            ended.append(task)
        assert isinstance(unit.clock, VirtualClock)
        unit.clock.advance(1)
        for _ in range(20_000):
            if ended:
                break
            unit.clock.advance(1)
        assert ended == [task]
        assert task.status in LEGAL
        assert condition_of(task.sense) != INTERNAL_TARGET_FAILURE, (text, bytes(data).hex())

    search()
