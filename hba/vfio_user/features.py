"""DEVICE_FEATURE, MIG_DATA_READ and MIG_DATA_WRITE: migration and the log of pages the device has written."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hba.vfio_user import protocol as p
from hba.vfio_user.device import Device, Done, RequestError
from hba.vfio_user.migration import Migration
from hba.vfio_user.plan import Plan, check_argsz
from hba.vfio_user.protocol import ProtocolError

PAGE_SIZE = 4096  # bytes; how finely writes are logged

_OPERATIONS = {
    p.FEATURE_MIGRATION: p.FEATURE_GET,
    p.FEATURE_MIG_DEVICE_STATE: p.FEATURE_GET | p.FEATURE_SET,
    p.FEATURE_DMA_LOGGING_START: p.FEATURE_SET,
    p.FEATURE_DMA_LOGGING_STOP: p.FEATURE_SET,
    p.FEATURE_DMA_LOGGING_REPORT: p.FEATURE_GET,
}


class Features:
    """The features of one device, for one client."""

    def __init__(self, device: Device, migration: Migration, max_transfer: int) -> None:
        """`max_transfer`: bytes of data in one message that both sides can take."""
        self._device = device
        self._migration = migration
        self._max_transfer = max_transfer

    def feature(self, body: memoryview, _: list[int]) -> Plan:
        request = p.FEATURE_BODY.decode(body)
        number, operation = request.flags & p.FEATURE_MASK, request.flags & ~p.FEATURE_MASK
        data = body[p.FEATURE_BODY.size :]
        served = _OPERATIONS.get(number, 0) if self._device.can_migrate else 0
        if not served:
            raise RequestError(errno.ENOTTY, f"DEVICE_FEATURE: there is no feature {number}")
        if operation & p.FEATURE_PROBE:
            if operation & ~(p.FEATURE_PROBE | served):
                raise RequestError(errno.ENOTTY, f"DEVICE_FEATURE: feature {number} cannot be got or set like that")
            return Plan(bytes(body))
        if operation not in (p.FEATURE_GET, p.FEATURE_SET) or not operation & served:
            raise RequestError(errno.EINVAL, f"DEVICE_FEATURE: flags 0x{request.flags:x} of feature {number}")
        if number == p.FEATURE_MIGRATION:
            return self._answer(request, lambda: p.MIGRATION_FLAGS_BODY.encode(p.MigrationFlags(p.MIGRATION_STOP_COPY)))
        if number == p.FEATURE_MIG_DEVICE_STATE:
            return self._get_state(request) if operation == p.FEATURE_GET else self._set_state(request, data)
        if number == p.FEATURE_DMA_LOGGING_REPORT:
            return self._report(request, data)
        return self._log(request, data, start=number == p.FEATURE_DMA_LOGGING_START)

    def _answer(self, request: p.DeviceFeature, make: Callable[[], bytes], size: int = 8) -> Plan:
        """The reply to a GET whose data will have `size` bytes; without them when the client has no room."""
        needed = p.FEATURE_BODY.size + size
        head = p.FEATURE_BODY.encode(p.DeviceFeature(needed, request.flags))
        return Plan(head) if request.argsz < needed else Plan(None, lambda: head + make())

    # -- migration ------------------------------------------------------------------------------------------------

    def _get_state(self, request: p.DeviceFeature) -> Plan:
        def make() -> bytes:
            return p.MIGRATION_STATE_BODY.encode(p.MigrationState(self._migration.state, p.NO_DATA_FD))

        return self._answer(request, make)

    def _set_state(self, request: p.DeviceFeature, data: memoryview) -> Plan:
        check_argsz("DEVICE_FEATURE MIG_DEVICE_STATE", request.argsz, p.FEATURE_BODY.size + len(data))
        wanted = p.MIGRATION_STATE_BODY.decode(data)

        def begin(done: Done) -> None:
            self._migration.change(wanted.device_state, done)

        return Plan(p.FEATURE_BODY.encode(request) + bytes(data), begin=begin)

    def read_data(self, body: memoryview, _: list[int]) -> Plan:
        request = p.MIGRATION_DATA_BODY.decode(body)
        self._check_transfer("MIG_DATA_READ", request)

        def act() -> bytes:
            data = self._migration.read(request.size)
            size = p.MIGRATION_DATA_BODY.size + len(data)
            return p.MIGRATION_DATA_BODY.encode(p.MigrationData(size, len(data))) + data

        return Plan(None, act)

    def write_data(self, body: memoryview, _: list[int]) -> Plan:
        request = p.MIGRATION_DATA_BODY.decode(body)
        data = body[p.MIGRATION_DATA_BODY.size :]
        if len(data) != request.size:
            raise ProtocolError(f"MIG_DATA_WRITE of {request.size} bytes with {len(data)} bytes of data")
        self._check_transfer("MIG_DATA_WRITE", request)
        return Plan(b"", lambda: self._migration.write(data))

    def _check_transfer(self, what: str, request: p.MigrationData) -> None:
        if request.size > self._max_transfer:
            raise RequestError(errno.EINVAL, f"{what} of {request.size} bytes, at most {self._max_transfer}")
        check_argsz(what, request.argsz, p.MIGRATION_DATA_BODY.size + request.size)

    # -- the log of written pages ---------------------------------------------------------------------------------

    def _log(self, request: p.DeviceFeature, data: memoryview, start: bool) -> Plan:
        what = f"DEVICE_FEATURE DMA_LOGGING_{'START' if start else 'STOP'}"
        check_argsz(what, request.argsz, p.FEATURE_BODY.size + len(data))
        if not start:  # what was logged does not matter any more
            return Plan(p.FEATURE_BODY.encode(request) + bytes(data), self._device.stop_logging_dma)
        control = p.LOGGING_CONTROL_BODY.decode(data)
        ranges = data[p.LOGGING_CONTROL_BODY.size :]
        if len(ranges) != control.num_ranges * p.LOGGING_RANGE.size:
            raise ProtocolError(f"{what}: {len(ranges)} bytes do not hold {control.num_ranges} ranges")
        if not _is_power_of_two(control.page_size):
            raise RequestError(errno.EINVAL, f"{what}: a page size of {control.page_size} bytes")
        for iova, length in p.LOGGING_RANGE.iter_unpack(ranges):
            if not length or iova + length > 1 << 64:
                raise RequestError(errno.EINVAL, f"{what}: there is no range 0x{iova:x}+0x{length:x}")
        # All memory is logged, whichever part the client asks for: that is allowed, and costs no more.
        chosen = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(PAGE_SIZE, control.num_ranges, control.reserved))
        return Plan(p.FEATURE_BODY.encode(request) + chosen + bytes(ranges), begin=self._device.log_dma)

    def _report(self, request: p.DeviceFeature, data: memoryview) -> Plan:
        what = "DEVICE_FEATURE DMA_LOGGING_REPORT"
        report = p.LOGGING_REPORT_BODY.decode(data)
        size = bitmap_size(what, report.iova, report.length, report.page_size, self._max_transfer)

        def make() -> bytes:
            bitmap = self._device.dirty_bitmap(report.iova, report.length, report.page_size)
            return p.LOGGING_REPORT_BODY.encode(report) + bitmap

        return self._answer(request, make, p.LOGGING_REPORT_BODY.size + size)


def bitmap_size(what: str, iova: int, length: int, page_size: int, most: int) -> int:
    """Bytes of the bitmap of a range: whole 64-bit words. Raises `RequestError(EINVAL)`."""
    possible = _is_power_of_two(page_size) and not iova % min(page_size, PAGE_SIZE)
    if not possible or not length or iova + length > 1 << 64:
        raise RequestError(errno.EINVAL, f"{what}: range 0x{iova:x}+0x{length:x}, pages of {page_size} bytes")
    pages = -(-length // page_size)
    size = -(-pages // 64) * 8
    if size > most:
        raise RequestError(errno.EINVAL, f"{what}: a bitmap of {size} bytes, at most {most}; ask for less at a time")
    return size


def _is_power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)
