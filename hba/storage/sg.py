"""A SCSI device of this machine that is given the guest's own commands: SG_IO pass-through.

Not a `Backend`: it takes command descriptor blocks, not reads and writes, and answers with status and sense data.

Sources: scsi/sg.h (sg_io_hdr_t, interface version 3), the Linux SCSI Generic HOWTO, chapter "SG_IO ioctl".
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from hba.clock import MS, S, Timer
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import sysfs
from hba.storage.udev import DeviceWatch, let_go, watch_devices
from hba.storage.vectors import cut, length_of
from hba.storage.workers import WorkerPool

SG_IO = 0x2285
SG_GET_VERSION_NUM = 0x2282
INTERFACE = ord("S")

NO_DATA = -1  # SG_DXFER_NONE
TO_DEVICE = -2  # SG_DXFER_TO_DEV
FROM_DEVICE = -3  # SG_DXFER_FROM_DEV

DID_OK, DID_NO_CONNECT, DID_BUS_BUSY, DID_TIME_OUT = 0x00, 0x01, 0x02, 0x03  # host_status
DID_TRANSPORT_DISRUPTED = 0x0E
DRIVER_SENSE = 0x08  # driver_status: there is sense data, which is no error of the driver's

CHECK_CONDITION = 0x02  # status
# Sense keys of commands that moved no data: NOT READY, ILLEGAL REQUEST, UNIT ATTENTION, DATA PROTECT.
_NO_DATA_MOVED = frozenset((0x2, 0x5, 0x6, 0x7))

RETRY = 2 * S  # how often a device that has gone is looked for

MAX_SENSE = 252  # bytes; SPC-5 4.4.1: sense data is not longer
MAX_CDB = 252

# Commands that change nothing, by operation code: what a device opened read-only is given (SPC-5, SBC-4, MMC-6).
_READS = frozenset(
    {0x00, 0x03, 0x08, 0x12, 0x1A, 0x1B, 0x1C, 0x23, 0x25, 0x28, 0x2B, 0x2F, 0x34, 0x35, 0x37, 0x3C, 0x42, 0x43, 0x44}
    | {0x45, 0x46, 0x4A, 0x4B, 0x4D, 0x4E, 0x51, 0x52, 0x5A, 0x5C, 0x5E, 0x88, 0x8F, 0x90, 0x91, 0x9E, 0xA0, 0xA3}
    | {0xA4, 0xA8, 0xAC, 0xAD, 0xAF, 0xB7, 0xB9, 0xBD, 0xBE}
)


class SgIoHeader(ctypes.Structure):
    """struct sg_io_hdr"""

    _fields_ = [
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


Ioctl = Callable[[int, SgIoHeader], None]


class ScsiResult:
    """What became of a command.

    `status`    SAM-6 status byte; meaningless with `error`.
    `sense`     sense data, empty if there is none.
    `residual`  bytes of the buffer that were not transferred.
    `error`     None, or why the command never got an answer: ENODEV (device gone), ETIMEDOUT, EBUSY, EROFS, EIO.
    """

    __slots__ = ("error", "residual", "sense", "status")

    def __init__(self, status: int, sense: bytes, residual: int, error: StorageError | None = None) -> None:
        self.status = status
        self.sense = sense
        self.residual = residual
        self.error = error


class ScsiPassThrough:
    """The SCSI device at `path`: a generic one (/dev/sg1), or a disk's or optical drive's block device.

    `read_only`: commands that could change the medium are refused with EROFS. Raises `StorageError`.
    """

    kind = "scsi"

    def __init__(
        self,
        path: Path | str,
        loop: EventLoop,
        workers: WorkerPool,
        *,
        read_only: bool = False,
        ioctl: Ioctl | None = None,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.gone = False
        self.limits = sysfs.Limits(0, 0)
        self.device_type: int | None = None
        self.on_event: Callable[[str], None] | None = None
        self.commands = 0
        self.bytes = 0
        self.errors = 0
        self._loop = loop
        self._workers = workers
        self._ioctl = ioctl if ioctl is not None else _sg_io
        self._probe = ioctl is None
        self._in_flight = 0
        self._closed = False
        self._away = False  # gone, and let go of: what comes to our path may be it
        self._timer: Timer | None = None
        self._fd = self._open()
        self._node = os.fstat(self._fd)
        self._identity = sysfs.identity(self._node)
        self.limits = sysfs.limits(self._node)
        self.device_type = sysfs.device_type(self._node)
        subsystem = "block" if stat.S_ISBLK(self._node.st_mode) else "scsi_generic"
        self._watch: DeviceWatch | None = watch_devices(loop, self._device_event, subsystem)

    def _open(self) -> int:
        path = self.path
        try:
            fd = os.open(path, (os.O_RDONLY if self.read_only else os.O_RDWR) | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            advice = {
                errno.ENOENT: "there is no such device; `lsscsi -g` lists those there are",
                errno.EACCES: "no permission; add yourself to the group that owns it (disk, cdrom)",
                errno.EROFS: "it is read-only; set read_only = true",
                errno.EBUSY: "another program has it for itself",
            }.get(problem.errno or 0, problem.strerror)
            raise StorageError(f"{path}: cannot open it: {advice}", problem.errno or 0) from None
        if self._probe:
            try:
                (version,) = struct.unpack("i", fcntl.ioctl(fd, SG_GET_VERSION_NUM, bytes(4)))
            except OSError:
                version = 0
            if version < 30000:
                os.close(fd)
                raise StorageError(
                    f'{path} takes no SCSI commands (SG_IO); use a SCSI device, or kind = "host" for its blocks',
                    errno.ENOTTY,
                )
        return fd

    def execute(
        self,
        cdb: bytes,
        direction: int,
        views: Sequence[memoryview],
        timeout: int,
        done: Callable[[ScsiResult], None],
    ) -> Callable[[], None]:
        """Send `cdb`; `done` gets the result later, in the loop's thread.

        `direction`: NO_DATA, TO_DEVICE or FROM_DEVICE; `views` is the data. `timeout` in ns: then the kernel aborts
        the command. Returns what withdraws the command: the kernel cannot be told, but `views` are neither read nor
        written any more, and the result says ECANCELED. Raises `StorageError` for what cannot be sent at all.
        """
        if self._closed or self.gone:
            raise StorageError(f"{self.path}: the device has {'been closed' if self._closed else 'gone'}", errno.ENODEV)
        if not 6 <= len(cdb) <= MAX_CDB:
            raise StorageError(f"a CDB of {len(cdb)} bytes cannot be sent", errno.EINVAL)
        if self.read_only and (cdb[0] not in _READS or direction == TO_DEVICE):
            raise StorageError(f"{self.path} is open read-only: operation 0x{cdb[0]:02x} refused", errno.EROFS)
        self.commands += 1
        call = _Call(cdb, direction, views, timeout)

        def finished(error: StorageError | None) -> None:
            self._in_flight -= 1
            done(self._result(call, error))

        self._workers.submit(lambda: self._run(call), finished)
        self._in_flight += 1
        return call.cancel

    def _run(self, call: _Call) -> None:
        """In a worker."""
        if not call.cancelled:
            self._ioctl(self._fd, call.prepare())

    def _result(self, call: _Call, error: StorageError | None) -> ScsiResult:
        header = call.header
        if call.cancelled or (header is None and error is None):
            return ScsiResult(0, b"", call.length, StorageError(f"{self.path}: withdrawn", errno.ECANCELED))
        if header is not None and error is None and header.host_status != DID_OK:
            code, why = {
                DID_NO_CONNECT: (errno.ENODEV, "the device has gone"),
                DID_BUS_BUSY: (errno.EBUSY, "the bus stayed busy"),
                DID_TIME_OUT: (errno.ETIMEDOUT, "the command was not finished in time"),
                DID_TRANSPORT_DISRUPTED: (errno.EBUSY, "the connection to the device was disturbed"),
            }.get(header.host_status, (errno.EIO, f"host status 0x{header.host_status:02x}"))
            error = StorageError(f"{self.path}: {why}", code)
        elif header is not None and error is None and header.driver_status & 0x0F not in (0, DRIVER_SENSE):
            error = StorageError(f"{self.path}: driver status 0x{header.driver_status:02x}", errno.EIO)
        if error is not None or header is None:
            error = error if error is not None else StorageError(f"{self.path}: not sent", errno.EIO)
            self.errors += 1
            if not self._closed:
                error = self._explain(error)
            return ScsiResult(0, b"", call.length, error)
        sense = bytes(call.sense.raw[: header.sb_len_wr])
        residual = min(max(0, header.resid), call.length)
        # Drivers of host adapters that count no residual of a command that failed say that everything came. What came
        # then is what the kernel's buffer held before: no business of the guest's.
        if residual == 0 and header.status == CHECK_CONDITION and _sense_key(sense) in _NO_DATA_MOVED:
            residual = call.length
        call.finish(call.length - residual)
        self.bytes += call.length - residual
        return ScsiResult(header.status, sense, residual)

    def _explain(self, error: StorageError) -> StorageError:
        """Whatever a command says that the device does not get any more: it is because the device has gone."""
        if error.errno in (errno.ENODEV, errno.ENXIO) or not sysfs.is_there(self._node):
            self._set_gone()
        elif error.errno != errno.EBADF:  # a worker came to it only when the device had been let go
            return error
        return StorageError(f"{self.path}: the device has gone", errno.ENODEV)

    # -- going and coming back --------------------------------------------------------------------------------

    def _device_event(self, action: str, number: int) -> None:
        if self._closed:
            return
        if action == "remove" and number == self._node.st_rdev and not self._away:
            self._set_gone()
            self._let_go()
        elif action in ("add", "change"):
            self._return()

    def _set_gone(self) -> None:
        if not self.gone:
            self.gone = True
            self._timer = self._loop.clock.call_later(RETRY, self._look)
            self._tell("gone")

    def _look(self) -> None:
        """Every few seconds: the kernel's news may not come here, and its news of a return comes before udev has made
        the device's other names and given it to its group."""
        self._timer = self._loop.clock.call_later(RETRY, self._look)
        if not sysfs.is_there(self._node):
            self._let_go()
        self._return()

    def _let_go(self) -> None:
        if not self._away and let_go(self._fd):
            self._away = True

    def _return(self) -> None:
        """Is the device that went at our path again? Then go on with it."""
        if not self._away:
            return
        try:
            # Not another device that was given the name: the guest's commands are not for that one. Looked at before it
            # is opened: when a block device is closed udev has the kernel send news, and on these we look again.
            if sysfs.identity(self.path.stat()) != self._identity:
                return
            fresh = self._open()
        except (OSError, StorageError):
            return
        try:
            node = os.fstat(fresh)
            if sysfs.identity(node) != self._identity:
                return
            os.dup2(fresh, self._fd, inheritable=False)
        finally:
            os.close(fresh)
        self._node = node
        self.limits = sysfs.limits(node)
        self.gone = self._away = False
        if self._timer is not None:
            self._timer.cancel()
        self._tell("back")

    def _tell(self, event: str) -> None:
        if self.on_event is not None:
            self.on_event(event)

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for commands under way. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.close()
        if self._workers.wait(lambda: self._in_flight == 0, 10.0):
            os.close(self._fd)

    def describe(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "state": "closed" if self._closed else "gone" if self.gone else "open",
            "read_only": self.read_only,
            "counters": {"commands": self.commands, "bytes": self.bytes, "errors": self.errors},
        }


