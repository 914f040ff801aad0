"""The PCI function: registers, interrupts, mapped memory, how often it was reached."""

from __future__ import annotations

from typing import Literal

from hba.shapes import BusAddress, Bytes, Count, Result


class FieldValue(Result):
    """Some bits of a register, in place `bits` (`7` or `7:4`). `meaning`: the value's name, if it has one."""

    name: str
    bits: str
    value: Count
    meaning: str | None


class RegisterValue(Result):
    """A register. `offset`: bytes into its BAR or config space; `width`: bits; `reads`, `writes`: by the guest."""

    name: str
    offset: Count
    width: Literal[8, 16, 32, 64]
    access: Literal["ro", "wo", "rw", "rw1c", "rw1s", "rc"]
    value: Count
    reset: Count
    fields: list[FieldValue]
    reads: Count
    writes: Count
    doc: str


class RegisterBlock(Result):
    """Registers that belong together, and accesses that met none of them, or one in a way it does not have."""

    block: str
    registers: list[RegisterValue]
    undefined_accesses: Count
    wrong_width_accesses: Count
    wrong_direction_accesses: Count


class Identity(Result):
    """What config space says of vendor and device."""

    vendor: Count
    device: Count
    subsystem_vendor: Count
    subsystem: Count
    class_code: Count
    revision: Count


class Bar(Result):
    """A base address register. `address`: what the guest wrote; `enabled`: it is decoded."""

    index: Count
    space: Literal["memory", "io", "rom"]
    size: Bytes
    address: BusAddress
    enabled: bool
    undefined_accesses: Count


class Regs(Result):
    """Registers: config space, BARs, the adapter's own."""

    identity: Identity
    power_state: Literal["D0", "D1", "D2", "D3hot"]
    bus_master: bool
    bars: list[Bar]
    config: RegisterBlock
    adapter: RegisterBlock


class IrqIndex(Result):
    """Vectors of one kind. `connected`: those the client listens to; `resample`: it tells when a level was served."""

    index: Count
    name: str
    vectors: Count
    connected: list[Count]
    masked: list[Count]
    pending: list[Count]
    resample: bool


class Interrupts(Result):
    """How the guest is interrupted. `line`: the adapter asks for one now; `sent`: by kind; `held`, `ignored`, `failed`:
    signals that wait for an unmask, that nobody wanted, that could not be given."""

    mode: Literal["none", "intx", "msi", "msix"]
    blocked: bool
    line: bool
    signals: Count
    sent: dict[str, Count]
    held: Count
    ignored: Count
    failed: Count
    indexes: list[IrqIndex]


class MappedRange(Result):
    """Guest memory the device may use. `by`: mapped here, or reached by message to the client."""

    iova: BusAddress
    size: Bytes
    access: Literal["--", "r-", "-w", "rw"]
    by: Literal["mapping", "message"]


class Accesses(Result):
    """How often the guest read and wrote BARs and config space. `refused`: what was outside of them."""

    reads: Count
    writes: Count
    config_reads: Count
    config_writes: Count
    refused: Count


class PciCounters(Result):
    """What was counted at the PCI function."""

    accesses: Accesses
    resets: Count
    connections: Count
