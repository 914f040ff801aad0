"""The kernel is played by a function that follows the header's pointers, as the ioctl does."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hba.clock import S
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import sysfs
from hba.storage.sg import (
    FROM_DEVICE,
    NO_DATA,
    TO_DEVICE,
    ScsiPassThrough,
    ScsiResult,
    SgIoHeader,
)
from hba.storage.workers import WorkerPool

NULL = "/dev/null"


def make(
    loop: EventLoop, workers: WorkerPool, kernel: Callable[[SgIoHeader], None], **options: bool
) -> ScsiPassThrough:
    return ScsiPassThrough(NULL, loop, workers, ioctl=lambda fd, header: kernel(header), **options)


def execute(
    loop: EventLoop,
    device: ScsiPassThrough,
    cdb: bytes,
    direction: int = NO_DATA,
    views: list[memoryview] | None = None,
) -> ScsiResult:
    results: list[ScsiResult] = []
    device.execute(cdb, direction, views or [], 30 * S, results.append)
    assert results == []
    while not results:
        loop.run_once(None)
    return results[0]


def test_the_header_has_the_kernels_layout() -> None:
    assert ctypes.sizeof(SgIoHeader) == 88
    offsets = {name: getattr(SgIoHeader, name).offset for name in ("dxferp", "cmdp", "sbp", "timeout", "usr_ptr")}
    assert offsets == {"dxferp": 16, "cmdp": 24, "sbp": 32, "timeout": 40, "usr_ptr": 56}
    assert (SgIoHeader.status.offset, SgIoHeader.host_status.offset, SgIoHeader.resid.offset) == (64, 68, 72)
    header = SgIoHeader(
        interface_id=ord("S"), dxfer_direction=-3, cmd_len=10, mx_sb_len=252, iovec_count=2, dxfer_len=7
    )
    assert bytes(header)[:16] == struct.pack("=iiBBHI", ord("S"), -3, 10, 252, 2, 7)


def test_data_from_the_device(loop: EventLoop, workers: WorkerPool) -> None:
    seen: dict[str, object] = {}

    def kernel(header: SgIoHeader) -> None:
        seen.update(cdb=ctypes.string_at(header.cmdp, header.cmd_len), timeout=header.timeout, length=header.dxfer_len)
        ctypes.memmove(header.dxferp, b"AAAABBBBBB", 10)
        header.resid = 2

    device = make(loop, workers, kernel)
    one, two = bytearray(4), bytearray(b"......")
    result = execute(loop, device, bytes.fromhex("12000000 0a00"), FROM_DEVICE, [memoryview(one), memoryview(two)])
    assert (one, two) == (b"AAAA", b"BBBB..")  # what did not come is not touched
    assert (result.status, result.sense, result.residual, result.error) == (0, b"", 2, None)
    assert seen == {"cdb": bytes.fromhex("120000000a00"), "timeout": 30000, "length": 10}
    device.close()
    device.close()


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_data_to_the_device(count: int, loop: EventLoop, workers: WorkerPool) -> None:
    got: list[bytes] = []

    def kernel(header: SgIoHeader) -> None:
        assert header.iovec_count == 0
        got.append(ctypes.string_at(header.dxferp, header.dxfer_len))

    device = make(loop, workers, kernel)
    data = bytes(index % 251 for index in range(count * 8))
    for source in (bytes(data), bytearray(data)):
        views = [memoryview(source)[start : start + 8] for start in range(0, len(data), 8)]
        execute(loop, device, bytes(10), TO_DEVICE, views)
    assert got == [data, data]
    device.close()


def test_a_withdrawn_command_touches_no_data_any_more(loop: EventLoop, workers: WorkerPool) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def kernel(header: SgIoHeader) -> None:
        entered.set()
        assert go_on.wait(10)
        ctypes.memset(header.dxferp, 0x41, header.dxfer_len)

    device = make(loop, workers, kernel)
    target = bytearray(8)
    results: list[ScsiResult] = []
    withdraw = device.execute(bytes(10), FROM_DEVICE, [memoryview(target)], S, results.append)
    assert entered.wait(10)
    withdraw()
    target.clear()  # nothing holds the memory any more; this raises BufferError otherwise
    go_on.set()
    while not results:
        loop.run_once(None)
    assert results[0].error is not None and results[0].error.errno == errno.ECANCELED
    assert device.errors == 0
    device.close()


def test_a_command_withdrawn_while_it_waits_is_not_sent(loop: EventLoop) -> None:
    workers = WorkerPool(loop, threads=1)
    entered, go_on = threading.Event(), threading.Event()
    sent: list[int] = []

    def kernel(header: SgIoHeader) -> None:
        sent.append(ctypes.string_at(header.cmdp, 1)[0])
        entered.set()
        assert go_on.wait(10)

    device = make(loop, workers, kernel)
    results: list[ScsiResult] = []
    device.execute(bytes([0x28]) + bytes(9), NO_DATA, [], S, results.append)
    withdraw = device.execute(bytes([0x2A]) + bytes(9), TO_DEVICE, [memoryview(bytearray(8))], S, results.append)
    assert entered.wait(10)
    withdraw()
    go_on.set()
    while len(results) < 2:
        loop.run_once(None)
    assert sent == [0x28]
    device.close()
    assert workers.shutdown()


def test_sense_comes_back(loop: EventLoop, workers: WorkerPool) -> None:
    sense = bytes.fromhex("70000200000000 0a00000000 3a00 000000000000")

    def kernel(header: SgIoHeader) -> None:
        ctypes.memmove(header.sbp, sense, len(sense))
        header.sb_len_wr = len(sense)
        header.status = 2
        header.driver_status = 8

    device = make(loop, workers, kernel)
    result = execute(loop, device, bytes(6))
    assert (result.status, result.sense, result.error) == (2, sense, None)
    device.close()


@pytest.mark.parametrize(
    ("sense", "residual"),
    [
        ("70000500000000 0a", 10),  # ILLEGAL REQUEST
        ("7205240000000000", 10),  # the same in descriptor format
        ("70000600000000 0a", 10),  # UNIT ATTENTION
        ("70000300000000 0a", 0),  # MEDIUM ERROR: what was read up to the bad block counts
        ("70000100000000 0a", 0),  # RECOVERED ERROR
        ("", 0),
    ],
)
def test_a_refused_command_moved_no_data(loop: EventLoop, workers: WorkerPool, sense: str, residual: int) -> None:
    """Also when the host adapter's driver counts no residual, as Linux's vmw_pvscsi does with an error."""
    raw = bytes.fromhex(sense)

    def kernel(header: SgIoHeader) -> None:
        ctypes.memmove(header.sbp, raw, len(raw))
        header.sb_len_wr, header.status = len(raw), 2

    device = make(loop, workers, kernel)
    data = bytearray(b"untouched!")
    result = execute(loop, device, bytes(6), FROM_DEVICE, [memoryview(data)])
    assert (result.sense, result.residual) == (raw, residual)
    assert data == (b"untouched!" if residual else bytes(10))
    device.close()


def test_it_comes_back_as_itself_only(
    tmp_path: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may come later than the kernel's news, and it may be another device's in between."""
    who = ["ours"]
    monkeypatch.setattr(sysfs, "identity", lambda node: who[0])
    name = tmp_path / "sg0"
    name.symlink_to(NULL)
    device = ScsiPassThrough(name, loop, workers, ioctl=lambda fd, header: None)
    events: list[str] = []
    device.on_event = events.append
    number = name.stat().st_rdev
    device._device_event("remove", number + 1)
    assert events == []
    device._device_event("remove", number)
    with pytest.raises(OSError):  # the device is let go of, and its number is kept
        os.read(device._fd, 1)
    with pytest.raises(StorageError, match="gone"):
        execute(loop, device, bytes(6))
    name.unlink()
    device._device_event("add", number)
    name.symlink_to(NULL)
    who[0] = "another"
    device._device_event("add", number)
    assert events == ["gone"]
    who[0] = "ours"
    device._look()
    assert events == ["gone", "back"]
    assert execute(loop, device, bytes(6)).error is None
    device.close()