class _Call:
    """The header of one command, and everything its pointers point to, kept alive until it is answered.

    The data goes through a buffer of our own. In place it would be faster, but there is no way to take a command back
    from the kernel: after an abort the guest uses its memory again, and the device must not write there any more.
    """

    def __init__(self, cdb: bytes, direction: int, views: Sequence[memoryview], timeout: int) -> None:
        self.length = 0 if direction == NO_DATA else length_of(views)
        self.cancelled = False
        self.header: SgIoHeader | None = None
        self.sense = ctypes.create_string_buffer(MAX_SENSE)
        self._direction = direction if self.length else NO_DATA
        self._cdb = ctypes.create_string_buffer(cdb, len(cdb))
        self._views = views
        self._timeout = timeout
        self._buffer = bytearray()

    def cancel(self) -> None:
        self.cancelled = True
        self._views = ()

    def prepare(self) -> SgIoHeader:
        """In the worker, so that commands that wait for their turn have no buffers yet."""
        length = self.length
        if self._direction == TO_DEVICE:
            self._buffer = bytearray(b"".join(self._views))
            length = len(self._buffer)  # 0 when it was withdrawn this moment; then nobody cares for the outcome
        elif self._direction == FROM_DEVICE:
            self._buffer = bytearray(length)
        data = (ctypes.c_char * length).from_buffer(self._buffer) if length else None
        self.header = SgIoHeader(
            interface_id=INTERFACE,
            dxfer_direction=self._direction if length else NO_DATA,
            cmd_len=len(self._cdb),
            mx_sb_len=MAX_SENSE,
            dxfer_len=length,
            dxferp=None if data is None else ctypes.addressof(data),
            cmdp=ctypes.addressof(self._cdb),
            sbp=ctypes.addressof(self.sense),
            timeout=max(1, min(self._timeout // MS, 0xFFFFFFFF)),
        )
        return self.header

    def finish(self, count: int) -> None:
        """In the loop's thread: the `count` bytes that came go where they belong."""
        if self._direction == FROM_DEVICE:
            start = 0
            with memoryview(self._buffer) as data:
                for view in cut(self._views, 0, count):
                    view[:] = data[start : start + len(view)]
                    start += len(view)


def _sg_io(fd: int, header: SgIoHeader) -> None:
    fcntl.ioctl(fd, SG_IO, header, True)


def _sense_key(sense: bytes) -> int:
    """SPC-5 4.4: descriptor format (72h, 73h) or fixed format. -1: none."""
    at = 1 if sense and sense[0] & 0x7F in (0x72, 0x73) else 2
    return sense[at] & 0x0F if len(sense) > at else -1
