"""The client's side of migration: states, the device's own state as bytes, the log of pages it has written.

    with VfioUserClient.connect(socket) as client:
        client.version()
        ...
        state = save(client)  # the device is stopped now

What a virtual machine monitor does around it (memory, processors, the way to the other side) is its own matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from hba.vfio_user import migration as states
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected, VfioUserClient

PIECE = 64 << 10  # bytes of state in one message


def feature(
    client: VfioUserClient, number: int, operation: int, data: bytes = b"", *, room: int = p.MAX_DATA_XFER
) -> bytes:
    """DEVICE_FEATURE: what it answers behind the flags. Raises `ReplyError`: ENOTTY for a feature that is not there."""
    flags = number | operation
    body = client.request(p.DEVICE_FEATURE, p.FEATURE_BODY.encode(p.DeviceFeature(room, flags)) + data)
    if p.FEATURE_BODY.decode(body).flags != flags:
        raise Disconnected("the reply to DEVICE_FEATURE is about something else")
    return body[p.FEATURE_BODY.size :]


def get_state(client: VfioUserClient) -> int:
    """The migration state the device is in (`hba.vfio_user.migration`)."""
    answer = feature(client, p.FEATURE_MIG_DEVICE_STATE, p.FEATURE_GET)
    return p.MIGRATION_STATE_BODY.decode(answer).device_state


def set_state(client: VfioUserClient, state: int) -> None:
    """Have it go to another one. Raises `ReplyError` when it cannot; it may have come a part of the way."""
    data = p.MIGRATION_STATE_BODY.encode(p.MigrationState(state, p.NO_DATA_FD))
    feature(client, p.FEATURE_MIG_DEVICE_STATE, p.FEATURE_SET, data)


def read_data(client: VfioUserClient, size: int = PIECE) -> bytes:
    """MIG_DATA_READ: the next bytes of the state; fewer than `size` at its end."""
    request = p.MigrationData(p.MIGRATION_DATA_BODY.size + size, size)
    body = client.request(p.MIG_DATA_READ, p.MIGRATION_DATA_BODY.encode(request))
    head, data = p.MIGRATION_DATA_BODY.decode(body), body[p.MIGRATION_DATA_BODY.size :]
    if head.size != len(data) or head.argsz != len(body) or head.size > size:
        raise Disconnected(f"MIG_DATA_READ of {size} bytes was answered with {len(data)}, said to be {head.size}")
    return data


def write_data(client: VfioUserClient, data: bytes) -> None:
    """MIG_DATA_WRITE of one piece."""
    request = p.MigrationData(p.MIGRATION_DATA_BODY.size + len(data), len(data))
    client.request(p.MIG_DATA_WRITE, p.MIGRATION_DATA_BODY.encode(request) + data)


def save(client: VfioUserClient, piece: int = PIECE) -> bytes:
    """Stop the device and read its state; it is in STOP_COPY then."""
    set_state(client, states.STOP_COPY)
    parts: list[bytes] = []
    while not parts or len(parts[-1]) == piece:
        parts.append(read_data(client, piece))
    return b"".join(parts)


def restore(client: VfioUserClient, state: bytes, piece: int = PIECE) -> None:
    """Make the device that which `state` is of; it runs then."""
    set_state(client, states.RESUMING)
    for at in range(0, len(state), piece):
        write_data(client, state[at : at + piece])
    set_state(client, states.RUNNING)


def start_logging(client: VfioUserClient, page_size: int = 4096, ranges: Sequence[tuple[int, int]] = ()) -> int:
    """Have the pages the device writes logged; the page size it has chosen."""
    control = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(page_size, len(ranges), 0))
    data = control + b"".join(p.LOGGING_RANGE.pack(iova, length) for iova, length in ranges)
    answer = feature(client, p.FEATURE_DMA_LOGGING_START, p.FEATURE_SET, data)
    return p.LOGGING_CONTROL_BODY.decode(answer).page_size


def stop_logging(client: VfioUserClient) -> None:
    control = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(4096, 0, 0))
    feature(client, p.FEATURE_DMA_LOGGING_STOP, p.FEATURE_SET, control)


def dirty_pages(client: VfioUserClient, iova: int, length: int, page_size: int = 4096) -> list[int]:
    """The bus addresses of the pages in a range that were written since they were asked for last."""
    report = p.LOGGING_REPORT_BODY.encode(p.LoggingReport(iova, length, page_size))
    answer = feature(client, p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET, report)
    bits = int.from_bytes(answer[p.LOGGING_REPORT_BODY.size :], "little")
    return [iova + at * page_size for at in range(-(-length // page_size)) if bits >> at & 1]
