"""Every vfio-user message, declared once: command numbers, header, bodies, limits, capabilities.

Source: the vfio-user protocol specification, version 0.0 (`docs/interop/vfio-user.rst` in QEMU's tree). All numbers
are in the host's byte order, all sizes in bytes. Decoding is total: whatever the bytes are, a decoder returns a value
or raises `ProtocolError`. Fields of flags keep the bits nobody knows, so the one who checks can see them.
"""

from __future__ import annotations

import errno
import struct
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

# -- commands -----------------------------------------------------------------------------------------------------

VERSION: Final = 1
DMA_MAP: Final = 2
DMA_UNMAP: Final = 3
DEVICE_GET_INFO: Final = 4
DEVICE_GET_REGION_INFO: Final = 5
DEVICE_GET_REGION_IO_FDS: Final = 6
DEVICE_GET_IRQ_INFO: Final = 7
DEVICE_SET_IRQS: Final = 8
REGION_READ: Final = 9
REGION_WRITE: Final = 10
DMA_READ: Final = 11  # server to client
DMA_WRITE: Final = 12  # server to client
DEVICE_RESET: Final = 13
REGION_WRITE_MULTI: Final = 15
DEVICE_FEATURE: Final = 16
MIG_DATA_READ: Final = 17
MIG_DATA_WRITE: Final = 18

COMMAND_NAMES = {
    VERSION: "VERSION",
    DMA_MAP: "DMA_MAP",
    DMA_UNMAP: "DMA_UNMAP",
    DEVICE_GET_INFO: "DEVICE_GET_INFO",
    DEVICE_GET_REGION_INFO: "DEVICE_GET_REGION_INFO",
    DEVICE_GET_REGION_IO_FDS: "DEVICE_GET_REGION_IO_FDS",
    DEVICE_GET_IRQ_INFO: "DEVICE_GET_IRQ_INFO",
    DEVICE_SET_IRQS: "DEVICE_SET_IRQS",
    REGION_READ: "REGION_READ",
    REGION_WRITE: "REGION_WRITE",
    DMA_READ: "DMA_READ",
    DMA_WRITE: "DMA_WRITE",
    DEVICE_RESET: "DEVICE_RESET",
    REGION_WRITE_MULTI: "REGION_WRITE_MULTI",
    DEVICE_FEATURE: "DEVICE_FEATURE",
    MIG_DATA_READ: "MIG_DATA_READ",
    MIG_DATA_WRITE: "MIG_DATA_WRITE",
}


def command_name(command: int) -> str:
    return COMMAND_NAMES.get(command, f"command {command}")


# -- header -------------------------------------------------------------------------------------------------------

# id, command, size (header included), flags, errno. An error reply is the header alone.
HEADER = struct.Struct("=HHIII")
HEADER_SIZE = HEADER.size

TYPE_MASK: Final = 0xF
TYPE_COMMAND: Final = 0
TYPE_REPLY: Final = 1
NO_REPLY: Final = 0x10
ERROR: Final = 0x20

Header = tuple[int, int, int, int, int]

# -- limits -------------------------------------------------------------------------------------------------------

MAX_DATA_XFER: Final = 1 << 20  # the protocol's default, and what both QEMU and we announce
MAX_MSG_FDS: Final = 16  # QEMU refuses a server that announces more
MAX_DMA_MAPS: Final = 4096  # bounds our memory; QEMU itself uses a few dozen
PAGE_SIZES: Final = 4096
# The largest legal message: a region or DMA transfer of the largest size.
MAX_MESSAGE: Final = HEADER_SIZE + 16 + MAX_DATA_XFER
MAX_VERSION_DATA: Final = 4096  # JSON; QEMU's is 194 bytes
# A DMA message above the socket buffer (212,992 bytes by default) makes QEMU 11.1 hang, so stay well below it.
MAX_DMA_MESSAGE: Final = 64 << 10


class ProtocolError(Exception):
    """Bytes that are no legal message; `errno` is what an error reply would carry."""

    def __init__(self, why: str, code: int = errno.EINVAL) -> None:
        super().__init__(why)
        self.errno = code


# -- bodies -------------------------------------------------------------------------------------------------------


class Version(msgspec.Struct, frozen=True):
    major: int
    minor: int


class DmaMap(msgspec.Struct, frozen=True):
    """VFIO_USER_DMA_MAP. `offset` into the passed fd."""

    argsz: int
    flags: int
    offset: int
    iova: int
    size: int


