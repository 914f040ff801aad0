from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.descriptors import open_fds
from tests.vfio_user.conformance.rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Afterwards nothing of it is left: no descriptor, no map."""
    before = open_fds()
    made = Rig()
    yield made
    made.close()
    assert open_fds() == before
    assert made.memory.maps == []
