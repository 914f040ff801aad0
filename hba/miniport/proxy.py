"""A miniport in front of a miniport: where an instrument stands between the port and the real one."""

from __future__ import annotations

from hba.miniport.base import Miniport
from hba.srb import Srb


class MiniportProxy(Miniport):
    """Hands on what is called for every request. Everything else the port calls at the real one, and tells."""

    def __init__(self, inner: Miniport) -> None:
        self.inner = inner

    def hw_build_io(self, srb: Srb) -> bool:
        return self.inner.hw_build_io(srb)

    def hw_start_io(self, srb: Srb) -> bool:
        return self.inner.hw_start_io(srb)

    def hw_interrupt(self) -> bool:
        return self.inner.hw_interrupt()

    def hw_msi_interrupt(self, message_id: int) -> bool:
        return self.inner.hw_msi_interrupt(message_id)