def test_a_command_that_waited_while_the_device_was_let_go(loop: EventLoop, workers: WorkerPool) -> None:
    """Its worker finds a descriptor without a device behind it."""

    def kernel(header: SgIoHeader) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    device = make(loop, workers, kernel)
    result = execute(loop, device, bytes(6))
    assert result.error is not None and result.error.errno == errno.ENODEV
    assert not device.gone  # it may be back by now
    device.close()


def test_any_error_of_a_device_that_the_kernel_removes(
    loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(header: SgIoHeader) -> None:
        header.host_status = 7

    monkeypatch.setattr(sysfs, "is_there", lambda node: False)
    device = make(loop, workers, kernel)
    result = execute(loop, device, bytes(6))
    assert result.error is not None and result.error.errno == errno.ENODEV
    assert device.gone
    device.close()


@pytest.mark.parametrize(
    ("host", "driver", "code"), [(1, 0, errno.ENODEV), (3, 0, errno.ETIMEDOUT), (7, 0, errno.EIO), (0, 6, errno.EIO)]
)
def test_transport_errors(host: int, driver: int, code: int, loop: EventLoop, workers: WorkerPool) -> None:
    def kernel(header: SgIoHeader) -> None:
        header.host_status, header.driver_status = host, driver

    device = make(loop, workers, kernel)
    events: list[str] = []
    device.on_event = events.append
    result = execute(loop, device, bytes(6))
    assert result.error is not None and result.error.errno == code
    assert events == (["gone"] if code == errno.ENODEV else [])
    if code == errno.ENODEV:
        with pytest.raises(StorageError, match="gone"):
            execute(loop, device, bytes(6))
    device.close()


def test_read_only_refuses_what_could_change_the_medium(loop: EventLoop, workers: WorkerPool) -> None:
    device = make(loop, workers, lambda header: None, read_only=True)
    for opcode in (0x04, 0x0A, 0x2A, 0x41, 0x48, 0x8A, 0x93, 0x55, 0x5F):
        with pytest.raises(StorageError) as caught:
            execute(loop, device, bytes([opcode]) + bytes(15))
        assert caught.value.errno == errno.EROFS
    with pytest.raises(StorageError):
        execute(loop, device, bytes([0x28]) + bytes(9), TO_DEVICE, [memoryview(bytearray(512))])
    assert execute(loop, device, bytes([0x28]) + bytes(9)).error is None
    device.close()


def test_cdbs_that_cannot_be_sent(loop: EventLoop, workers: WorkerPool) -> None:
    device = make(loop, workers, lambda header: None)
    for length in (0, 5, 253, 4096):
        with pytest.raises(StorageError) as caught:
            device.execute(bytes(length), NO_DATA, [], S, lambda result: None)
        assert caught.value.errno == errno.EINVAL
    device.close()


def test_errors_at_opening(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    with pytest.raises(StorageError, match="lsscsi -g"):
        ScsiPassThrough(tmp_path / "sg9", loop, workers)
    with pytest.raises(StorageError, match="takes no SCSI commands"):
        ScsiPassThrough(NULL, loop, workers)


def test_a_real_device(loop: EventLoop, workers: WorkerPool) -> None:
    devices = sorted(Path("/dev").glob("sg[0-9]*"))
    if not devices:
        pytest.skip("no SCSI generic device here (/dev/sg*; `modprobe scsi_debug` makes one)")
    device = ScsiPassThrough(devices[0], loop, workers, read_only=True)
    target = bytearray(96)
    result = execute(loop, device, bytes.fromhex("120000006000"), FROM_DEVICE, [memoryview(target)])
    assert (result.error, result.status) == (None, 0)
    assert target[0] & 0xE0 == 0
    device.close()
