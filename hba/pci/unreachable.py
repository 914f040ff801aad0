"""Why a device cannot reach an address of the guest, and what to do about it, for people."""

from __future__ import annotations

from typing import Final

from hba.errors import DmaFault
from hba.pci.memory import GuestMemory

SHARE: Final = "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem"


def explain(memory: GuestMemory, fault: DmaFault) -> str:
    """One sentence: cause; next step."""
    where = f"0x{fault.iova:x}+0x{fault.length:x}"
    mapping = memory.find(fault.iova)
    if not memory.enabled:
        return f"{where}: {fault.why}; the guest's driver has to set the bus master bit first"
    if not memory.maps:
        return f"{where}: the client has given no memory at all; for QEMU: {SHARE}"
    if mapping is None:
        count = len(memory.maps)
        regions = "the one region" if count == 1 else f"the {count} regions"
        return (
            f"{where} is outside {regions} of memory the client gave, up to 0x{memory.maps[-1].end - 1:x}; "
            "the guest's driver gave a wrong address, or that memory was taken away: see `hba show dma`"
        )
    if mapping.view is None:
        return (
            f"{where} is memory the client does not share (share=off, or no file behind it), and a message to reach it "
            f"failed: {fault.why}; for QEMU: {SHARE}"
        )
    if fault.iova + fault.length > mapping.end:
        return (
            f"{where} reaches beyond the client's memory, which ends at 0x{mapping.end - 1:x}; the guest's driver gave "
            "a wrong address or length: see `hba show dma`"
        )
    return f"{where}: {fault.why}; the guest's driver gave the wrong memory: see `hba show dma`"
