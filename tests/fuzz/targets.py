"""The harnesses there are, by name, which is that of the module beside this. A new one is a module and a name here."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.target import Target

NAMES = ("wire", "registers", "rings", "scatter", "cdbs", "control", "configuration", "state")


def target(name: str) -> Target:
    """One harness. What it attacks is imported with it, and only that: a fuzzer instruments what it imports."""
    found: Target = import_module(f"tests.fuzz.{name}").TARGET
    return found
