"""VFIO_USER_DEVICE_FEATURE (MIGRATION, MIG_DEVICE_STATE), VFIO_USER_MIG_DATA_READ and _WRITE."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from hba.vfio_user import migrating
from hba.vfio_user import migration as states
from hba.vfio_user import protocol as p
from hba.vfio_user.client import ReplyError
from hba.vfio_user.device import Done, RequestError
from hba.vfio_user.migration import ERROR, NAMES, RESUMING, RUNNING, STOP, STOP_COPY
from tests.vfio_user.support import BAR0, Bench, bench

SERVED = (RUNNING, STOP, STOP_COPY, RESUMING)
# vfio.h: PRE_COPY and the P2P states, which are not served; and numbers that are no state.
OTHERS = (ERROR, 5, 6, 7, 8, 0xABCD, 0xFFFFFFFF)
ARCS = {RUNNING: {STOP}, STOP: {RUNNING, STOP_COPY, RESUMING}, STOP_COPY: {STOP}, RESUMING: {STOP}}
SAVED = bytes(range(256)) * 100


@pytest.fixture
def it() -> Iterator[Bench]:
    with bench() as made:
        made.device.state = SAVED
        yield made


def refused(it: Bench, function: Callable[[], object]) -> int:
    with pytest.raises(ReplyError) as caught:
        it.call(function)
    return caught.value.errno


def go(it: Bench, state: int) -> None:
    if state == STOP and it.call(lambda: migrating.get_state(it.client)) == RESUMING:
        it.call(lambda: migrating.write_data(it.client, SAVED))
    it.call(lambda: migrating.set_state(it.client, state))


def feature(it: Bench, flags: int, data: bytes = b"", argsz: int = 4096) -> bytes:
    return it.client.request(p.DEVICE_FEATURE, p.FEATURE_BODY.encode(p.DeviceFeature(argsz, flags)) + data)


def answer(it: Bench, flags: int, data: bytes = b"", argsz: int = 4096) -> bytes:
    return it.call(lambda: feature(it, flags, data, argsz))


# -- features ---------------------------------------------------------------------------------------------------------


def test_what_there_is(it: Bench) -> None:
    assert it.call(lambda: migrating.feature(it.client, p.FEATURE_MIGRATION, p.FEATURE_GET)) == (1).to_bytes(
        8, "little"
    )
    assert it.call(lambda: migrating.get_state(it.client)) == RUNNING


@pytest.mark.parametrize(
    ("number", "operations"),
    [
        (p.FEATURE_MIGRATION, p.FEATURE_GET),
        (p.FEATURE_MIG_DEVICE_STATE, p.FEATURE_GET | p.FEATURE_SET),
        (p.FEATURE_DMA_LOGGING_START, p.FEATURE_SET),
        (p.FEATURE_DMA_LOGGING_STOP, p.FEATURE_SET),
        (p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET),
        (0, 0),
        (3, 0),
        (9, 0),
        (0xFFFF, 0),
    ],
)
def test_probes(it: Bench, number: int, operations: int) -> None:
    """A probe answers with its request when all that is asked for is there, and changes nothing."""
    for asked in (0, p.FEATURE_GET, p.FEATURE_SET, p.FEATURE_GET | p.FEATURE_SET):
        flags = number | p.FEATURE_PROBE | asked
        if operations and not asked & ~operations:
            assert answer(it, flags, b"data") == p.FEATURE_BODY.encode(p.DeviceFeature(4096, flags)) + b"data"
        else:
            assert refused(it, lambda flags=flags: feature(it, flags)) == errno.ENOTTY  # type: ignore[misc]
    assert it.device.calls == []


@pytest.mark.parametrize("operation", [0, p.FEATURE_GET | p.FEATURE_SET, 1 << 19, p.FEATURE_GET | 1 << 31])
def test_operations_that_are_none(it: Bench, operation: int) -> None:
    assert refused(it, lambda: feature(it, p.FEATURE_MIG_DEVICE_STATE | operation, bytes(8))) == errno.EINVAL


def test_a_feature_that_cannot_be_set(it: Bench) -> None:
    assert refused(it, lambda: feature(it, p.FEATURE_MIGRATION | p.FEATURE_SET, bytes(8))) == errno.EINVAL


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_request_that_is_too_short(it: Bench, size: int) -> None:
    assert refused(it, lambda: it.client.request(p.DEVICE_FEATURE, bytes(size))) == errno.EINVAL
    assert refused(it, lambda: it.client.request(p.MIG_DATA_READ, bytes(size))) == errno.EINVAL
    assert refused(it, lambda: feature(it, p.FEATURE_MIG_DEVICE_STATE | p.FEATURE_SET, bytes(size))) == errno.EINVAL


def test_no_room_for_the_answer(it: Bench) -> None:
    """`argsz` of the answer says how much is needed; the data is not in it."""
    for number in (p.FEATURE_MIGRATION, p.FEATURE_MIG_DEVICE_STATE):
        flags = number | p.FEATURE_GET
        assert answer(it, flags, argsz=15) == p.FEATURE_BODY.encode(p.DeviceFeature(16, flags))
        assert len(answer(it, flags, argsz=16)) == 16
    flags = p.FEATURE_MIG_DEVICE_STATE | p.FEATURE_SET
    assert refused(it, lambda: feature(it, flags, bytes(8), argsz=15)) == errno.EINVAL


def test_a_device_that_cannot_be_moved(it: Bench) -> None:
    it.device.state = None
    assert refused(it, lambda: feature(it, p.FEATURE_MIGRATION | p.FEATURE_GET)) == errno.ENOTTY
    assert refused(it, lambda: feature(it, p.FEATURE_MIGRATION | p.FEATURE_PROBE)) == errno.ENOTTY


def test_set_answers_with_its_request(it: Bench) -> None:
    data = p.MIGRATION_STATE_BODY.encode(p.MigrationState(STOP, 7))
    flags = p.FEATURE_MIG_DEVICE_STATE | p.FEATURE_SET
    assert answer(it, flags, data, argsz=99) == p.FEATURE_BODY.encode(p.DeviceFeature(99, flags)) + data


# -- the state machine ------------------------------------------------------------------------------------------------


def shortest(start: int, end: int) -> list[int] | None:
    """By breadth first: the arcs, with STOP_COPY at the ends only."""
    queue = deque([(start, [])])
    while queue:
        at, path = queue.popleft()
        if at == end:
            return path
        if at == STOP_COPY and path:
            continue
        queue += [(following, [*path, following]) for following in sorted(ARCS[at]) if following not in path]
    return None


@pytest.mark.parametrize(("start", "end"), list(product(SERVED, SERVED)))
def test_every_way(it: Bench, start: int, end: int) -> None:
    """What is done on the way is what its arcs say, in their order."""
    go(it, start)
    if start == RESUMING:
        it.call(lambda: migrating.write_data(it.client, SAVED))
    it.device.calls.clear()
    it.call(lambda: migrating.set_state(it.client, end))
    assert it.call(lambda: migrating.get_state(it.client)) == end
    path = shortest(start, end)
    assert path is not None
    wanted: list[tuple[object, ...]] = []
    for before, after in zip([start, *path], path, strict=False):
        wanted += {
            (RUNNING, STOP): [("stop",)],
            (STOP, RUNNING): [("resume",)],
            (STOP, STOP_COPY): [("save",)],
            (RESUMING, STOP): [("restore", len(SAVED))],
        }.get((before, after), [])
    assert it.device.calls == wanted


@pytest.mark.parametrize(("start", "end"), list(product(SERVED, OTHERS)))
def test_states_that_cannot_be_gone_to(it: Bench, start: int, end: int) -> None:
    go(it, start)
    it.device.calls.clear()
    assert refused(it, lambda: migrating.set_state(it.client, end)) == errno.EINVAL
    assert it.call(lambda: migrating.get_state(it.client)) == start
    assert it.device.calls == []


def test_a_bad_state_is_an_error_and_a_reset_leads_out_of_it(it: Bench) -> None:
    go(it, RESUMING)
    assert refused(it, lambda: migrating.set_state(it.client, RUNNING)) == errno.EINVAL
    assert it.call(lambda: migrating.get_state(it.client)) == ERROR
    for state in SERVED:
        assert refused(it, lambda state=state: migrating.set_state(it.client, state)) == errno.EINVAL  # type: ignore[misc]
    it.call(it.client.reset)
    assert it.call(lambda: migrating.get_state(it.client)) == RUNNING
    go(it, STOP_COPY)


@pytest.mark.parametrize("state", SERVED)
def test_a_reset_leads_to_running(it: Bench, state: int) -> None:
    go(it, state)
    it.call(it.client.reset)
    assert it.call(lambda: migrating.get_state(it.client)) == RUNNING


def test_a_device_that_cannot_stop_runs_on(it: Bench) -> None:
    it.device.on_stop = lambda done: done(RequestError(errno.EBUSY, "at work"))
    assert refused(it, lambda: migrating.set_state(it.client, STOP_COPY)) == errno.EBUSY
    assert it.call(lambda: migrating.get_state(it.client)) == RUNNING


def test_a_device_that_cannot_save_stays_stopped(it: Bench) -> None:
    def save() -> bytes:
        raise RequestError(errno.EOPNOTSUPP, "not this one")

    it.device.save = save  # type: ignore[method-assign]
    assert refused(it, lambda: migrating.set_state(it.client, STOP_COPY)) == errno.EOPNOTSUPP
    assert it.call(lambda: migrating.get_state(it.client)) == STOP


# -- quiesce ----------------------------------------------------------------------------------------------------------


def test_the_answer_comes_when_the_state_is_reached(it: Bench) -> None:
    """Whatever is behind in the socket waits, in its order; the loop does not spin meanwhile."""
    waiting: list[Done] = []
    it.device.on_stop = waiting.append
    stop = p.MIGRATION_STATE_BODY.encode(p.MigrationState(STOP, 0))
    request = p.FEATURE_BODY.encode(p.DeviceFeature(16, p.FEATURE_MIG_DEVICE_STATE | p.FEATURE_SET)) + stop
    it.client.send(p.DEVICE_FEATURE, request)
    it.client.send(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0)))
    it.client.send(p.REGION_READ, p.REGION_ACCESS_BODY.encode(p.RegionAccess(0, BAR0, 4)))
    it.turn()
    assert len(waiting) == 1
    assert it.replies() == []
    assert it.device.calls == [("stop",)]
    it.loop.call_soon(lambda: waiting[0](None))
    it.turn()
    assert [header[1] for header, _ in it.replies()] == [p.DEVICE_FEATURE, p.DEVICE_GET_INFO, p.REGION_READ]


def test_a_client_that_leaves_while_the_device_stops(it: Bench) -> None:
    waiting: list[Done] = []
    it.device.on_stop = waiting.append
    stop = p.MIGRATION_STATE_BODY.encode(p.MigrationState(STOP, 0))
    request = p.FEATURE_BODY.encode(p.DeviceFeature(16, p.FEATURE_MIG_DEVICE_STATE | p.FEATURE_SET)) + stop
    it.client.send(p.DEVICE_FEATURE, request)
    it.turn()
    it.client.close()
    it.turn()
    waiting[0](None)
    it.turn()
    assert it.device.calls[-1] == ("disconnected",)
    assert not it.engine.connected


def test_memory_in_use_is_unmapped_when_it_is_not_any_more(it: Bench) -> None:
    """The answer says that nobody touches it, so it waits for the requests that are under way."""
    waiting: list[Done] = []
    it.device.on_stop = waiting.append
    it.call(lambda: it.client.dma_map(0, 0x1000))
    it.device.busy = True
    for flags, iova, size in ((0, 0, 0x1000), (p.DMA_UNMAP_FLAG_ALL, 0, 0)):
        it.device.calls.clear()
        body = p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, flags, iova, size))
        it.client.send(p.DMA_UNMAP, body)
        it.turn()
        assert it.replies() == [] and it.device.calls == [("rest",)]
        waiting.pop()(None)
        it.turn()
        assert [reply for _, reply in it.replies()] == [body]
        assert it.device.calls == [("rest",), ("release",)] and not it.device.maps


def test_memory_that_stays_in_use_stays_mapped(it: Bench) -> None:
    it.call(lambda: it.client.dma_map(0, 0x1000))
    it.device.busy = True
    it.device.on_stop = lambda done: done(RequestError(errno.EBUSY, "a store hangs"))
    assert refused(it, lambda: it.client.dma_unmap(0, 0x1000)) == errno.EBUSY
    assert it.device.maps and it.device.calls[-1] == ("release",)


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*SERVED, ERROR])
def test_data_goes_in_its_states_only(it: Bench, state: int) -> None:
    if state == ERROR:
        it.device.state = b""
        go(it, RESUMING)
        refused(it, lambda: migrating.set_state(it.client, STOP))
    else:
        go(it, state)
    if state == STOP_COPY:
        assert it.call(lambda: migrating.read_data(it.client, 100)) == SAVED[:100]
    else:
        assert refused(it, lambda: migrating.read_data(it.client, 100)) == errno.EINVAL
    if state == RESUMING:
        it.call(lambda: migrating.write_data(it.client, b"data"))
    else:
        assert refused(it, lambda: migrating.write_data(it.client, b"data")) == errno.EINVAL


@pytest.mark.parametrize("piece", [1 << 10, 12_800, 25_599, 25_600, 25_601, 1 << 20])
def test_a_state_is_a_stream(it: Bench, piece: int) -> None:
    """Less than was asked for is the end of it; what ends at a piece's end has an empty one behind it."""
    state = it.call(lambda: migrating.save(it.client, piece))
    assert state == SAVED
    it.device.state = b"another"
    it.call(lambda: migrating.restore(it.client, state, piece))
    assert it.device.state == SAVED


