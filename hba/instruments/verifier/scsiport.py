"""The verifier between SCSI Port and its miniport."""

from __future__ import annotations

from hba.instruments.verifier.watcher import VerifierWatcher
from hba.miniport.proxy import MiniportEdge, MiniportProxy
from hba.miniport.seen import SeenSrb


class ScsiPortVerifierProxy(MiniportProxy):
    """The miniport gets its SRBs under guard, in StartIo."""

    def __init__(self, inner: MiniportEdge, watcher: VerifierWatcher) -> None:
        super().__init__(inner)
        self.watcher = watcher

    def hw_start_io(self, srb: SeenSrb) -> object:
        return self.inner.hw_start_io(self.watcher.guard(srb))
