"""One PCI function: config space, BARs, interrupts and guest memory behind the engine's `Device` interface.

An adapter makes its register blocks, puts them in BARs and the BARs in a `PciFunction`; from then on it hears from the
guest through its registers' handlers, reaches the guest's memory through `memory` and answers through `interrupts`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from typing import Final

from hba.loop import EventLoop
from hba.pci.bars import IO, Bar, MsixLayout, msix_pba, msix_table
from hba.pci.capabilities import PM_STATES, Capability, Msi, Msix, PowerManagement
from hba.pci.config_space import (
    BARS,
    COMMAND_BUS_MASTER,
    COMMAND_INTX_DISABLE,
    COMMAND_IO,
    COMMAND_MEMORY,
    SIZE,
    ConfigSpace,
)
from hba.pci.doorbells import Doorbells
from hba.pci.identity import Identity
from hba.pci.interrupts import NUM_IRQS, Interrupts
from hba.pci.memory import GuestMemory
from hba.pci.plain_memory import MappableFile, PlainMemory
from hba.pci.registers import Cell, DeclarationError, RegisterBlock, document
from hba.pci.release import Release
from hba.pci.state import FunctionState, Keeper
from hba.vfio_user.device import (
    REGION_MMAP,
    REGION_READ,
    REGION_WRITE,
    Client,
    Done,
    IoEventFd,
    IrqInfo,
    RegionInfo,
    RequestError,
    Wire,
)

# Region indexes of vfio-pci (linux/vfio.h)
ROM_REGION: Final = 6
CONFIG_REGION: Final = 7
VGA_REGION: Final = 8
NUM_REGIONS: Final = 9

D0: Final = 0


class PciFunction:
    """A function on the bus.

    `bars`         index 0-5 -> `Bar`
    `msi_vectors`  of the MSI capability; 0: without it
    `msix`         where the MSI-X table lies; None: without the capability. Mind that QEMU 11.1 aborts when a device
                   with MSI-X is unplugged.
    `rom`          contents of the expansion ROM
    `capabilities` further ones, after power management, MSI and MSI-X
    `ioeventfds`   offer events for doorbells. The guest then does not wait until a write there has arrived
    `posted_writes` let QEMU post writes to memory BARs. By default it is kept from it: a device that looks at a reset
                   or ring set-up after the driver has gone on may write to memory the driver has given back.

    `on_reset`          called when the guest or the client resets the function, after bus mastering went off and
                        before the registers go back to their reset values
    `on_client`         called with True when a client has connected, with False when it has left
    `on_resume`         called when the function may reach memory (bus mastering on, in D0) after it could not: what the
                        guest asked for meanwhile has to be looked for
    `on_config_change`  called after decoding, bus mastering, power state or the interrupt mechanism changed
    `keeper`            saves and restores it with what is behind it; None: it cannot be moved

    Raises `DeclarationError` for layouts PCI does not allow.
    """

    num_regions = NUM_REGIONS
    num_irqs = NUM_IRQS

    def __init__(
        self,
        loop: EventLoop,
        identity: Identity,
        bars: Mapping[int, Bar],
        memory: GuestMemory,
        *,
        msi_vectors: int = 1,
        msix: MsixLayout | None = None,
        rom: bytes | None = None,
        capabilities: Sequence[Capability] = (),
        posted_writes: bool = False,
        ioeventfds: bool = False,
    ) -> None:
        self.identity = identity
        self.memory = memory
        memory.release = Release(loop).add
        self.bars = dict(bars)
        self.interrupts = Interrupts(loop, msi_vectors, msix.vectors if msix else 0)
        # QEMU waits for the answer to each write once it has seen a mappable region, whatever its size. So an unused
        # BAR is one, of no bytes, with a file nobody will ever map.
        self._mappable: tuple[int, int] | None = None
        if not posted_writes:
            self._mappable = (self._unused_bar(), os.memfd_create("hba-no-posted-writes", os.MFD_CLOEXEC))
        self._doorbells = Doorbells(loop, self.bars if ioeventfds else {}, self._rung)
        self._files = {
            index: MappableFile(f"hba-bar{index}", bar.size, areas)
            for index, bar in self.bars.items()
            if (areas := [(start, block) for start, block in bar.blocks if isinstance(block, PlainMemory)])
        }
        self._power = PowerManagement()
        offered: list[Capability] = [self._power]
        if msi_vectors:
            offered.append(Msi(msi_vectors))
        if msix is not None:
            self._place_msix(msix)
            offered.append(Msix(msix))
        offered += capabilities
        self._rom = _padded(rom) if rom else b""
        self.config = ConfigSpace(identity, self.bars, offered, rom_size=len(self._rom))
        self._has_msi = msi_vectors > 0
        self._has_msix = msix is not None
        self.power_state = D0
        self._decoding: dict[int, Bar] = {}  # BARs that answer now, by region index
        self.on_reset: list[Callable[[], None]] = []
        self.on_resume: list[Callable[[], None]] = []
        self.on_config_change: list[Callable[[], None]] = []
        self.on_client: list[Callable[[bool], None]] = []
        self.reads = 0  # BAR accesses that were answered
        self.writes = 0
        self.config_reads = 0
        self.config_writes = 0
        self.refused = 0  # accesses to a BAR that does not decode
        self.resets = 0
        self.connections = 0
        self.is_connected = False
        self.keeper: Keeper | None = None
        self.stopped = False  # by the client: no memory of its is touched, nobody is interrupted, no BAR answers
        self.interrupts.on_line = self.config.set_interrupt_status
        self.config.on_write("COMMAND", self._config_written)
        self.config.on_write("PM_CONTROL", self._power_written)
        if self._has_msi:
            self.config.on_write("MSI_CONTROL", self._config_written)
        if self._has_msix:
            self.config.on_write("MSIX_CONTROL", self._config_written)
        self._apply()

    def _unused_bar(self) -> int:
        taken = set(self.bars) | {index + 1 for index, bar in self.bars.items() if bar.wide}
        free = [index for index in range(BARS) if index not in taken]
        if not free:
            raise DeclarationError("without posted writes one BAR must be left unused")
        return free[-1]

    def close(self) -> None:
        """Release what the function holds of the system; it serves nobody any more."""
        self.interrupts.disconnect()
        self._doorbells.forget()
        self.memory.unmap_all()
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._mappable is not None:
            os.close(self._mappable[1])
            self._mappable = None

    def _place_msix(self, layout: MsixLayout) -> None:
        if layout.bar not in self.bars:
            raise DeclarationError(f"the MSI-X table is in BAR {layout.bar}, which does not exist")
        pba = msix_pba(layout.vectors)
        for index, register in enumerate(pba.registers):
            first = 64 * index

            def pending(first: int = first) -> int:
                return self.interrupts.pending_bits(first)

            pba.on_read(register.name, pending, peek=pending)
        self.bars[layout.bar].place(layout.table_offset, msix_table(layout.vectors))
        self.bars[layout.bar].place(layout.pba_offset, pba)

    # -- the Device interface ---------------------------------------------------------------------------------

    def region_info(self, index: int) -> RegionInfo:
        if not 0 <= index < NUM_REGIONS:
            raise RequestError(errno.EINVAL, f"region {index} does not exist")
        if index == CONFIG_REGION:
            return RegionInfo(SIZE, REGION_READ | REGION_WRITE)
        if index == ROM_REGION and self._rom:
            return RegionInfo(len(self._rom), REGION_READ)
        if self._mappable is not None and index == self._mappable[0]:
            return RegionInfo(0, REGION_MMAP, self._mappable[1])
        bar = self.bars.get(index) if index < BARS else None
        if bar is None:
            return RegionInfo()
        file = self._files.get(index)
        if file is None:
            return RegionInfo(bar.size, REGION_READ | REGION_WRITE)
        return RegionInfo(bar.size, REGION_READ | REGION_WRITE | REGION_MMAP, file.fd, 0, file.sparse)

    def irq_info(self, index: int) -> IrqInfo:
        return self.interrupts.info(index)

    def region_io_fds(self, index: int) -> tuple[IoEventFd, ...]:
        return self._doorbells.of(index)

    def _rung(self, index: int, cell: Cell) -> None:
        """A write to a doorbell came as an event."""
        if index in self._decoding:
            self.writes += 1
            cell.write(0)
        else:
            self.refused += 1  # whoever is told of what happens here looks for it by itself when it may again

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        bar = self._decoding.get(index)
        if bar is not None:
            self.reads += 1
            return bar.read(offset, count).to_bytes(count, "little")
        return self._read_other(index, offset, count)

    def region_write(self, index: int, offset: int, data: bytes | memoryview) -> None:
        bar = self._decoding.get(index)
        if bar is not None:
            self.writes += 1
            bar.write(offset, len(data), int.from_bytes(data, "little"))
            return
        self._write_other(index, offset, data)

    def at_once(self, index: int, offset: int, count: int) -> bool:
        bar = self._decoding.get(index)
        return bar is not None and bar.is_local(offset, count)

    def _read_other(self, index: int, offset: int, count: int) -> bytes:
        if index == CONFIG_REGION:
            self.config_reads += 1
            return self.config.read(offset, count).to_bytes(count, "little")
        if index == ROM_REGION and self._rom:
            return self._rom[offset : offset + count].ljust(count, b"\xff")
        if index in self.bars:
            self.refused += 1
            self._check_running(index)
            return b"\xff" * count  # what a read nobody claims returns on a PC
        raise RequestError(errno.EINVAL, f"region {index} cannot be read")

    def _write_other(self, index: int, offset: int, data: bytes | memoryview) -> None:
        if index == CONFIG_REGION:
            self.config_writes += 1
            self.config.write(offset, len(data), int.from_bytes(data, "little"))
        elif index in self.bars:
            self.refused += 1
            self._check_running(index)
        else:
            raise RequestError(errno.EINVAL, f"region {index} cannot be written")

    def _check_running(self, index: int) -> None:
        if self.stopped:
            raise RequestError(errno.EBUSY, f"access to region {index} while the device is stopped for migration")

    def dma_map(self, iova: int, size: int, prot: int, fd: int | None, offset: int) -> None:
        self.memory.map(iova, size, prot, fd, offset)

    def dma_map_here(self, iova: int, size: int, prot: int, memory: mmap, at: int) -> None:
        self.memory.adopt(iova, size, prot, memory, at)

    def dma_unmap(self, iova: int, size: int) -> int:
        return self.memory.unmap(iova, size)

    def dma_unmap_all(self) -> None:
        self.memory.unmap_all()

    def set_irqs(self, index: int, flags: int, start: int, count: int, fds: list[int], data: bytes) -> None:
        self.interrupts.set_irqs(index, flags, start, count, fds, data)

    def connect_irqs(self, index: int, start: int, wires: Sequence[Wire | None]) -> None:
        self.interrupts.connect(index, start, wires)

    def reset(self) -> None:
        """Back to power-on: config space, interrupts, adapter, registers, in that order. Maps and eventfds stay."""
        self.resets += 1
        self._let_go()
        self.interrupts.reset()  # before INTx takes over from MSI: an asserted line must not fire now
        self.config.reset()
        self.power_state = D0
        self._apply()
        for callback in self.on_reset:
            callback()
        for bar in self.bars.values():
            bar.reset()
        self.interrupts.reset()
        self._changed()

    # Migration

    @property
    def can_migrate(self) -> bool:
        return self.keeper is not None

    def stop(self, done: Done) -> None:
        def at_rest(why: str) -> None:
            if why:
                self._go_on()
                done(RequestError(errno.EBUSY, why))
                return
            self.stopped = True
            self._apply()
            done(None)

        if self.keeper is None or self.stopped:
            at_rest("")
        else:
            self.keeper.rest(at_rest, force=True, flush=True)

    def uses(self, iova: int, size: int) -> bool:
        return self.keeper is not None and self.keeper.uses(iova, size)

    def rest(self, done: Done) -> None:
        if self.keeper is None or self.stopped:
            done(None)
        else:
            self.keeper.rest(lambda why: done(RequestError(errno.EBUSY, why) if why else None))

    def release(self) -> None:
        if not self.stopped:
            self._go_on()

    def _let_go(self) -> None:
        self.stopped = False
        if self.keeper is not None:
            self.keeper.release()

    def _go_on(self) -> None:
        """What the guest has asked for meanwhile has to be looked for."""
        self._let_go()
        self._apply()
        if self.memory.enabled:
            for callback in self.on_resume:
                callback()

    def resume(self) -> None:
        self._go_on()

    def save(self) -> bytes:
        assert self.keeper is not None
        try:
            return self.keeper.save()
        except ValueError as error:
            raise RequestError(errno.EOPNOTSUPP, str(error)) from None

    def restore(self, state: bytes) -> None:
        assert self.keeper is not None
        try:
            self.keeper.restore(state)
        except ValueError as error:
            self.reset()
            raise RequestError(errno.EINVAL, str(error)) from None
        except Exception:
            self.reset()
            raise

    def log_dma(self, done: Done) -> None:
        def at_rest(error: RequestError | None) -> None:
            if error is None:
                self.memory.start_log()
            self.release()
            done(error)

        self.rest(at_rest)

    def stop_logging_dma(self) -> None:
        self.memory.stop_log()

    def dirty_bitmap(self, iova: int, length: int, page_size: int) -> bytes:
        return self.memory.dirty_bitmap(iova, length, page_size)

    def capture(self) -> FunctionState:
        """What is saved of the function itself."""
        return FunctionState(
            self.config.save(),
            {key: block.save() for key, block in self._blocks().items()},
            {key: block.contents for key, block in self._blocks().items() if isinstance(block, PlainMemory)},
            self.interrupts.save(),
        )

    def check_saved(self, state: FunctionState) -> None:
        """Raises ValueError unless `state` is of a function like this one."""
        self.config.check_saved(state.config)
        if state.config["PM_CONTROL"] & 3 not in self._power.states:
            raise ValueError("config space: PM_CONTROL has a power state this function does not have")
        blocks = self._blocks()
        if other := sorted(blocks.keys() ^ state.blocks.keys()):
            raise ValueError(f"registers: {other[0]} is on one side only")
        for key, block in blocks.items():
            block.check_saved(state.blocks[key])
            if isinstance(block, PlainMemory) and len(state.memory.get(key, b"")) != block.size:
                raise ValueError(f"the state does not have all of the memory at {key}")
        self.interrupts.check_saved(state.interrupts)

    def take_over(self, state: FunctionState) -> None:
        """Become the function that `state`, which was checked, is of; still stopped."""
        self.config.restore(state.config)
        self.power_state = self.config.field("PM_CONTROL", "POWER_STATE")
        for key, block in self._blocks().items():
            block.restore(state.blocks[key])
            if isinstance(block, PlainMemory):
                block.fill(state.memory[key])
        self._apply()
        self.interrupts.restore(state.interrupts)
        self._changed()

    def _blocks(self) -> dict[str, RegisterBlock]:
        return {
            f"{index}+0x{start:x}": block for index, bar in sorted(self.bars.items()) for start, block in bar.blocks
        }

    def connected(self, client: Client) -> None:
        self.connections += 1
        self.is_connected = True
        self.memory.client = client
        for told in self.on_client:
            told(True)

    def disconnected(self) -> None:
        """The machine has gone, and the function with its power: the next client finds it as after power on."""
        self.is_connected = False
        self.memory.stop_log()
        self._doorbells.forget()
        self.interrupts.disconnect()
        self.reset()
        self.memory.unmap_all()
        self.memory.client = None
        for told in self.on_client:
            told(False)

    # -- what config space decides ----------------------------------------------------------------------------

    def _config_written(self, _value: int) -> None:
        self._obey()

    def _obey(self) -> None:
        reached_memory = self.memory.enabled
        self._apply()
        self._changed()
        if self.memory.enabled and not reached_memory:
            for callback in self.on_resume:
                callback()

    def _power_written(self, _value: int) -> None:
        cell = self.config.cell("PM_CONTROL")
        state = cell.value & 3
        if state not in self._power.states:
            # A state the function does not have: the write completes and changes nothing (PCI PM 1.2, section 3.2.4).
            cell.value = cell.value & ~3 | self.power_state
            return
        self.power_state = state
        self._obey()

    def _changed(self) -> None:
        for callback in self.on_config_change:
            callback()

    def _apply(self) -> None:
        """Obey the command register, the power state and the interrupt capabilities as they stand."""
        powered = self.power_state == D0 and not self.stopped
        command = self.config.command if powered else 0
        self._decoding = {
            index: bar
            for index, bar in self.bars.items()
            if command & (COMMAND_IO if bar.space == IO else COMMAND_MEMORY)
        }
        self.memory.enable(bool(command & COMMAND_BUS_MASTER))
        # A message interrupt is a memory write of the function's own, so it needs bus mastering.
        blocked = not self.memory.enabled
        config = self.config
        if self._has_msix and config.field("MSIX_CONTROL", "ENABLE"):
            self.interrupts.configure("msix", blocked=blocked or bool(config.field("MSIX_CONTROL", "FUNCTION_MASK")))
        elif self._has_msi and config.field("MSI_CONTROL", "ENABLE"):
            granted = 1 << config.field("MSI_CONTROL", "MULTIPLE_MESSAGE_ENABLE")
            self.interrupts.configure("msi", blocked=blocked, allocated=granted)
        elif self.power_state == D0 and not self.config.command & COMMAND_INTX_DISABLE:
            self.interrupts.configure("intx", blocked=self.stopped)
        else:
            self.interrupts.configure("none")

    # -- views ------------------------------------------------------------------------------------------------

    def decode_registers(self) -> list[dict[str, object]]:
        """For `hba show regs`: the decoded view of every block, each with the BAR it is in."""
        return [
            {"bar": index, **view}
            for index, bar in sorted(self.bars.items())
            for view in bar.decode()
            if view["block"] != "MSIX_TABLE"  # the guest's table never reaches us, ours says nothing
        ]

    def document(self) -> str:
        """The register manual of this function in Markdown, from the declarations: config space, then each BAR."""
        parts = [document("Config space", self.config.registers)]
        for index, bar in sorted(self.bars.items()):
            for start, block in bar.blocks:
                if block.name not in ("MSIX_TABLE", "MSIX_PBA"):
                    title = f"BAR {index} ({bar.space}, 0x{bar.size:x} bytes): {block.name} at 0x{start:x}"
                    parts.append(document(title, block.registers))
        return "\n".join(parts)

    def snapshot(self) -> dict[str, object]:
        """For `hba show pci`; JSON-able, without side effects."""
        return {
            "identity": {
                "vendor": self.identity.vendor,
                "device": self.identity.device,
                "subsystem_vendor": self.identity.subsystem_vendor,
                "subsystem": self.identity.subsystem,
                "class_code": self.identity.class_code,
                "revision": self.identity.revision,
            },
            "connected": self.is_connected,
            "connections": self.connections,
            "resets": self.resets,
            "power_state": PM_STATES[self.power_state],
            "bus_master": self.memory.enabled,
            "bars": [
                {
                    "index": index,
                    "space": bar.space,
                    "size": bar.size,
                    "address": self.config.bar_address(index),
                    "enabled": index in self._decoding,
                    "undefined_accesses": bar.undefined_accesses,
                }
                for index, bar in sorted(self.bars.items())
            ],
            "accesses": {
                "reads": self.reads,
                "writes": self.writes,
                "config_reads": self.config_reads,
                "config_writes": self.config_writes,
                "refused": self.refused,
            },
            "config": self.config.decode(),
            "interrupts": self.interrupts.snapshot(),
            "dma": self.memory.describe(),
        }


def _padded(rom: bytes) -> bytes:
    """A ROM image filled up with ones to the size its base address register can express."""
    size = max(2048, 1 << (len(rom) - 1).bit_length())
    return rom.ljust(size, b"\xff")