class DmaUnmap(msgspec.Struct, frozen=True):
    """VFIO_USER_DMA_UNMAP; the reply repeats it."""

    argsz: int
    flags: int
    iova: int
    size: int


class DeviceInfo(msgspec.Struct, frozen=True):
    argsz: int
    flags: int
    num_regions: int
    num_irqs: int


class RegionInfoBody(msgspec.Struct, frozen=True):
    argsz: int
    flags: int
    index: int
    cap_offset: int
    size: int
    offset: int


class RegionIoFds(msgspec.Struct, frozen=True):
    """DEVICE_GET_REGION_IO_FDS; in the reply `count` sub-regions follow."""

    argsz: int
    flags: int
    index: int
    count: int


class SubRegion(msgspec.Struct, frozen=True):
    """A part of a region whose writes are told by an eventfd, in the reply to DEVICE_GET_REGION_IO_FDS.

    `size`: bytes of the access, 0 for any. `fd_index`: which of the descriptors that came with the reply. `flags`:
    KVM_IOEVENTFD_FLAG_*.
    """

    offset: int
    size: int
    fd_index: int
    type: int
    flags: int
    padding: int
    datamatch: int


class IrqInfoBody(msgspec.Struct, frozen=True):
    argsz: int
    flags: int
    index: int
    count: int


class SetIrqs(msgspec.Struct, frozen=True):
    argsz: int
    flags: int
    index: int
    start: int
    count: int


class RegionAccess(msgspec.Struct, frozen=True):
    """REGION_READ and REGION_WRITE; the data follows."""

    offset: int
    region: int
    count: int


class DmaAccess(msgspec.Struct, frozen=True):
    """DMA_READ and DMA_WRITE; the data follows."""

    address: int
    count: int


class Bitmap(msgspec.Struct, frozen=True):
    """What follows a DMA_UNMAP with GET_DIRTY_BITMAP, and in its reply: `size` bytes of bitmap, a bit for each page of
    `pgsize` bytes (vfio.h: struct vfio_bitmap)."""

    pgsize: int
    size: int


class DeviceFeature(msgspec.Struct, frozen=True):
    """DEVICE_FEATURE; `flags` are the feature's number and FEATURE_*, and its data follows."""

    argsz: int
    flags: int


class MigrationFlags(msgspec.Struct, frozen=True):
    """Data of FEATURE_MIGRATION: which states there are besides RUNNING and ERROR."""

    flags: int


class MigrationState(msgspec.Struct, frozen=True):
    """Data of FEATURE_MIG_DEVICE_STATE; `data_fd` is not used over a socket."""

    device_state: int
    data_fd: int


class LoggingControl(msgspec.Struct, frozen=True):
    """Data of FEATURE_DMA_LOGGING_START and _STOP; `num_ranges` ranges of (iova, length) follow, none for all."""

    page_size: int
    num_ranges: int
    reserved: int


class LoggingReport(msgspec.Struct, frozen=True):
    """Data of FEATURE_DMA_LOGGING_REPORT; in the reply the bitmap follows, in whole 64-bit words."""

    iova: int
    length: int
    page_size: int


class MigrationData(msgspec.Struct, frozen=True):
    """MIG_DATA_READ and MIG_DATA_WRITE; the data follows."""

    argsz: int
    size: int


RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class Body(Generic[RecordT]):
    """The fixed part of a message's body: one precompiled layout and the record it decodes to."""

    def __init__(self, name: str, layout: str, record: type[RecordT]) -> None:
        self.name = name
        self.struct = struct.Struct("=" + layout)
        self.size = self.struct.size
        self._record = record

    def decode(self, body: bytes | bytearray | memoryview) -> RecordT:
        """The record at the start of `body`. Raises `ProtocolError` when `body` is too short."""
        if len(body) < self.size:
            raise ProtocolError(f"{self.name}: body of {len(body)} bytes, at least {self.size} expected")
        return self._record(*self.struct.unpack_from(body))

    def encode(self, record: RecordT) -> bytes:
        return self.struct.pack(*msgspec.structs.astuple(record))


