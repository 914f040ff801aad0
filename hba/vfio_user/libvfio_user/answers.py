"""How long the library's answers are, which it sends itself and does not tell of: for the counters.

From the vfio-user protocol specification, and from where the library departs from it: an access to no bytes is answered
without a body, and one that the device has refused with one.
"""

from __future__ import annotations

from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.device import Device
from hba.vfio_user.protocol import Header

_SUB_REGION = 48  # struct vfio_user_sub_region_ioeventfd; the specification has 40 and no shadow
_BODIES = {
    p.DMA_UNMAP: p.DMA_UNMAP_BODY.size,
    p.DEVICE_GET_INFO: p.DEVICE_INFO_BODY.size,
    p.DEVICE_GET_IRQ_INFO: p.IRQ_INFO_BODY.size,
}


def length(header: Header, body: bytes, device: Device, *, refused: bool, by_device: bool) -> int:
    """Bytes of the answer to a request, of whose body at least the fixed part is given."""
    command = header[1]
    is_access = command in (p.REGION_READ, p.REGION_WRITE)
    if header[3] & p.NO_REPLY:
        return 0
    if refused and not (is_access and by_device):
        return p.HEADER_SIZE
    if is_access:
        count = p.REGION_ACCESS_BODY.decode(body).count
        size = p.REGION_ACCESS_BODY.size if count else 0
        return p.HEADER_SIZE + size + (count if command == p.REGION_READ else 0)
    if command == p.DEVICE_GET_REGION_INFO:
        return p.HEADER_SIZE + _region_info(p.REGION_INFO_BODY.decode(body), device)
    if command == p.DEVICE_GET_REGION_IO_FDS:
        return p.HEADER_SIZE + _region_io_fds(p.REGION_IO_FDS_BODY.decode(body), device)
    return p.HEADER_SIZE + _BODIES.get(command, 0)


def _region_info(asked: p.RegionInfoBody, device: Device) -> int:
    info = device.region_info(asked.index)
    size = p.REGION_INFO_BODY.size
    if not info.size or not info.flags & dev.REGION_MMAP:
        return size
    areas = len(info.sparse) or 1  # all of it, if there are none
    return min(size + p.SPARSE_CAP.size + areas * p.SPARSE_AREA.size, asked.argsz)


def _region_io_fds(asked: p.RegionIoFds, device: Device) -> int:
    size = p.REGION_IO_FDS_BODY.size
    whole = size + len(device.region_io_fds(asked.index)) * _SUB_REGION
    return whole if whole <= asked.argsz else size
