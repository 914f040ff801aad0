"""Which descriptors this process has open, for tests that compare before and after."""

from __future__ import annotations

import gc
import os


def open_fds() -> int:
    """How many descriptors this process has open.

    What earlier tests left in reference cycles goes before the first count, and nothing is collected between that and
    the end of the test (`tests/conftest.py` switches the collector on again): a descriptor more or less is the test's.
    """
    if gc.isenabled():
        gc.collect()
        gc.disable()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
