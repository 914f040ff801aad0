from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hba.miniport.base import Miniport
from tests.port.storport.rig import Rig

MakeRig = Callable[..., Rig]


@pytest.fixture(params=[True, False], ids=["traced", "untraced"])
def make_rig(request: pytest.FixtureRequest) -> Iterator[MakeRig]:
    """Makes rigs and closes them: make_rig(miniport=None, level="report", trace=False, **StorPortConfig fields).

    Every test runs with a trace and without one, unless it says `trace` itself."""
    rigs: list[Rig] = []

    def make(miniport: Miniport | None = None, **options: Any) -> Rig:
        rigs.append(Rig(miniport, **{"trace": request.param, **options}))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.loop.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
