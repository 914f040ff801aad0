"""A miniport with a loop that has no end: a READ(10) of one block address never comes back from hw_start_io."""

from __future__ import annotations

from hba.miniport.dma import DmaMiniport
from hba.srb import Srb

NEVER = 0x7E  # the last byte of that block address


class WedgedMiniport(DmaMiniport):
    def hw_start_io(self, srb: Srb) -> bool:
        while srb.cdb[0] == 0x28 and srb.cdb[5] == NEVER:
            pass
        return super().hw_start_io(srb)
