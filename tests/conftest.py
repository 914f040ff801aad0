"""Settings of all tests.

Property tests take the same examples every time, so that a run that fails fails again. `HBA_FUZZ=1` makes them random
and ten times as many: how new defects are looked for.
"""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

GUEST_LIMIT = 1500  # s, for one test with a guest: the longest, a whole conformance suite, takes a third of it

settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("fuzz", max_examples=1000)
settings.load_profile("fuzz" if os.environ.get("HBA_FUZZ") else "repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("qemu") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(GUEST_LIMIT))


def pytest_runtest_teardown() -> None:
    gc.enable()  # see tests.descriptors
