"""Memory: pool, contiguous and DMA memory, host memory buffers, descriptor lists of pool, copies (LB-04, ST-08).

What a device can reach has bus addresses of the port's own (hba.port.memory): from 2^62 on, or 256 MiB below 2^32 for
who asks for addresses of 32 bits. Other wishes cannot be met: STOR_STATUS_INSUFFICIENT_RESOURCES.

Sources: StorPortAllocatePool, StorPortFreePool, StorPortAllocateContiguousMemorySpecifyCacheNode,
StorPortFreeContiguousMemorySpecifyCache, StorPortAllocateDmaMemory, StorPortFreeDmaMemory,
StorPortAllocateHostMemoryBuffer, StorPortFreeHostMemoryBuffer, StorPortAllocateMdl, StorPortBuildMdlForNonPagedPool,
StorPortFreeMdl, StorPortMarkDumpMemory, StorPortMoveMemory, StorPortSecureCopyMemory, StorPortGetVirtualAddress,
StorPortConvertUlongToPhysicalAddress (storport.h); ScsiPortMoveMemory, ScsiPortGetVirtualAddress,
ScsiPortConvertPhysicalAddressToUlong, ScsiPortConvertUlongToPhysicalAddress (srb.h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hba.dma import HOST_MEMORY_BASE
from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INSUFFICIENT_RESOURCES,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import CALLBACK_NAMES, FIND_ADAPTER, START_IO
from hba.port.library.host import Caller
from hba.port.memory import PortMemory

POOL_LIMIT = 64 << 20  # bytes a miniport may have from StorPortAllocatePool at once
DMA_LIMIT = 256 << 20  # likewise of memory a device can reach
PAGE_SIZE = 4096
HOST_MEMORY_LAST = 2 * HOST_MEMORY_BASE - 1  # no address of the host's own memory is above
ANY_ADDRESS = (1 << 64) - 1
MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS = 0x1

Bytes = bytes | bytearray | memoryview
Writable = bytearray | memoryview


class Pool:
    """Non-paged pool. `tell(bus address, length)`: the device may reach memory that has such an address now."""

    def __init__(
        self,
        caller: Caller,
        memory: PortMemory,
        tell: Callable[[int, int], None],
    ) -> None:
        self._caller = caller
        self._memory = memory
        self._tell = tell
        self._blocks: dict[int, memoryview] = {}  # by id() of what is behind them

    def forget(self) -> None:
        self._blocks.clear()

    def allocate_pool(self, number_of_bytes: int, tag: int = 0) -> tuple[int, memoryview | None]:
        """StorPortAllocatePool: (STOR_STATUS_*, memory or None). `tag`: four characters, for debuggers.

        INVALID_IRQL above DISPATCH_LEVEL, which is so in a half-duplex hw_start_io; INVALID_PARAMETER for no bytes;
        INSUFFICIENT_RESOURCES for more than 64 MiB in all. In a full-duplex hw_start_io HW_STARTIO allows what the rule
        SpNoWait forbids: it works, with a warning (ST-08).
        """
        caller = self._caller
        if caller.callback == START_IO:
            caller.offence("ST-08", "StorPortAllocatePool in a full-duplex hw_start_io", severity="warning")
        if number_of_bytes <= 0:
            return STOR_STATUS_INVALID_PARAMETER, None
        if self._memory.pool + number_of_bytes > POOL_LIMIT:
            return STOR_STATUS_INSUFFICIENT_RESOURCES, None
        self._memory.pool += number_of_bytes
        block = memoryview(bytearray(number_of_bytes))
        self._blocks[id(block.obj)] = block
        return STOR_STATUS_SUCCESS, block

    def free_pool(self, buffer_pointer: memoryview | None) -> int:
        """StorPortFreePool: what AllocatePool returned. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: None, or
        not the port's, or freed already (LB-04)."""
        block = self._blocks.get(id(buffer_pointer.obj)) if isinstance(buffer_pointer, memoryview) else None
        if block is None or block != buffer_pointer:
            self._caller.offence("LB-04", "StorPortFreePool of memory that StorPortAllocatePool did not return")
            return STOR_STATUS_INVALID_PARAMETER
        del self._blocks[id(block.obj)]
        self._memory.pool -= len(block)
        return STOR_STATUS_SUCCESS

    # -- memory descriptor lists of pool ---------------------------------------------------------------------

    def allocate_mdl(self, buffer_pointer: memoryview | None, number_of_bytes: int) -> tuple[int, PoolMdl | None]:
        """StorPortAllocateMdl: (STOR_STATUS_*, list) for pool memory. INVALID_IRQL above DISPATCH_LEVEL;
        INVALID_PARAMETER: no buffer, or more than it has."""
        if not isinstance(buffer_pointer, memoryview) or not 0 < number_of_bytes <= len(buffer_pointer):
            return STOR_STATUS_INVALID_PARAMETER, None
        return STOR_STATUS_SUCCESS, PoolMdl(buffer_pointer[:number_of_bytes])

    def build_mdl_for_non_paged_pool(self, mdl: PoolMdl | None) -> int:
        """StorPortBuildMdlForNonPagedPool: describe the memory; its pages get bus addresses. INVALID_IRQL above
        DISPATCH_LEVEL; INVALID_PARAMETER: no list, or a freed one (LB-04)."""
        if not self._live(mdl, "StorPortBuildMdlForNonPagedPool"):
            return STOR_STATUS_INVALID_PARAMETER
        assert mdl is not None
        if not mdl.segments:
            found = self._memory.physical_address(mdl.memory)
            bus = found[0] if found is not None else self._memory.add(mdl.memory)
            mdl.segments = ((bus, len(mdl.memory)),)
            self._tell(bus, len(mdl.memory))
        return STOR_STATUS_SUCCESS

    def free_mdl(self, mdl: PoolMdl | None) -> int:
        """StorPortFreeMdl. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no list, or freed already (LB-04)."""
        if not self._live(mdl, "StorPortFreeMdl"):
            return STOR_STATUS_INVALID_PARAMETER
        assert mdl is not None
        mdl.freed = True
        return STOR_STATUS_SUCCESS

    def _live(self, mdl: object, routine: str) -> bool:
        if isinstance(mdl, PoolMdl) and not mdl.freed:
            return True
        self._caller.offence("LB-04", f"{routine} of {mdl!r}, which is no list of StorPortAllocateMdl, or not any more")
        return False


