from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hba.port.scsiport.config import ScsiPortConfig
from tests.port.both import Pnped
from tests.port.fakes import TAGGED, FakeMiniport, Rig


@pytest.fixture(params=[True, False], ids=["traced", "untraced"])
def rig(request: pytest.FixtureRequest) -> Iterator[Callable[..., Rig]]:
    """Makes SCSI Port rigs: rig(next="next", instantly=1, options={...}, tagged_queuing=True, ...).

    Every test runs with a trace and without one, unless it says `traced` itself."""
    rigs: list[Rig] = []

    def make(
        next: str = "lu",
        instantly: int | None = None,
        options: dict[str, Any] | None = None,
        verifier: str = "report",
        traced: bool = request.param,
        overrides: dict[str, str] | None = None,
        tagged: bool = True,
        start: bool = True,
        miniport: FakeMiniport | None = None,
        **info: Any,
    ) -> Rig:
        members = {**(TAGGED if tagged else {}), **info}
        fake = miniport if miniport is not None else FakeMiniport(next, instantly, **members)
        made = Rig(
            fake,
            ScsiPortConfig(**{"auto_release": False, **(options or {})}),
            verifier=verifier,
            traced=traced,
            overrides=overrides,
            start=start,
        )
        rigs.append(made)
        return made

    yield make
    for made in rigs:
        made.close()


@pytest.fixture(params=["scsiport", "storport"])
def model(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def make(model: str) -> Iterator[Callable[..., Pnped]]:
    made: list[Pnped] = []

    def of(*arguments: Any, **named: Any) -> Pnped:
        made.append(Pnped(model, *arguments, **named))
        return made[-1]

    yield of
    for rig in made:
        rig.close()
