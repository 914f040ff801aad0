"""One device in the library: its regions, its interrupts, and what the library calls.

Everything the library calls for is for the session of the client that is there (`Calls`). No exception leaves a
callback: there it becomes the errno of the answer.
"""

from __future__ import annotations

import ctypes
import errno
import logging
from functools import partial
from typing import NamedTuple, Protocol

from hba.vfio_user import device as dev
from hba.vfio_user import limits
from hba.vfio_user.device import Device, RequestError
from hba.vfio_user.libvfio_user.binding import (
    LOG_ERR,
    LOG_WARNING,
    REGION_ALWAYS_CB,
    REGION_READ,
    REGION_WRITE,
    RESET_LOST_CONN,
    DmaRange,
    Unusable,
)
from hba.vfio_user.libvfio_user.find import Found, unusable
from hba.vfio_user.libvfio_user.handover import Handover, make_context

log = logging.getLogger(__name__)

CONFIG_REGION = 7  # VFU_PCI_DEV_CFG_REGION_IDX


class Calls(Protocol):
    """What the library asks of a session. Any of them may raise `RequestError`."""

    def region_read(self, region: int, offset: int, count: int) -> bytes: ...

    def region_write(self, region: int, offset: int, data: bytes) -> None: ...

    def reset(self) -> None: ...

    def dma_map(self, found: DmaRange) -> None: ...

    def dma_unmap(self, iova: int, size: int) -> None: ...

    def lost(self) -> None:
        """The library has let go of the client."""
        ...


class Errors(NamedTuple):
    """`ours`: what callbacks have refused; `theirs`: what the library has logged as errors, as it does for each request
    that is refused by whomever."""

    ours: list[str]
    theirs: list[str]

    def __str__(self) -> str:
        return "; ".join(self.ours or self.theirs)


class Served:
    """A context of the library with a device in it, for one client after the other. Raises `EngineMissing` when the
    library does not do what it should."""

    def __init__(self, found: Found, device: Device) -> None:
        self._device = device
        self.calls: Calls | None = None  # of the client that is there
        self._errors = Errors([], [])
        try:
            self.context = make_context(found.load())
            try:
                self._set_up()
                self.handover = Handover(self.context)
            except BaseException:
                self.context.destroy()
                raise
        except (OSError, Unusable) as error:
            raise unusable(found.place, str(error)) from error

    def _set_up(self) -> None:
        context, device = self.context, self._device
        context.log(self._logged, LOG_WARNING)
        for index in range(device.num_regions):
            self._region(index)
        for index in range(device.num_irqs):
            context.irqs(index, device.irq_info(index).count)
        context.on_quiesce(_quiesced)
        context.on_reset(self._reset)
        context.on_dma(limits.dma_maps(), self._map, self._unmap)
        context.realize()

    def _region(self, index: int) -> None:
        info = self._device.region_info(index)
        if not info.flags:
            return
        # A region nobody may read or write has no callback, and the library wants at least one of the flags.
        access = partial(self._access, index, info.flags) if info.flags & (dev.REGION_READ | dev.REGION_WRITE) else None
        flags = REGION_READ if info.flags & dev.REGION_READ or access is None else 0
        flags |= REGION_WRITE if info.flags & dev.REGION_WRITE else 0
        flags |= REGION_ALWAYS_CB if index == CONFIG_REGION else 0
        if info.flags & dev.REGION_MMAP and info.fd is not None:
            self.context.region(index, info.size, access, flags, areas=info.sparse, fd=info.fd, offset=info.offset)
        else:
            self.context.region(index, info.size, access, flags)
        for part in self._device.region_io_fds(index):
            self.context.ioeventfd(index, part.fd, part.offset, part.size)

    def take_errors(self) -> Errors:
        """What has gone wrong since the last call."""
        errors, self._errors = self._errors, Errors([], [])
        return errors

    def destroy(self) -> None:
        self.context.destroy()
        self.handover.close()

    # -- callbacks --------------------------------------------------------------------------------------------

    def _logged(self, level: int, text: str) -> None:
        if level <= LOG_ERR:
            self._errors.theirs.append(text)
        else:
            log.info("libvfio-user: %s", text)

    def _access(self, region: int, allowed: int, buffer: int, count: int, offset: int, is_write: bool) -> int:
        try:
            if not allowed & (dev.REGION_WRITE if is_write else dev.REGION_READ):
                raise RequestError(errno.EPERM, f"region {region} cannot be {'written' if is_write else 'read'}")
            calls = self._calls()
            if is_write:
                calls.region_write(region, offset, ctypes.string_at(buffer, count))
            else:
                data = calls.region_read(region, offset, count)
                if len(data) != count:
                    raise RequestError(errno.EIO, f"the device gave {len(data)} bytes for {count} of region {region}")
                ctypes.memmove(buffer, data, count)
        except Exception as error:
            return self._refused(error)
        return count

    def _reset(self, kind: int) -> int:
        try:
            if kind == RESET_LOST_CONN:
                self._calls().lost()
            else:
                self._calls().reset()
        except Exception as error:
            return self._refused(error)
        return 0

    def _map(self, found: DmaRange) -> None:
        try:
            self._calls().dma_map(found)
        except Exception as error:
            self._refused(error)

    def _unmap(self, found: DmaRange) -> None:
        try:
            self._calls().dma_unmap(found.iova, found.size)
        except Exception as error:
            self._refused(error)

    def _calls(self) -> Calls:
        if self.calls is None:
            raise RequestError(errno.ENOTCONN, "the library asks for something without a client")
        return self.calls

    def _refused(self, error: Exception) -> int:
        """An error as C has it."""
        if isinstance(error, RequestError):
            code, why = error.errno, str(error)
        else:
            log.error("a callback failed", exc_info=error)
            code, why = errno.EIO, f"internal error: {error!r}"
        self._errors.ours.append(why)
        ctypes.set_errno(code)
        return -1


def _quiesced() -> int:
    """The library is about to change DMA maps or to reset the device. Nothing of ours is under way in it: we call it
    from the event loop's thread only, and requests in flight have mapped the memory they use for themselves."""
    return 0
