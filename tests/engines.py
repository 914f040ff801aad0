"""Which engines there are to test, and which of them can be tested here."""

from __future__ import annotations

import pytest

from hba.config.model import ENGINES
from hba.errors import EngineMissing
from hba.vfio_user.libvfio_user.find import find

# In place of the fixture `engine`: what the test is about is the native engine's own, or differs (docs/engines.md).
only_native = pytest.mark.parametrize("engine", ["native"])
only_library = pytest.mark.parametrize("engine", ["libvfio-user"])


def require(engine: str) -> None:
    """Skip a test of an engine whose library is missing."""
    if engine == "libvfio-user":
        try:
            find()
        except EngineMissing as missing:
            pytest.skip(str(missing))


__all__ = ["ENGINES", "only_library", "only_native", "require"]
