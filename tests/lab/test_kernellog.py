"""What the suites in the guest take for trouble in the kernel's log."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import Any

import pytest

from hba.adapters.registry import ADAPTERS
from hba.lab import paths

DRIVER = ADAPTERS.default.driver


@pytest.fixture
def kernellog(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernellog", paths.GUEST_TESTS / "kernellog.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(os, "open", lambda path, flags: os.memfd_create("kmsg"))
    return module


def trouble(kernellog: ModuleType, text: str, level: int = 6, expected: tuple[str, ...] = ()) -> bool:
    log: Any = kernellog.KernelLog(("other_hba", DRIVER.log))
    log.messages = lambda: [(level, text)]
    log.expected += expected
    return bool(log.trouble())


@pytest.mark.parametrize(
    "text",
    [
        f"{DRIVER.name} 0000:00:05.0: an adapter timeout",
        "other_hba: command failed",
        "sd 2:0:0:0: [sda] tag#1 timing out command, waited 30s",
        "I/O error, dev sda, sector 8",
    ],
)
def test_trouble_is_seen(kernellog: ModuleType, text: str) -> None:
    assert trouble(kernellog, text)
    assert not trouble(kernellog, text, expected=("timeout", "failed", "timing out", "I/O error"))


@pytest.mark.parametrize(
    "text", [f"{DRIVER.name}: using MSI", "third_hba: it failed", "sd 2:0:0:0: Attached SCSI disk"]
)
def test_what_is_no_trouble_or_of_others_is_not(kernellog: ModuleType, text: str) -> None:
    assert not trouble(kernellog, text)
    assert trouble(kernellog, text, level=3)


def test_what_drivers_say_at_a_rebind_is_trouble_but_for_that(kernellog: ModuleType) -> None:
    """As the smoke suite has it."""
    text = f"{DRIVER.name} 0000:00:05.0: PVSCSI_CMD_CONFIG failed"
    assert trouble(kernellog, text)
    assert not trouble(kernellog, text, expected=DRIVER.without_bus_master)
