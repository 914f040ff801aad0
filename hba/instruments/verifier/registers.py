"""The verifier at the registers of a function: how a driver may not access them (GD-11 to GD-13)."""

from __future__ import annotations

from typing import Final

from hba.pci.function import PciFunction
from hba.pci.registers import Register, RegisterWatcher
from hba.verifier import Verifier

MOST_TOLD: Final = 4096  # different ones; a guest can make up more

MSIX = ("MSIX_TABLE", "MSIX_PBA")  # the client keeps the guest's, these answer whoever has none of its own


class RegisterVerifier(RegisterWatcher):
    """Of one BAR, called `where`. Each thing is told once."""

    def __init__(self, verifier: Verifier, where: str) -> None:
        self._verifier = verifier
        self._where = where
        self._told: set[tuple[object, ...]] = set()

    def _report(self, rule: str, value: int, message: str, *what: object) -> None:
        if what not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(what)
            self._verifier.report(rule, message, where=self._where, value=value)

    def undefined(self, kind: str, offset: int, size: int, value: int) -> None:
        self._report("GD-11", value, f"{kind} of {size} bytes at 0x{offset:x}", "undefined", kind, offset)

    def wrong_width(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        what = f"{kind} of {size} bytes at 0x{offset:x} ({register.name})"
        self._report("GD-12", value, what, "width", kind, register.name, size)

    def wrong_direction(self, kind: str, register: Register, offset: int, size: int, value: int) -> None:
        what = f"{kind} of {register.name}, which is {register.access}"
        self._report("GD-13", value, what, "direction", kind, register.name)


def watch_registers(function: PciFunction, verifier: Verifier) -> None:
    """Put the verifier at every register of the function."""
    for index, bar in function.bars.items():
        watcher = RegisterVerifier(verifier, f"BAR {index}")
        bar.watch(watcher)
        for _, block in bar.blocks:
            if block.name not in MSIX:
                block.watch(watcher)
