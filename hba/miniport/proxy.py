"""Between the port and its miniport: what is called for every request, and who may stand in the way there."""

from __future__ import annotations

from typing import Protocol

from hba.miniport.seen import SeenSrb
from hba.native import mypyc_attr


class MiniportEdge(Protocol):
    """What the port calls for requests and interrupts: the miniport, or an instrument in front of it.

    A miniport says that it returns bool; what somebody's returns is an object until it was looked at."""

    def hw_build_io(self, srb: SeenSrb) -> object: ...

    def hw_start_io(self, srb: SeenSrb) -> object: ...

    def hw_interrupt(self) -> object: ...

    def hw_msi_interrupt(self, message_id: int) -> object: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class MiniportProxy:
    """Hands on what is called for every request. Everything else the port calls at the real one, and tells."""

    def __init__(self, inner: MiniportEdge) -> None:
        self.inner = inner

    def hw_build_io(self, srb: SeenSrb) -> object:
        return self.inner.hw_build_io(srb)

    def hw_start_io(self, srb: SeenSrb) -> object:
        return self.inner.hw_start_io(srb)

    def hw_interrupt(self) -> object:
        return self.inner.hw_interrupt()

    def hw_msi_interrupt(self, message_id: int) -> object:
        return self.inner.hw_msi_interrupt(message_id)
