"""What a client may ask for: every request checked first, carried out later.

Checking gives a `Plan`: what the reply will be, and what is left to do. The two are apart because a request may have
to be acknowledged before it is carried out (see `connection`). Migration and the log of writes are in `features`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial

from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.device import Device, Done, RequestError
from hba.vfio_user.features import Features, bitmap_size
from hba.vfio_user.framing import close_fds
from hba.vfio_user.migration import Migration
from hba.vfio_user.plan import Plan, check_argsz
from hba.vfio_user.protocol import ProtocolError
from hba.vfio_user.sharing import Sharing

_SET_DATA = dev.IRQ_SET_DATA_NONE | dev.IRQ_SET_DATA_BOOL | dev.IRQ_SET_DATA_EVENTFD
_SET_ACTION = dev.IRQ_SET_ACTION_MASK | dev.IRQ_SET_ACTION_UNMASK | dev.IRQ_SET_ACTION_TRIGGER

unpack_access = p.REGION_ACCESS_BODY.struct.unpack_from
ACCESS_SIZE = p.REGION_ACCESS_BODY.size


class Requests:
    """The requests of one connection to one device (VERSION apart).

    A checker takes a body and descriptors and raises `RequestError` or `ProtocolError`. Descriptors it does not pass
    on to the device it closes. `body` has to stay valid until the plan was carried out.
    """

    def __init__(
        self,
        device: Device,
        max_maps: int = p.MAX_DMA_MAPS,
        sharing: Sharing | None = None,
        theirs: p.Capabilities | None = None,
    ) -> None:
        """`max_maps`: what the client was told it may have at a time. `sharing`: asked of memory with a descriptor.
        `theirs`: what the client has announced."""
        theirs = theirs or p.Capabilities()
        self._max_fds = 1 if theirs.max_msg_fds is None else theirs.max_msg_fds
        self._max_transfer = min(p.MAX_DATA_XFER, theirs.max_data_xfer_size or p.MAX_DATA_XFER)
        self._migration = Migration(device)
        features = Features(device, self._migration, self._max_transfer)
        self._sharing = sharing
        self._device = device
        self._max_maps = max_maps
        self._maps = 0
        # (size, flags) by index, fixed for a connection.
        self.regions = [(info.size, info.flags) for info in map(device.region_info, range(device.num_regions))]
        self.checkers: dict[int, Callable[[memoryview, list[int]], Plan]] = {
            p.DMA_MAP: self._dma_map,
            p.DMA_UNMAP: self._dma_unmap,
            p.DEVICE_GET_INFO: self._get_info,
            p.DEVICE_GET_REGION_INFO: self._get_region_info,
            p.DEVICE_GET_REGION_IO_FDS: self._get_region_io_fds,
            p.DEVICE_GET_IRQ_INFO: self._get_irq_info,
            p.DEVICE_SET_IRQS: self._set_irqs,
            p.REGION_READ: self._region_read,
            p.REGION_WRITE: self._region_write,
            p.REGION_WRITE_MULTI: self._region_write_multi,
            p.DEVICE_RESET: self._reset,
            p.DEVICE_FEATURE: features.feature,
            p.MIG_DATA_READ: features.read_data,
            p.MIG_DATA_WRITE: features.write_data,
        }

    def check(self, command: int, body: memoryview, fds: list[int], fds_cut: bool) -> Plan:
        checker = self.checkers.get(command)
        if checker is None:
            close_fds(fds)
            raise RequestError(errno.ENOSYS, f"{p.command_name(command)} is not served")
        if fds_cut or (fds and command not in (p.DMA_MAP, p.DEVICE_SET_IRQS)):
            close_fds(fds)
            raise RequestError(errno.EINVAL, f"{p.command_name(command)}: too many file descriptors")
        return checker(body, fds)

    # -- guest memory -----------------------------------------------------------------------------------------

    def _dma_map(self, body: memoryview, fds: list[int]) -> Plan:
        try:
            request = p.DMA_MAP_BODY.decode(body)
            if request.argsz < p.DMA_MAP_BODY.size:
                raise RequestError(errno.EINVAL, f"DMA_MAP: argsz {request.argsz}")
            if request.flags & ~(p.DMA_MAP_FLAG_READ | p.DMA_MAP_FLAG_WRITE):
                raise RequestError(errno.EINVAL, f"DMA_MAP: unknown flags 0x{request.flags:x}")
            if not request.size or request.iova + request.size > 1 << 64 or request.offset + request.size > 1 << 63:
                raise RequestError(errno.EINVAL, f"DMA_MAP: impossible range 0x{request.iova:x}+0x{request.size:x}")
            if len(fds) > 1:
                raise RequestError(errno.EINVAL, f"DMA_MAP: {len(fds)} file descriptors, at most 1 expected")
            if self._maps >= self._max_maps:
                raise RequestError(errno.ENOSPC, f"DMA_MAP: more than {self._max_maps} maps")
        except (RequestError, ProtocolError):
            close_fds(fds)
            raise

        def act() -> None:
            fd = fds[0] if fds else None
            if fd is not None and self._sharing is not None and self._sharing.is_private(fd):
                os.close(fd)  # its file is not what the guest sees: by message, as without a descriptor
                fd = None
            self._device.dma_map(request.iova, request.size, request.flags, fd, request.offset)
            self._maps += 1

        return Plan(b"", act)

    def _dma_unmap(self, body: memoryview, _: list[int]) -> Plan:
        request = p.DMA_UNMAP_BODY.decode(body)
        size = p.DMA_UNMAP_BODY.size
        check_argsz("DMA_UNMAP", request.argsz, size)
        if request.flags == p.DMA_UNMAP_FLAG_GET_DIRTY_BITMAP:
            return self._dma_unmap_with_bitmap(request, p.BITMAP_BODY.decode(body[size:]))
        if request.flags & ~p.DMA_UNMAP_FLAG_ALL:
            raise RequestError(errno.EINVAL, f"DMA_UNMAP: flags 0x{request.flags:x}")
        if request.flags and (request.iova or request.size):
            raise RequestError(errno.EINVAL, "DMA_UNMAP: all, but with a range")

        def act() -> None:
            if request.flags & p.DMA_UNMAP_FLAG_ALL:
                self._device.dma_unmap_all()
                self._maps = 0
            else:
                self._maps -= self._device.dma_unmap(request.iova, request.size)

        reply = p.DMA_UNMAP_BODY.encode(request)
        everything = request.flags & p.DMA_UNMAP_FLAG_ALL
        if self._device.uses(0, 1 << 64) if everything else self._device.uses(request.iova, request.size):
            return Plan(reply, begin=partial(self._at_rest, act))
        return Plan(reply, act)

    def _at_rest(self, act: Callable[[], None], done: Done) -> None:
        """Do it when no request uses the memory any more: after the answer, it may be something else's."""

        def quiet(error: RequestError | None) -> None:
            try:
                if error is None:
                    act()
            except RequestError as refusal:
                error = refusal
            finally:
                self._device.release()
            done(error)

        self._device.rest(quiet)

    def _dma_unmap_with_bitmap(self, request: p.DmaUnmap, bitmap: p.Bitmap) -> Plan:
        """Not in the specification any more, but in its earlier versions and in libvfio-user."""
        needed = bitmap_size("DMA_UNMAP", request.iova, request.size, bitmap.pgsize, self._max_transfer)
        if bitmap.size != needed:
            raise RequestError(errno.EINVAL, f"DMA_UNMAP: a bitmap of {bitmap.size} bytes; that range has {needed}")
        head = p.DMA_UNMAP_BODY.encode(request) + p.BITMAP_BODY.encode(bitmap)
        check_argsz("DMA_UNMAP", request.argsz, len(head) + needed)

        def act() -> bytes:
            dirty = self._device.dirty_bitmap(request.iova, request.size, bitmap.pgsize)
            self._maps -= self._device.dma_unmap(request.iova, request.size)
            return head + dirty

        return Plan(None, act)

    # -- questions --------------------------------------------------------------------------------------------

    def _get_info(self, body: memoryview, _: list[int]) -> Plan:
        check_argsz("DEVICE_GET_INFO", p.DEVICE_INFO_BODY.decode(body).argsz, p.DEVICE_INFO_BODY.size)
        flags = p.DEVICE_FLAG_RESET | p.DEVICE_FLAG_PCI
        answer = p.DeviceInfo(p.DEVICE_INFO_BODY.size, flags, self._device.num_regions, self._device.num_irqs)
        return Plan(p.DEVICE_INFO_BODY.encode(answer))

    def _get_region_info(self, body: memoryview, _: list[int]) -> Plan:
        request = p.REGION_INFO_BODY.decode(body)
        size = p.REGION_INFO_BODY.size
        check_argsz("DEVICE_GET_REGION_INFO", request.argsz, size)
        self._check_index("DEVICE_GET_REGION_INFO", request.index)
        info = self._device.region_info(request.index)
        flags, offset, cap_offset, capabilities = info.flags, 0, 0, b""
        fds: tuple[int, ...] = ()
        if info.flags & dev.REGION_MMAP:
            if info.fd is None:
                raise RequestError(errno.EIO, f"region {request.index} is mappable but has no file descriptor")
            offset, fds = info.offset, (info.fd,)
            if info.sparse:
                capabilities = p.encode_sparse(info.sparse)
                flags |= p.REGION_INFO_FLAG_CAPS
        needed = size + len(capabilities)
        if needed > request.argsz:
            capabilities = b""  # the client sees from argsz that there is more, and asks again
        elif capabilities:
            cap_offset = size
        answer = p.RegionInfoBody(needed, flags, request.index, cap_offset, info.size, offset)
        return Plan(p.REGION_INFO_BODY.encode(answer) + capabilities, fds=fds)

    def _get_region_io_fds(self, body: memoryview, _: list[int]) -> Plan:
        request = p.REGION_IO_FDS_BODY.decode(body)
        size = p.REGION_IO_FDS_BODY.size
        check_argsz("DEVICE_GET_REGION_IO_FDS", request.argsz, size)
        if request.flags or request.count:
            raise RequestError(errno.EINVAL, "DEVICE_GET_REGION_IO_FDS: flags and count must be 0")
        self._check_index("DEVICE_GET_REGION_IO_FDS", request.index)
        offered = self._device.region_io_fds(request.index)[: self._max_fds]  # one descriptor each
        needed = size + len(offered) * p.SUB_REGION_BODY.size
        if needed > request.argsz:
            offered = ()  # the client sees from argsz that there is more, and asks again
        head = p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(needed, 0, request.index, len(offered)))
        parts = [
            p.SUB_REGION_BODY.encode(p.SubRegion(part.offset, part.size, number, p.IO_FD_TYPE_IOEVENTFD, 0, 0, 0))
            for number, part in enumerate(offered)
        ]
        return Plan(head + b"".join(parts), fds=tuple(part.fd for part in offered))

    def _get_irq_info(self, body: memoryview, _: list[int]) -> Plan:
        request = p.IRQ_INFO_BODY.decode(body)
        size = p.IRQ_INFO_BODY.size
        check_argsz("DEVICE_GET_IRQ_INFO", request.argsz, size)
        if request.index >= self._device.num_irqs:
            raise RequestError(errno.EINVAL, f"DEVICE_GET_IRQ_INFO: there is no interrupt index {request.index}")
        info = self._device.irq_info(request.index)
        return Plan(p.IRQ_INFO_BODY.encode(p.IrqInfoBody(size, info.flags, request.index, info.count)))

    def _check_index(self, what: str, region: int) -> None:
        if region >= len(self.regions):
            raise RequestError(errno.EINVAL, f"{what}: there is no region {region}")

    # -- interrupts -------------------------------------------------------------------------------------------

    def _set_irqs(self, body: memoryview, fds: list[int]) -> Plan:
        try:
            request = p.SET_IRQS_BODY.decode(body)
            data = self._check_set_irqs(request, bytes(body[p.SET_IRQS_BODY.size :]), len(fds))
        except (RequestError, ProtocolError):
            close_fds(fds)
            raise

        def act() -> None:
            self._device.set_irqs(request.index, request.flags, request.start, request.count, fds, data)

        return Plan(b"", act)

    def _check_set_irqs(self, request: p.SetIrqs, data: bytes, fds: int) -> bytes:
        """The booleans that came with the request. Raises `RequestError` for what the specification forbids."""

        def refuse(why: str) -> RequestError:
            return RequestError(errno.EINVAL, f"DEVICE_SET_IRQS: {why}")

        if request.argsz < p.SET_IRQS_BODY.size:
            raise refuse(f"argsz {request.argsz}")
        kind, action = request.flags & _SET_DATA, request.flags & _SET_ACTION
        if request.flags & ~(_SET_DATA | _SET_ACTION) or kind.bit_count() != 1 or action.bit_count() != 1:
            raise refuse(f"flags 0x{request.flags:x} do not name one kind of data and one action")
        if request.index >= self._device.num_irqs:
            raise refuse(f"there is no interrupt index {request.index}")
        info = self._device.irq_info(request.index)
        if request.start + request.count > info.count:
            raise refuse(f"vectors {request.start}+{request.count} of index {request.index}, which has {info.count}")
        disable = kind == dev.IRQ_SET_DATA_NONE and action == dev.IRQ_SET_ACTION_TRIGGER and not request.start
        if not request.count and not disable:
            raise refuse("count 0 goes with start 0, no data and the trigger action only")
        if action != dev.IRQ_SET_ACTION_TRIGGER and not info.flags & dev.IRQ_MASKABLE:
            raise refuse(f"index {request.index} cannot be masked")
        if kind == dev.IRQ_SET_DATA_EVENTFD:
            if not info.flags & dev.IRQ_EVENTFD:
                raise refuse(f"index {request.index} takes no eventfds")
            if fds not in (0, request.count):
                raise refuse(f"{fds} eventfds for {request.count} vectors")
        elif fds:
            raise refuse("eventfds, but the flags announce none")
        if kind == dev.IRQ_SET_DATA_BOOL:
            if len(data) != request.count:
                raise refuse(f"{len(data)} booleans for {request.count} vectors")
            return data
        return b""

    # -- regions ----------------------------------------------------------------------------------------------

    def _check_access(self, region: int, offset: int, count: int, flag: int) -> None:
        if region >= len(self.regions):
            raise RequestError(errno.EINVAL, f"access to region {region}, which does not exist")
        size, flags = self.regions[region]
        if offset + count > size:
            raise RequestError(errno.EINVAL, f"access to region {region} at 0x{offset:x}+{count}, past its end")
        if not flags & flag:
            verb = "read" if flag == dev.REGION_READ else "written"
            raise RequestError(errno.EPERM, f"region {region} cannot be {verb}")

    def _region_read(self, body: memoryview, _: list[int]) -> Plan:
        access = p.REGION_ACCESS_BODY.decode(body)
        offset, region, count = access.offset, access.region, access.count
        if count > p.MAX_DATA_XFER:
            raise RequestError(errno.EINVAL, f"REGION_READ of {count} bytes, at most {p.MAX_DATA_XFER}")
        self._check_access(region, offset, count, dev.REGION_READ)

        def act() -> bytes:
            data = self._device.region_read(region, offset, count) if count else b""
            if len(data) != count:
                raise RequestError(errno.EIO, f"the device gave {len(data)} bytes for {count} of region {region}")
            return bytes(body[:ACCESS_SIZE]) + data

        return Plan(None, act)

    def at_once(self, command: int, body: memoryview) -> bool:
        """Whether a request that was checked may be carried out while the device waits for memory, though it changes
        something."""
        if command != p.REGION_WRITE:
            return False
        access = p.REGION_ACCESS_BODY.decode(body)
        return self._device.at_once(access.region, access.offset, access.count)

    def _region_write(self, body: memoryview, _: list[int]) -> Plan:
        access = p.REGION_ACCESS_BODY.decode(body)
        if len(body) != ACCESS_SIZE + access.count:
            raise ProtocolError(f"REGION_WRITE of {access.count} bytes with {len(body) - ACCESS_SIZE} bytes of data")
        self._check_access(access.region, access.offset, access.count, dev.REGION_WRITE)

        def act() -> None:
            if access.count:
                self._device.region_write(access.region, access.offset, body[ACCESS_SIZE:])

        return Plan(bytes(body[:ACCESS_SIZE]), act)

    def _region_write_multi(self, body: memoryview, _: list[int]) -> Plan:
        writes = p.decode_multi(body)
        for offset, region, count, _data in writes:
            self._check_access(region, offset, count, dev.REGION_WRITE)

        def act() -> None:
            for offset, region, count, data in writes:
                if count:
                    self._device.region_write(region, offset, data[:count])

        return Plan(p.MULTI_COUNT.pack(len(writes)), act)

    def _reset(self, body: memoryview, _: list[int]) -> Plan:
        def act() -> None:
            self._device.reset()
            self._migration.reset()

        return Plan(b"", act)