def test_a_state_can_be_read_again_from_its_start(it: Bench) -> None:
    for _ in range(2):
        assert it.call(lambda: migrating.save(it.client)) == SAVED
        go(it, STOP)


@pytest.mark.parametrize(
    ("command", "request_", "data"),
    [
        (p.MIG_DATA_READ, p.MigrationData(8 + p.MAX_DATA_XFER + 1, p.MAX_DATA_XFER + 1), b""),
        (p.MIG_DATA_READ, p.MigrationData(8 + 99, 100), b""),
        (p.MIG_DATA_READ, p.MigrationData(0xFFFFFFFF, 0xFFFFFFFF), b""),
        (p.MIG_DATA_WRITE, p.MigrationData(8 + 99, 100), bytes(100)),
        (p.MIG_DATA_WRITE, p.MigrationData(8 + 100, 100), bytes(99)),
        (p.MIG_DATA_WRITE, p.MigrationData(8 + 100, 100), bytes(101)),
        (p.MIG_DATA_WRITE, p.MigrationData(8, 0xFFFFFFFF), b""),
    ],
)
def test_sizes_that_do_not_fit(it: Bench, command: int, request_: p.MigrationData, data: bytes) -> None:
    go(it, STOP_COPY if command == p.MIG_DATA_READ else RESUMING)
    body = p.MIGRATION_DATA_BODY.encode(request_) + data
    assert refused(it, lambda: it.client.request(command, body)) == errno.EINVAL


def test_no_more_than_the_client_takes_at_a_time() -> None:
    with bench(negotiate=False) as it:
        it.device.state = SAVED
        it.call(lambda: it.client.version(p.Capabilities(max_data_xfer_size=4)))
        go(it, STOP_COPY)
        assert it.call(lambda: migrating.read_data(it.client, 4)) == SAVED[:4]
        assert refused(it, lambda: migrating.read_data(it.client, 5)) == errno.EINVAL


def test_more_than_any_state_is_not_kept(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "MAX_STATE", 1000)
    go(it, RESUMING)
    it.call(lambda: migrating.write_data(it.client, bytes(1000)))
    assert refused(it, lambda: migrating.write_data(it.client, bytes(1))) == errno.ENOSPC


def test_names_are_those_of_the_header_file() -> None:
    assert NAMES == {0: "ERROR", 1: "STOP", 2: "RUNNING", 3: "STOP_COPY", 4: "RESUMING"}
