"""A watcher of registers made of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.pci.registers import RegisterWatcher


def watching(**methods: Callable[..., Any]) -> RegisterWatcher:
    """One whose named methods are these."""
    return type("Watching", (RegisterWatcher,), {name: staticmethod(method) for name, method in methods.items()})()