@dataclass(eq=False)
class PoolMdl:
    """An MDL of pool memory. `segments`: (bus address, length), once it was built."""

    memory: memoryview
    segments: tuple[tuple[int, int], ...] = ()
    freed: bool = False

    @property
    def length(self) -> int:
        return len(self.memory)


@dataclass(eq=False)
class _Block:
    memory: memoryview
    bus: int
    cache_type: int


class DmaMemory:
    """Contiguous memory the device and the miniport share. `tell(bus address, length)`: the device may reach it."""

    def __init__(self, caller: Caller, memory: PortMemory, tell: Callable[[int, int], None]) -> None:
        self._caller = caller
        self._memory = memory
        self._tell = tell
        self._blocks: dict[int, _Block] = {}  # by bus address
        self._buffers: dict[int, int] = {}  # host memory buffers: bus address -> bytes

    def forget(self) -> None:
        self._blocks.clear()
        self._buffers.clear()

    # -- contiguous and DMA memory -----------------------------------------------------------------------------

    def allocate_contiguous_memory_specify_cache_node(
        self,
        number_of_bytes: int,
        lowest_acceptable_address: int = 0,
        highest_acceptable_address: int = ANY_ADDRESS,
        boundary_address_multiple: int = 0,
        cache_type: int = 0,
        preferred_node: int = 0,
    ) -> tuple[int, memoryview | None]:
        """StorPortAllocateContiguousMemorySpecifyCacheNode: (STOR_STATUS_*, zeroed memory or None).

        Its bus address is `get_physical_address(None, memory)`. At most at DISPATCH_LEVEL. INSUFFICIENT_RESOURCES: no
        such memory within these addresses, or it would cross a multiple of `boundary_address_multiple`.
        """
        status, memory, _ = self.allocate_dma_memory(
            number_of_bytes,
            lowest_acceptable_address,
            highest_acceptable_address,
            boundary_address_multiple,
            cache_type,
            preferred_node,
        )
        return status, memory

    def free_contiguous_memory_specify_cache(
        self, base_address: memoryview, number_of_bytes: int, cache_type: int = 0
    ) -> int:
        """StorPortFreeContiguousMemorySpecifyCache: with the size and cache type it was allocated with. At most at
        DISPATCH_LEVEL. INVALID_PARAMETER: it is not the port's, or these differ (LB-04)."""
        return self._free("StorPortFreeContiguousMemorySpecifyCache", base_address, number_of_bytes, cache_type, None)

    def allocate_dma_memory(
        self,
        number_of_bytes: int,
        lowest_acceptable_address: int = 0,
        highest_acceptable_address: int = ANY_ADDRESS,
        boundary_address_multiple: int = 0,
        cache_type: int = 0,
        preferred_node: int = 0,
    ) -> tuple[int, memoryview | None, int]:
        """StorPortAllocateDmaMemory: (STOR_STATUS_*, zeroed memory or None, its bus address or 0).

        As AllocateContiguousMemorySpecifyCacheNode.
        """
        if number_of_bytes <= 0:
            return STOR_STATUS_INVALID_PARAMETER, None, 0
        taken = sum(len(block.memory) for block in self._blocks.values())
        crosses = boundary_address_multiple and number_of_bytes > boundary_address_multiple
        if crosses or taken + number_of_bytes > DMA_LIMIT:
            return STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0
        if lowest_acceptable_address <= HOST_MEMORY_BASE and highest_acceptable_address >= HOST_MEMORY_LAST:
            memory, bus = self._memory.allocate(number_of_bytes, boundary_address_multiple)
        else:
            low = self._memory.allocate_low(
                number_of_bytes, boundary_address_multiple, lowest_acceptable_address, highest_acceptable_address
            )
            if low is None:
                return STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0
            memory, bus = low
        self._blocks[bus] = _Block(memory, bus, cache_type)
        self._tell(bus, number_of_bytes)
        return STOR_STATUS_SUCCESS, memory, bus

    def free_dma_memory(
        self, base_address: memoryview, number_of_bytes: int, cache_type: int = 0, physical_address: int | None = None
    ) -> int:
        """StorPortFreeDmaMemory: as FreeContiguousMemorySpecifyCache; the bus address may be named, too."""
        return self._free("StorPortFreeDmaMemory", base_address, number_of_bytes, cache_type, physical_address)

    def _free(self, routine: str, memory: object, number_of_bytes: int, cache_type: int, bus: int | None) -> int:
        found = self._memory.physical_address(memory) if isinstance(memory, memoryview) else None
        block = self._blocks.get(found[0]) if found is not None else None
        if block is None or len(block.memory) != number_of_bytes or block.cache_type != cache_type:
            self._caller.offence("LB-04", f"{routine} of memory that is not the port's, or with other arguments")
            return STOR_STATUS_INVALID_PARAMETER
        if bus is not None and bus != block.bus:
            self._caller.offence("LB-04", f"{routine} with bus address {bus:#x} of memory at {block.bus:#x}")
            return STOR_STATUS_INVALID_PARAMETER
        del self._blocks[block.bus]
        self._memory.release(block.memory)
        return STOR_STATUS_SUCCESS

    # -- host memory buffer ------------------------------------------------------------------------------------

    def allocate_host_memory_buffer(
        self,
        minimum_bytes: int,
        preferred_bytes: int,
        utilization_bytes: int,
        alignment_bytes: int,
        lowest_acceptable_address: int = 0,
        highest_acceptable_address: int = ANY_ADDRESS,
        boundary_address_multiple: int = 0,
        physical_address_range_count: int = 1,
    ) -> tuple[int, list[tuple[int, int]]]:
        """StorPortAllocateHostMemoryBuffer: (STOR_STATUS_*, [(bus address, bytes)]), memory for the device alone.

        One range of the preferred size. INVALID_PARAMETER: a minimum above the preferred size, sizes that are no whole
        pages, a boundary, or no room for a range; INSUFFICIENT_RESOURCES as for DMA memory.
        """
        whole = not preferred_bytes % PAGE_SIZE and not minimum_bytes % PAGE_SIZE
        if minimum_bytes > preferred_bytes or not whole:
            return STOR_STATUS_INVALID_PARAMETER, []
        if boundary_address_multiple or physical_address_range_count < 1:
            return STOR_STATUS_INVALID_PARAMETER, []
        if alignment_bytes > PAGE_SIZE or (alignment_bytes and PAGE_SIZE % alignment_bytes):
            return STOR_STATUS_INSUFFICIENT_RESOURCES, []
        status, memory, bus = self.allocate_dma_memory(
            preferred_bytes, lowest_acceptable_address, highest_acceptable_address
        )
        if memory is None:
            return status, []
        self._buffers[bus] = preferred_bytes
        return status, [(bus, preferred_bytes)]

    def free_host_memory_buffer(self, physical_address_ranges: Sequence[tuple[int, int]]) -> int:
        """StorPortFreeHostMemoryBuffer. UNSUCCESSFUL: it was not valid, most likely freed already (LB-04)."""
        ranges = list(physical_address_ranges or ())
        if not ranges or any(self._buffers.get(bus) != length for bus, length in ranges):
            self._caller.offence("LB-04", f"StorPortFreeHostMemoryBuffer of {ranges}, which is none, or not any more")
            return STOR_STATUS_UNSUCCESSFUL
        for bus, _ in ranges:
            del self._buffers[bus]
            self._memory.release(self._blocks.pop(bus).memory)
        return STOR_STATUS_SUCCESS

    # -- dump --------------------------------------------------------------------------------------------------

    def mark_dump_memory(self, address: object, length: int, flags: int = 0) -> int:
        """StorPortMarkDumpMemory: memory a dump or hibernation needs. At any IRQL, but only in hw_find_adapter.

        `address`: memory, or with MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS a bus address; `length` 0: all of it.
        INVALID_PARAMETER: another flag, or no address of the port's.
        """
        caller = self._caller
        if caller.callback != FIND_ADAPTER:
            caller.offence("LB-02", f"StorPortMarkDumpMemory from {CALLBACK_NAMES[caller.callback]}")
        physical = bool(flags & MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS)
        found: tuple[int, int] | None = None
        if physical and isinstance(address, int):
            memory = self._memory.at(address)
            found = (address, len(memory)) if memory is not None else None
        elif not physical and isinstance(address, memoryview):
            found = self._memory.physical_address(address)
        if flags & ~MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS or found is None:
            return STOR_STATUS_INVALID_PARAMETER
        self._memory.marked.append((found[0], length or found[1]))
        return STOR_STATUS_SUCCESS