VERSION_BODY = Body("VERSION", "HH", Version)
DMA_MAP_BODY = Body("DMA_MAP", "IIQQQ", DmaMap)
DMA_UNMAP_BODY = Body("DMA_UNMAP", "IIQQ", DmaUnmap)
DEVICE_INFO_BODY = Body("DEVICE_GET_INFO", "IIII", DeviceInfo)
REGION_INFO_BODY = Body("DEVICE_GET_REGION_INFO", "IIIIQQ", RegionInfoBody)
REGION_IO_FDS_BODY = Body("DEVICE_GET_REGION_IO_FDS", "IIII", RegionIoFds)
IRQ_INFO_BODY = Body("DEVICE_GET_IRQ_INFO", "IIII", IrqInfoBody)
SET_IRQS_BODY = Body("DEVICE_SET_IRQS", "IIIII", SetIrqs)
REGION_ACCESS_BODY = Body("REGION_READ/WRITE", "QII", RegionAccess)
DMA_ACCESS_BODY = Body("DMA_READ/WRITE", "QQ", DmaAccess)
SUB_REGION_BODY = Body("sub-region of DEVICE_GET_REGION_IO_FDS", "QQIIIIQ", SubRegion)
BITMAP_BODY = Body("bitmap of DMA_UNMAP", "QQ", Bitmap)
FEATURE_BODY = Body("DEVICE_FEATURE", "II", DeviceFeature)
MIGRATION_FLAGS_BODY = Body("DEVICE_FEATURE MIGRATION", "Q", MigrationFlags)
MIGRATION_STATE_BODY = Body("DEVICE_FEATURE MIG_DEVICE_STATE", "II", MigrationState)
LOGGING_CONTROL_BODY = Body("DEVICE_FEATURE DMA_LOGGING_START/STOP", "QII", LoggingControl)
LOGGING_RANGE = struct.Struct("=QQ")
LOGGING_REPORT_BODY = Body("DEVICE_FEATURE DMA_LOGGING_REPORT", "QQQ", LoggingReport)
MIGRATION_DATA_BODY = Body("MIG_DATA_READ/WRITE", "II", MigrationData)

# Header and fixed body of a region access in one piece, for the hot path.
REGION_MESSAGE = struct.Struct("=HHIIIQII")

DMA_MAP_FLAG_READ: Final = 1
DMA_MAP_FLAG_WRITE: Final = 2
DMA_UNMAP_FLAG_GET_DIRTY_BITMAP: Final = 1
DMA_UNMAP_FLAG_ALL: Final = 2

IO_FD_TYPE_IOEVENTFD: Final = 0

# DEVICE_FEATURE: number of the feature, and what to do with it (vfio.h: VFIO_DEVICE_FEATURE_*)
FEATURE_MASK: Final = 0xFFFF
FEATURE_GET: Final = 1 << 16
FEATURE_SET: Final = 1 << 17
FEATURE_PROBE: Final = 1 << 18
FEATURE_MIGRATION: Final = 1
FEATURE_MIG_DEVICE_STATE: Final = 2
FEATURE_DMA_LOGGING_START: Final = 6
FEATURE_DMA_LOGGING_STOP: Final = 7
FEATURE_DMA_LOGGING_REPORT: Final = 8

MIGRATION_STOP_COPY: Final = 1
NO_DATA_FD: Final = 0xFFFFFFFF  # -1

DEVICE_FLAG_RESET: Final = 1
DEVICE_FLAG_PCI: Final = 2

REGION_INFO_FLAG_CAPS: Final = 8
REGION_INFO_CAP_SPARSE_MMAP: Final = 1  # vfio.h: VFIO_REGION_INFO_CAP_SPARSE_MMAP, version 1

# Capability header (id, version, next) with nr_areas and a reserved word; then (offset, size) for each area.
SPARSE_CAP = struct.Struct("=HHIII")
SPARSE_AREA = struct.Struct("=QQ")


def encode_sparse(areas: tuple[tuple[int, int], ...]) -> bytes:
    """The sparse mmap capability of a region: the areas a client may map."""
    head = SPARSE_CAP.pack(REGION_INFO_CAP_SPARSE_MMAP, 1, 0, len(areas), 0)
    return head + b"".join(SPARSE_AREA.pack(offset, size) for offset, size in areas)


def decode_sparse(data: bytes | memoryview) -> tuple[tuple[int, int], ...]:
    """The areas of a sparse mmap capability. Raises `ProtocolError`."""
    if len(data) < SPARSE_CAP.size:
        raise ProtocolError("sparse mmap capability: too short")
    cap, version, _, count, _ = SPARSE_CAP.unpack_from(data)
    if cap != REGION_INFO_CAP_SPARSE_MMAP or version != 1:
        raise ProtocolError(f"region capability {cap} version {version} is not sparse mmap version 1")
    if len(data) < SPARSE_CAP.size + count * SPARSE_AREA.size:
        raise ProtocolError(f"sparse mmap capability: too short for {count} areas")
    return tuple(SPARSE_AREA.unpack_from(data, SPARSE_CAP.size + i * SPARSE_AREA.size) for i in range(count))


