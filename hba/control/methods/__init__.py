"""Everything that can be called, one module per subject. A new method goes into its module's METHODS
(for `show`: SUBJECTS)."""

from __future__ import annotations

from hba.control.method import Method
from hba.control.methods import events, inject, lun, server, show, trace, verifier
from hba.control.results.show import SHOWN, Shown


def methods(shapes: Shown) -> tuple[Method, ...]:
    """All; `shapes` are those of the types of adapters there are."""
    return (
        *server.METHODS,
        *show.methods(shapes),
        *lun.METHODS,
        *inject.METHODS,
        *verifier.METHODS,
        *events.METHODS,
        *trace.METHODS,
    )


METHODS = methods(SHOWN)
