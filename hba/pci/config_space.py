"""Config space: 4096 bytes, all of them declared registers or zero.

It is a `RegisterBlock` like any other, so write masks, write-one-to-clear status bits, BAR sizing and the decoded view
come from the declarations (PCI Local Bus Specification 3.0, chapter 6). The extended space is empty: zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hba.pci.bars import IO, Bar
from hba.pci.capabilities import Capability
from hba.pci.identity import Identity
from hba.pci.registers import RO, RW, RW1C, Bits, DeclarationError, Field, Register, RegisterBlock

SIZE = 4096
FIRST_CAPABILITY = 0x40
CAPABILITIES_END = 0x100
BARS = 6

# Command register
COMMAND_IO = 1 << 0
COMMAND_MEMORY = 1 << 1
COMMAND_BUS_MASTER = 1 << 2
COMMAND_INTX_DISABLE = 1 << 10

STATUS_INTERRUPT = 1 << 3

_SOURCE = "PCI Local Bus Specification 3.0, section 6.1"
_COMMAND: dict[str, Bits | Field] = {
    "IO_SPACE": 0,
    "MEMORY_SPACE": 1,
    "BUS_MASTER": 2,
    "SPECIAL_CYCLES": Field(3, RO),
    "MEMORY_WRITE_INVALIDATE": 4,
    "VGA_SNOOP": Field(5, RO),
    "PARITY_RESPONSE": 6,
    "SERR_ENABLE": 8,
    "FAST_BACK_TO_BACK": Field(9, RO),
    "INTX_DISABLE": 10,
}
_STATUS: dict[str, Bits | Field] = {
    "INTERRUPT": Field(3, RO, doc="the interrupt line is asserted, whether or not it is disabled"),
    "CAPABILITIES": Field(4, RO),
    "MASTER_DATA_PARITY_ERROR": 8,
    "DEVSEL": Field((10, 9), RO, {0: "fast", 1: "medium", 2: "slow"}),
    "SIGNALED_TARGET_ABORT": 11,
    "RECEIVED_TARGET_ABORT": 12,
    "RECEIVED_MASTER_ABORT": 13,
    "SIGNALED_SYSTEM_ERROR": 14,
    "DETECTED_PARITY_ERROR": 15,
}


class ConfigSpace(RegisterBlock):
    """The registers of a type 0 header, the BARs' own and those of the capabilities.

    `bars`          index 0-5 -> BAR; a 64-bit BAR takes the next index too
    `capabilities`  in the order of their linked list
    `rom_size`      bytes of the expansion ROM, a power of two from 2048, or 0 for none (0x30 then stays zero)
    `interrupt_pin` 1 is INTA#, 0 none

    Raises `DeclarationError` for BARs that collide or capabilities that do not fit.
    """

    def __init__(
        self,
        identity: Identity,
        bars: Mapping[int, Bar],
        capabilities: Sequence[Capability] = (),
        rom_size: int = 0,
        interrupt_pin: int = 1,
    ) -> None:
        self.identity = identity
        self.bars = dict(sorted(bars.items()))
        first, structures = _place(capabilities)
        super().__init__(
            "CONFIG",
            [
                *_header(identity, first, interrupt_pin),
                *_base_addresses(self.bars),
                _rom(rom_size),
                *structures,
            ],
            SIZE,
        )
        self._command = self.cell("COMMAND")
        self._status = self.cell("STATUS")

    @property
    def command(self) -> int:
        return self._command.value

    def bar_address(self, index: int) -> int:
        """The base address software gave BAR `index`; 0 when it gave none. Raises KeyError without such a BAR."""
        bar = self.bars[index]
        low = self[f"BAR{index}"]
        if bar.space == IO:
            return low & ~0x3
        return low & ~0xF | (self[f"BAR{index}_HIGH"] << 32 if bar.wide else 0)

    def check_saved(self, values: Mapping[str, int]) -> None:
        """As of any block; and what software cannot write must be as it is here: it is another function otherwise."""
        super().check_saved(values)
        for register in self.registers:
            fixed = register.masks[RO]
            if register.name == "STATUS":
                fixed &= ~STATUS_INTERRUPT
            here = self[register.name]
            if (values[register.name] ^ here) & fixed:
                raise ValueError(
                    f"config space: {register.name} is 0x{values[register.name]:x} there and 0x{here:x} here: another "
                    "adapter, or one that is configured otherwise"
                )

    def restore(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            cell = self.cell(name)
            masks = cell.register.masks
            writable = masks[RW] | masks[RW1C]
            cell.value = cell.value & ~writable | value & writable

    def set_interrupt_status(self, asserted: bool) -> None:
        """Show the interrupt line in the status register."""
        if asserted:
            self._status.value |= STATUS_INTERRUPT
        else:
            self._status.value &= ~STATUS_INTERRUPT


def _header(identity: Identity, first_capability: int, interrupt_pin: int) -> list[Register]:
    status = 1 << 4 if first_capability else 0
    return [
        Register("VENDOR_ID", 0x00, 16, RO, identity.vendor, source=_SOURCE),
        Register("DEVICE_ID", 0x02, 16, RO, identity.device, source=_SOURCE),
        Register("COMMAND", 0x04, 16, fields=_COMMAND, source="PCI Local Bus Specification 3.0, section 6.2.2"),
        Register("STATUS", 0x06, 16, RW1C, status, _STATUS, source="PCI Local Bus Specification 3.0, section 6.2.3"),
        Register("REVISION_ID", 0x08, 8, RO, identity.revision, source=_SOURCE),
        Register("PROGRAMMING_INTERFACE", 0x09, 8, RO, identity.class_code & 0xFF, source=_SOURCE),
        Register("SUBCLASS", 0x0A, 8, RO, identity.class_code >> 8 & 0xFF, source=_SOURCE),
        Register("BASE_CLASS", 0x0B, 8, RO, identity.class_code >> 16, source=_SOURCE),
        Register("CACHE_LINE_SIZE", 0x0C, 8, RW, source=_SOURCE),
        Register("LATENCY_TIMER", 0x0D, 8, RW, source=_SOURCE),
        Register("HEADER_TYPE", 0x0E, 8, RO, source=_SOURCE),
        Register("BIST", 0x0F, 8, RO, source=_SOURCE),
        Register("CARDBUS_CIS", 0x28, 32, RO, source=_SOURCE),
        Register("SUBSYSTEM_VENDOR_ID", 0x2C, 16, RO, identity.subsystem_vendor, source=_SOURCE),
        Register("SUBSYSTEM_ID", 0x2E, 16, RO, identity.subsystem, source=_SOURCE),
        Register("CAPABILITIES_POINTER", 0x34, 8, RO, first_capability, source=_SOURCE),
        Register("INTERRUPT_LINE", 0x3C, 8, RW, source=_SOURCE),
        Register("INTERRUPT_PIN", 0x3D, 8, RO, interrupt_pin, values={0: "none", 1: "INTA#"}, source=_SOURCE),
        Register("MIN_GNT", 0x3E, 8, RO, source=_SOURCE),
        Register("MAX_LAT", 0x3F, 8, RO, source=_SOURCE),
    ]


def _base_addresses(bars: Mapping[int, Bar]) -> list[Register]:
    registers: list[Register] = []
    taken: dict[int, int] = {}
    for index, bar in bars.items():
        for slot in (index, index + 1) if bar.wide else (index,):
            if not 0 <= slot < BARS:
                raise DeclarationError(f"BAR {index} does not exist: a function has BARs 0 to {BARS - 1}")
            if slot in taken:
                raise DeclarationError(f"BAR {index} takes index {slot}, which belongs to BAR {taken[slot]}")
            taken[slot] = index
        registers += bar.registers(index)
    for index in range(BARS):
        if index not in taken:
            registers.append(Register(f"BAR{index}", 0x10 + 4 * index, 32, RO, doc="not implemented", source=_SOURCE))
    return registers


def _rom(size: int) -> Register:
    if not size:
        return Register("EXPANSION_ROM", 0x30, 32, RO, doc="not implemented", source=_SOURCE)
    if size < 2048 or size & (size - 1) or size > 1 << 24:
        raise DeclarationError(f"an expansion ROM has a power of two of 2 KiB to 16 MiB, not {size} bytes")
    fields: dict[str, Bits | Field] = {"ENABLE": 0, "ADDRESS": (31, size.bit_length() - 1)}
    source = "PCI Local Bus Specification 3.0, section 6.2.5.2"
    return Register("EXPANSION_ROM", 0x30, 32, fields=fields, doc=f"ROM of 0x{size:x} bytes", source=source)


def _place(capabilities: Sequence[Capability]) -> tuple[int, list[Register]]:
    """Lay the structures out one after the other; returns where the first is (0: none) and all their registers."""
    places: list[int] = []
    offset = FIRST_CAPABILITY
    for capability in capabilities:
        if offset + capability.length > CAPABILITIES_END:
            raise DeclarationError(f"no room for capability {capability.name} at 0x{offset:x}")
        places.append(offset)
        offset = (offset + capability.length + 3) & ~3
    registers: list[Register] = []
    for capability, place, following in zip(capabilities, places, [*places[1:], 0], strict=False):
        registers += capability.header(place, following)
        registers += capability.registers(place)
    return (places[0] if places else 0), registers
