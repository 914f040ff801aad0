"""Guest memory as the device reaches it: DMA maps from the client, IOVA to memoryviews, scatter/gather.

Memory that came with a file descriptor is mapped here and touched in place. Memory the client kept for itself (ROM,
RAM that is not shared) is read and written by message through `client`.
"""

from __future__ import annotations

import errno
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from hba.dma import DmaBuffer, Segment
from hba.errors import DmaFault
from hba.native import mypyc_attr
from hba.pci.dirty import DirtyLog
from hba.pci.release import close_now
from hba.vfio_user.device import DMA_READ, DMA_WRITE, Client, RequestError

PAGE = mmap.PAGESIZE
_NOTHING = memoryview(b"")
MAX_MAPS: Final = 65_535  # what the server announces as max_dma_maps


class Mapping:
    """One DMA map: bus addresses [iova, end). `view` is None for memory that is not mapped here."""

    __slots__ = ("_mmap", "end", "iova", "prot", "readable", "size", "view", "writable")

    def __init__(self, iova: int, size: int, prot: int, memory: mmap.mmap | None, at: int) -> None:
        """`at`: where it starts in `memory`."""
        self.iova = iova
        self.size = size
        self.end = iova + size
        self.prot = prot
        self.readable = bool(prot & DMA_READ)
        self.writable = bool(prot & DMA_WRITE)
        self.view: memoryview | None = None
        self._mmap = memory
        if memory is not None:
            view = memoryview(memory)[at : at + size]
            self.view = view if self.writable else view.toreadonly()

    def close(self) -> mmap.mmap | None:
        """Forget the memory; what is mapped for it is the caller's to give back. Requests in flight keep their views,
        and with them the pages, until they end."""
        if self.view is not None:
            self.view.release()
            self.view = None
        mapped, self._mmap = self._mmap, None
        return mapped


class MessageBuffer(DmaBuffer):
    """A buffer of which at least a part has no file descriptor: a copy here, written back by `commit`."""

    __slots__ = ("_memory", "_write")

    def __init__(self, memory: GuestMemory, segments: Sequence[Segment], length: int, write: bool) -> None:
        data = bytearray(length)
        super().__init__(segments, [memoryview(data)], length)
        self.by_message = True
        self._memory = memory
        self._write = write
        if not write:
            at = 0
            for iova, size in segments:
                data[at : at + size] = memory.read(iova, size)
                at += size

    def commit(self, transferred: int) -> None:
        if not self._write:
            return
        view = self.views[0][: min(transferred, self.length)]
        for iova, size in self.segments:
            part, view = view[:size], view[size:]
            if not part:
                return
            self._memory.write(iova, part)


@mypyc_attr(allow_interpreted_subclasses=True)
class MemoryWatcher:
    """Watches the maps, and does nothing."""

    def unmapped(self, iova: int, size: int) -> None:
        """This map is about to go."""