# One write of REGION_WRITE_MULTI: offset, region, count, data (8 bytes, of which the first `count` are meant).
MULTI_COUNT = struct.Struct("=Q")
MULTI_WRITE = struct.Struct("=QII8s")
MULTI_DATA: Final = 8


def decode_multi(body: bytes | memoryview) -> list[tuple[int, int, int, bytes]]:
    """The writes of a REGION_WRITE_MULTI as (offset, region, count, 8 bytes). Raises `ProtocolError`."""
    if len(body) < MULTI_COUNT.size:
        raise ProtocolError(f"REGION_WRITE_MULTI: body of {len(body)} bytes has no count")
    (count,) = MULTI_COUNT.unpack_from(body)
    if len(body) != MULTI_COUNT.size + count * MULTI_WRITE.size:
        raise ProtocolError(f"REGION_WRITE_MULTI: body of {len(body)} bytes does not hold {count} writes")
    writes: list[tuple[int, int, int, bytes]] = list(MULTI_WRITE.iter_unpack(body[MULTI_COUNT.size :]))
    for offset, region, size, _ in writes:
        if size > MULTI_DATA:
            raise ProtocolError(f"REGION_WRITE_MULTI: {size} bytes to region {region} at 0x{offset:x}, 8 at most")
    return writes


def encode_multi(writes: list[tuple[int, int, bytes]]) -> bytes:
    """REGION_WRITE_MULTI's body for (offset, region, data) with at most 8 bytes of data each."""
    for _, _, data in writes:
        if len(data) > MULTI_DATA:
            raise ValueError(f"a coalesced write carries at most {MULTI_DATA} bytes, not {len(data)}")
    return MULTI_COUNT.pack(len(writes)) + b"".join(
        MULTI_WRITE.pack(offset, region, len(data), data) for offset, region, data in writes
    )


# -- capabilities -------------------------------------------------------------------------------------------------

_Positive = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Capabilities(msgspec.Struct, frozen=True):
    """What a side announces in VERSION; None where it announced nothing and the protocol's default holds."""

    max_msg_fds: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    max_data_xfer_size: _Positive | None = None
    max_dma_maps: _Positive | None = None
    pgsizes: _Positive | None = None
    write_multiple: bool | None = None


class _VersionData(msgspec.Struct, frozen=True):
    capabilities: Capabilities = Capabilities()


OURS = Capabilities(
    max_msg_fds=MAX_MSG_FDS,
    max_data_xfer_size=MAX_DATA_XFER,
    max_dma_maps=MAX_DMA_MAPS,
    pgsizes=PAGE_SIZES,
    write_multiple=True,
)


def decode_version(body: bytes | memoryview) -> tuple[int, int, Capabilities]:
    """A VERSION body: (major, minor, capabilities). Version data is optional; unknown keys are ignored.

    Raises `ProtocolError` for JSON that is none, of the wrong types, or not ended by a NUL.
    """
    version = VERSION_BODY.decode(body)
    major, minor = version.major, version.minor
    data = bytes(body[VERSION_BODY.size :])
    if not data:
        return major, minor, Capabilities()
    if len(data) > MAX_VERSION_DATA:
        raise ProtocolError(f"VERSION: {len(data)} bytes of version data, at most {MAX_VERSION_DATA} expected")
    if data[-1] != 0:
        raise ProtocolError("VERSION: the version data does not end with a NUL")
    if data == b"\0":
        return major, minor, Capabilities()
    try:
        return major, minor, msgspec.json.decode(data[:-1].decode(), type=_VersionData).capabilities
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"VERSION: bad version data: {error}") from None


def encode_version(major: int, minor: int, capabilities: Capabilities | None) -> bytes:
    """A VERSION body; only the capabilities that are set are named."""
    head = VERSION_BODY.encode(Version(major, minor))
    if capabilities is None:
        return head
    named = {key: value for key, value in msgspec.structs.asdict(capabilities).items() if value is not None}
    return head + msgspec.json.encode({"capabilities": named}) + b"\0"


def agree(theirs: Capabilities, ours: Capabilities = OURS) -> Capabilities:
    """Our answer to a client's capabilities: a subset of what it named (the specification asks for that; it also
    keeps the reply inside QEMU's buffer, which is as large as its request), each with our own value."""
    answer: dict[str, Any] = {
        key: getattr(ours, key) for key, value in msgspec.structs.asdict(theirs).items() if value is not None
    }
    return Capabilities(**answer)
