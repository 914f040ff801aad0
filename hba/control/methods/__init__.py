"""Everything that can be called, one module per subject. A new method goes into its module's METHODS."""

from __future__ import annotations

from hba.control.method import Method
from hba.control.methods import events, lun, server, show, trace, verifier

METHODS: tuple[Method, ...] = (
    *server.METHODS,
    *show.METHODS,
    *lun.METHODS,
    *verifier.METHODS,
    *events.METHODS,
    *trace.METHODS,
)
