"""Routines of the library, called by a scripted Storport miniport from the callback a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.port.storport.rig import Rig, Scripted

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    """make_rig(find=None, level="report", start=True, miniport=None, **StorPortConfig fields); `find(config)` runs in
    hw_find_adapter."""
    rigs: list[Rig] = []

    def make(
        find: Callable[[Any], object] | None = None,
        level: str | None = "report",
        start: bool = True,
        miniport: Scripted | None = None,
        **options: Any,
    ) -> Rig:
        miniport = miniport if miniport is not None else Scripted()
        made = Rig(miniport, level, start=False, **options)
        rigs.append(made)
        miniport.find = find  # type: ignore[assignment]  # what it returns is nobody's
        if start:
            made.port.start()
        return made

    yield make
    for made in rigs:
        made.loop.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


def in_build_io(rig: Rig, action: Callable[[Any], object]) -> Any:
    """Run `action(srb)` in hw_build_io, at DISPATCH_LEVEL; the SRB as it was submitted."""

    def build(srb: Any) -> bool:
        action(srb)
        return True

    rig.scripted.build = build
    submitted = rig.submit()
    rig.scripted.build = None
    return submitted


def above_dispatch(rig: Rig, call: Callable[[], Any]) -> Any:
    """What `call()` returns in hw_interrupt."""
    got: list[Any] = []
    rig.in_interrupt(lambda: got.append(call()))
    return got[0]
