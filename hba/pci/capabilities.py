"""Capabilities in config space: each is a few declared registers and its place in the linked list.

A capability declares its registers relative to its own start and without the two header bytes; `ConfigSpace` places
it, links it and adds them. A new one (PCI Express, vital product data) is another subclass.
"""

from __future__ import annotations

from hba.pci.bars import MsixLayout
from hba.pci.registers import RO, Bits, DeclarationError, Field, Register

PM_STATES = {0: "D0", 1: "D1", 2: "D2", 3: "D3hot"}


class Capability:
    """A capability structure: `name` prefixes its registers, `length` is in bytes with the two header bytes."""

    name: str
    id: int
    length: int

    def registers(self, base: int) -> list[Register]:
        """Its registers behind the header, for a structure that starts at `base`."""
        raise NotImplementedError

    def header(self, base: int, following: int) -> list[Register]:
        """The capability ID and the pointer to the `following` structure (0: this is the last)."""
        source = "PCI Local Bus Specification 3.0, section 6.7"
        return [
            Register(f"{self.name}_CAPABILITY_ID", base, 8, RO, self.id, source=source),
            Register(f"{self.name}_NEXT", base + 1, 8, RO, following, source=source),
        ]


class PowerManagement(Capability):
    """PCI Power Management 1.2: D0 and D3hot always, D1 and D2 by option. State survives D3hot, no PME#."""

    name = "PM"
    id = 0x01
    length = 8

    def __init__(self, d1: bool = False, d2: bool = False) -> None:
        self.states = frozenset({0, 3} | ({1} if d1 else set()) | ({2} if d2 else set()))

    def registers(self, base: int) -> list[Register]:
        source = "PCI Bus Power Management Interface Specification 1.2, section 3.2"
        capabilities = 3 | (1 in self.states) << 9 | (2 in self.states) << 10
        return [
            Register(
                "PM_CAPABILITIES",
                base + 2,
                16,
                RO,
                capabilities,
                {"VERSION": (2, 0), "D1_SUPPORT": 9, "D2_SUPPORT": 10, "PME_SUPPORT": (15, 11)},
                doc="What the function's power management can do",
                source=source,
            ),
            Register(
                "PM_CONTROL",
                base + 4,
                16,
                reset=1 << 3,
                fields={
                    "POWER_STATE": Field((1, 0), values=PM_STATES),
                    "NO_SOFT_RESET": Field(3, RO, doc="the way from D3hot to D0 keeps all state"),
                },
                doc="Power state",
                source=source,
            ),
        ]


class Msi(Capability):
    """Message signalled interrupts with a 64-bit address, 1 to 32 vectors (a power of two), without masking."""

    name = "MSI"
    id = 0x05
    length = 14

    def __init__(self, vectors: int = 1) -> None:
        if vectors not in (1, 2, 4, 8, 16, 32):
            raise DeclarationError(f"MSI has 1, 2, 4, 8, 16 or 32 vectors, not {vectors}")
        self.vectors = vectors

    def registers(self, base: int) -> list[Register]:
        source = "PCI Local Bus Specification 3.0, section 6.8.1"
        counts = {power: f"{1 << power} vectors" for power in range(6)}
        log2 = self.vectors.bit_length() - 1
        return [
            Register(
                "MSI_CONTROL",
                base + 2,
                16,
                reset=log2 << 1 | 1 << 7,
                fields={
                    "ENABLE": 0,
                    "MULTIPLE_MESSAGE_CAPABLE": Field((3, 1), RO, counts),
                    "MULTIPLE_MESSAGE_ENABLE": Field((6, 4), values=counts),
                    "ADDRESS_64": Field(7, RO),
                },
                doc="MSI message control",
                source=source,
            ),
            Register("MSI_ADDRESS", base + 4, 32, fields={"ADDRESS": (31, 2)}, source=source),
            Register("MSI_ADDRESS_HIGH", base + 8, 32, source=source),
            Register("MSI_DATA", base + 12, 16, source=source),
        ]


class Msix(Capability):
    """MSI-X; the table and the pending bit array are areas of a BAR."""

    name = "MSIX"
    id = 0x11
    length = 12

    def __init__(self, layout: MsixLayout) -> None:
        self.layout = layout

    def registers(self, base: int) -> list[Register]:
        source = "PCI Local Bus Specification 3.0, section 6.8.2"
        layout = self.layout
        place: dict[str, Bits | Field] = {"OFFSET_8": Field((31, 3), doc="offset in units of 8 bytes"), "BAR": (2, 0)}
        return [
            Register(
                "MSIX_CONTROL",
                base + 2,
                16,
                reset=layout.vectors - 1,
                fields={
                    "TABLE_SIZE": Field((10, 0), RO, doc="vectors - 1"),
                    "FUNCTION_MASK": 14,
                    "ENABLE": 15,
                },
                doc="MSI-X message control",
                source=source,
            ),
            Register("MSIX_TABLE", base + 4, 32, RO, layout.table_offset | layout.bar, place, source=source),
            Register("MSIX_PBA", base + 8, 32, RO, layout.pba_offset | layout.bar, place, source=source),
        ]