class Copies:
    """Copying memory; no memory is asked for."""

    def move_memory(self, write_buffer: Writable, read_buffer: Bytes, length: int) -> None:
        """StorPortMoveMemory, ScsiPortMoveMemory: `length` bytes; the two may overlap. Raises ValueError when one is
        shorter, where Windows would write beyond it."""
        if length > len(write_buffer) or length > len(read_buffer) or length < 0:
            raise ValueError(f"moving {length} bytes from {len(read_buffer)} to {len(write_buffer)}")
        write_buffer[:length] = bytes(read_buffer[:length])


class SecureCopies(Copies):
    """Storport has one that checks."""

    def secure_copy_memory(self, dest: Writable | None, dest_size_in_bytes: int, src: Bytes | None, count: int) -> int:
        """StorPortSecureCopyMemory. INVALID_PARAMETER: a buffer is None or shorter than said; BUFFER_TOO_SMALL: `count`
        is above `dest_size_in_bytes`."""
        if dest is None or src is None or count < 0 or dest_size_in_bytes > len(dest):
            return STOR_STATUS_INVALID_PARAMETER
        if count > dest_size_in_bytes:
            return STOR_STATUS_BUFFER_TOO_SMALL
        if count > len(src):
            return STOR_STATUS_INVALID_PARAMETER
        dest[:count] = bytes(src[:count])
        return STOR_STATUS_SUCCESS


class PhysicalAddresses:
    """Conversions of bus addresses."""

    def __init__(self, memory: PortMemory) -> None:
        self._memory = memory

    def get_virtual_address(self, physical_address: int) -> memoryview | None:
        """StorPortGetVirtualAddress, ScsiPortGetVirtualAddress: the memory from a bus address on that
        `get_physical_address` gave, of an uncached extension or SRB extension. None: it is none of the port's."""
        return self._memory.at(physical_address)

    def convert_ulong_to_physical_address(self, ulong_address: int) -> int:
        """StorPortConvertUlongToPhysicalAddress, ScsiPortConvertUlongToPhysicalAddress: the same number."""
        return ulong_address & 0xFFFF_FFFF


class ScsiPortAddresses(PhysicalAddresses):
    """SCSI Port has one more, for adapters with 32 address lines."""

    def convert_physical_address_to_ulong(self, address: int) -> int:
        """ScsiPortConvertPhysicalAddressToUlong: the low 32 bits."""
        return address & 0xFFFF_FFFF
