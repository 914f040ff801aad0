"""An adapter of a type, with the instruments that are wanted at its registers and rings."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from hba.adapters.adapter import Adapter
from hba.adapters.ring.adapter import RingAdapter
from hba.adapters.ring.trace import RingTrace
from hba.adapters.ring.verifier import RingVerifier
from hba.adapters.types import AdapterType, Wiring
from hba.instruments.verifier.registers import watch_registers
from hba.trace.recorder import Recorder
from hba.verifier import Verifier


def make_adapter(
    kind: AdapterType[Any],
    wiring: Wiring,
    options: Struct,
    verifier: Verifier | None = None,
    trace: Recorder | None = None,
) -> Adapter:
    """One that is not started yet. It does not learn who watches it."""
    adapter = kind.make(wiring, options)
    if verifier is not None:
        watch_registers(adapter.function, verifier)
        if isinstance(adapter, RingAdapter):
            adapter.watch(RingVerifier(verifier, adapter))
        if kind.watch is not None:
            kind.watch(adapter, verifier)
    if trace is not None and isinstance(adapter, RingAdapter):
        adapter.watch(RingTrace(trace))
    return adapter