class GuestMemory:
    """All DMA maps of one function.

    `enabled` follows the bus master bit: without it every access is a `DmaFault`.
    `generation` changes with every map and unmap, and with `enabled`; whoever keeps a view compares it.
    `log`, while there is one, hears of all that is written: then nobody gets a view to write to whenever it likes.
    """

    def __init__(self) -> None:
        self.enabled = False
        self.client: Client | None = None
        self.log: DirtyLog | None = None
        self.generation = 0
        self.faults = 0
        self.message_bytes = 0
        self.release: Callable[[mmap.mmap], None] = close_now  # gets what is mapped no more
        self.watchers: tuple[MemoryWatcher, ...] = ()
        self._starts: list[int] = []
        self._maps: list[Mapping] = []
        self._last: Mapping | None = None

    def enable(self, enabled: bool) -> None:
        """The bus master bit."""
        if enabled != self.enabled:
            self.enabled = enabled
            self.generation += 1

    def start_log(self) -> None:
        """Log what is written from now on; nobody may have memory for writing at the moment."""
        if self.log is None:
            self.log = DirtyLog()
            self.generation += 1

    def stop_log(self) -> None:
        if self.log is not None:
            self.log = None
            self.generation += 1

    def dirty_bitmap(self, iova: int, length: int, page_size: int) -> bytes:
        """See `hba.vfio_user.device.Device.dirty_bitmap`."""
        if self.log is None:
            raise RequestError(errno.EINVAL, "no log of written pages was started")
        at, end = iova, iova + length
        while at < end:
            mapping = self.find(at)
            if mapping is None:
                raise RequestError(errno.ENOENT, f"no DMA map at 0x{at:x}")
            at = mapping.end
        return self.log.take(iova, length, page_size)

    # -- maps -----------------------------------------------------------------------------------------------------

    def map(self, iova: int, size: int, prot: int, fd: int | None, offset: int) -> None:
        """Add a map. Closes `fd`. Raises `RequestError`: EINVAL, EEXIST (overlap), ENOSPC (too many), or mmap's own."""
        try:
            self._check_new(iova, size, prot)
            memory = None if fd is None else _map_file(fd, offset, size, prot)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
            raise RequestError(number, f"cannot map 0x{iova:x}+0x{size:x}: {error}") from error
        finally:
            if fd is not None:
                os.close(fd)
        self._add(Mapping(iova, size, prot, memory, 0))

    def adopt(self, iova: int, size: int, prot: int, memory: mmap.mmap, at: int) -> None:
        """Add a map whose memory the engine has mapped, from `at` on; it is ours from here on. Raises `RequestError`:
        EINVAL, EEXIST (overlap), ENOSPC (too many)."""
        try:
            self._check_new(iova, size, prot)
        except RequestError:
            memory.close()
            raise
        self._add(Mapping(iova, size, prot, memory, at))

    def _add(self, mapping: Mapping) -> None:
        at = bisect_right(self._starts, mapping.iova)
        self._starts.insert(at, mapping.iova)
        self._maps.insert(at, mapping)
        self._changed()

    def _check_new(self, iova: int, size: int, prot: int) -> None:
        if size <= 0 or iova < 0 or iova + size > 1 << 64 or not prot & (DMA_READ | DMA_WRITE):
            raise RequestError(
                errno.EINVAL, f"a DMA map of 0x{iova:x}+0x{size:x} with protection {prot} makes no sense"
            )
        if len(self._maps) >= MAX_MAPS:
            raise RequestError(errno.ENOSPC, f"more than {MAX_MAPS} DMA maps")
        at = bisect_right(self._starts, iova)
        before = self._maps[at - 1] if at else None
        after = self._maps[at] if at < len(self._maps) else None
        if (before is not None and before.end > iova) or (after is not None and after.iova < iova + size):
            raise RequestError(errno.EEXIST, f"a DMA map of 0x{iova:x}+0x{size:x} overlaps an earlier one")

    def unmap(self, iova: int, size: int) -> int:
        """Remove the maps inside [iova, iova + size); how many they were. Raises `RequestError`: ENOENT when there is
        none, EINVAL when the range cuts through one."""
        end = iova + size
        first = bisect_right(self._starts, iova)
        if first and self._maps[first - 1].end > iova:
            first -= 1
        last = first
        while last < len(self._maps) and self._maps[last].iova < end:
            last += 1
        doomed = self._maps[first:last]
        if not doomed:
            raise RequestError(errno.ENOENT, f"no DMA map in 0x{iova:x}+0x{size:x}")
        if doomed[0].iova < iova or doomed[-1].end > end:
            raise RequestError(errno.EINVAL, f"0x{iova:x}+0x{size:x} cuts through a DMA map")
        self._remove(first, last)
        return last - first

    def unmap_all(self) -> None:
        self._remove(0, len(self._maps))

    def _remove(self, first: int, last: int) -> None:
        doomed = self._maps[first:last]
        for watcher in self.watchers:
            for mapping in doomed:
                watcher.unmapped(mapping.iova, mapping.size)
        del self._maps[first:last]
        del self._starts[first:last]
        self._changed()
        for mapping in doomed:
            mapped = mapping.close()
            if mapped is not None:
                self.release(mapped)

    def _changed(self) -> None:
        self.generation += 1
        self._last = None

    @property
    def none_shared(self) -> bool:
        """There is memory, and all of it is reached by message only."""
        return bool(self._maps) and all(mapping.view is None for mapping in self._maps)

    @property
    def maps(self) -> list[Mapping]:
        return list(self._maps)

    def find(self, iova: int) -> Mapping | None:
        """The map that holds bus address `iova`."""
        at = bisect_right(self._starts, iova)
        if at:
            mapping = self._maps[at - 1]
            if iova < mapping.end:
                return mapping
        return None

    # -- access ---------------------------------------------------------------------------------------------------

    def window(self) -> tuple[int, int, memoryview]:
        """The map that was used last, if it may be read and written in place: (first bus address, end, its bytes);
        else an empty range. Good for as long as `generation` stays the same."""
        mapping = self._last
        if (
            not self.enabled
            or mapping is None
            or mapping.view is None
            or not (mapping.readable and mapping.writable)
            or self.log is not None
        ):
            return 0, 0, _NOTHING
        return mapping.iova, mapping.end, mapping.view

    def _fault(self, iova: int, length: int, why: str) -> DmaFault:
        self.faults += 1
        return DmaFault(iova, length, why)

    def _span(self, iova: int, length: int, write: bool) -> list[tuple[Mapping, int, int]]:
        """(map, bus address, length) for each map a range touches."""
        if not self.enabled:
            raise self._fault(iova, length, "bus mastering is off")
        spans = []
        while length > 0:
            mapping = self.find(iova)
            if mapping is None:
                raise self._fault(iova, length, "not mapped")
            if not (mapping.writable if write else mapping.readable):
                raise self._fault(iova, length, "mapped read-only" if write else "mapped write-only")
            size = min(length, mapping.end - iova)
            spans.append((mapping, iova, size))
            iova += size
            length -= size
        return spans

    def view(self, iova: int, length: int, write: bool) -> memoryview | None:
        """One contiguous view; None when the range has no file descriptor or spans maps, and none to write to while
        what is written is logged. Raises `DmaFault`."""
        mapping = self._last
        if mapping is None or not mapping.iova <= iova < mapping.end:
            mapping = self.find(iova)
        spans = None
        if not self.enabled or mapping is None or iova + length > mapping.end:
            spans = self._span(iova, length, write)
        if mapping is None or (spans is not None and len(spans) != 1):
            return None
        if not (mapping.writable if write else mapping.readable):
            raise self._fault(iova, length, "mapped read-only" if write else "mapped write-only")
        self._last = mapping
        if mapping.view is None or (write and self.log is not None):
            return None
        at = iova - mapping.iova
        return mapping.view[at : at + length]

    def by_message(self, iova: int, length: int) -> bool:
        """Whether a part of a range is reached by message only. Raises `DmaFault`."""
        return any(mapping.view is None for mapping, _, _ in self._span(iova, length, False))

    def read(self, iova: int, length: int) -> bytes:
        """A copy of guest memory: descriptors and the like. Raises `DmaFault`."""
        parts = []
        for mapping, address, size in self._span(iova, length, False):
            if mapping.view is not None:
                at = address - mapping.iova
                parts.append(bytes(mapping.view[at : at + size]))
            else:
                parts.append(self._client(address, size).dma_read(address, size))
                self.message_bytes += size
        return b"".join(parts)

    def write(self, iova: int, data: bytes | memoryview) -> None:
        """Raises `DmaFault`; what came before the fault may have been written, as on a real bus."""
        source = memoryview(data)
        for mapping, address, size in self._span(iova, len(source), True):
            part, source = source[:size], source[size:]
            if mapping.view is not None:
                at = address - mapping.iova
                mapping.view[at : at + size] = part
            else:
                self._client(address, size).dma_write(address, part)
                self.message_bytes += size
            if self.log is not None:
                self.log.mark(address, size)

    def _client(self, iova: int, length: int) -> Client:
        if self.client is None:
            raise self._fault(iova, length, "the client that owns this memory has left")
        return self.client

    def buffer(self, segments: Sequence[Segment], write: bool) -> DmaBuffer:
        """Views of a scatter/gather list in order; see `hba.dma.DmaBuffer`. Raises `DmaFault`."""
        if len(segments) == 1:  # most requests, without a loop
            iova, length = segments[0]
            mapping = self._last
            if (
                mapping is not None
                and mapping.iova <= iova
                and iova + length <= mapping.end
                and (view := mapping.view) is not None
                and (mapping.writable if write else mapping.readable)
                and self.enabled
                and not (write and self.log is not None)
            ):
                at = iova - mapping.iova
                return DmaBuffer(segments, [view[at : at + length]], length)
        views: list[memoryview] = []
        total = 0
        direct = True
        for iova, length in segments:
            for mapping, address, size in self._span(iova, length, write):
                total += size
                if (whole := mapping.view) is None:
                    direct = False
                else:
                    at = address - mapping.iova
                    views.append(whole[at : at + size])
                    self._last = mapping
        if direct:
            if write and self.log is not None:
                return self.log.lend(segments, views, total)
            return DmaBuffer(segments, views, total)
        return MessageBuffer(self, segments, total, write)

    def describe(self) -> list[dict[str, object]]:
        """For `hba show dma`."""
        return [
            {
                "iova": mapping.iova,
                "size": mapping.size,
                "access": ("r" if mapping.readable else "-") + ("w" if mapping.writable else "-"),
                "by": "mapping" if mapping.view is not None else "message",
            }
            for mapping in self._maps
        ]


def _map_file(fd: int, offset: int, size: int, prot: int) -> mmap.mmap:
    """Raises `RequestError(EINVAL)` for what must not be mapped, and mmap's own errors."""
    if offset % PAGE or offset < 0:
        raise RequestError(errno.EINVAL, f"offset 0x{offset:x} of a DMA map is not on a page boundary")
    # Touching a mapped page beyond the end of its file kills the process, so such a map is refused.
    if os.fstat(fd).st_size < offset + size:
        raise RequestError(errno.EINVAL, f"a DMA map to 0x{offset + size:x} of a file that is smaller")
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if prot & DMA_WRITE else 0)
    return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
