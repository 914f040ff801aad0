"""MB-11: the scatter/gather list a watched miniport gets is a list like any other, until its request completes."""

from __future__ import annotations

from typing import Any

from tests.port.storport.rig import Rig


def test_a_list_like_any_other() -> None:
    rig = Rig()
    srb = rig.submit()
    mine = rig.scripted.started[0]
    segments: Any = rig.scripted.port.get_scatter_gather_list(mine)
    same = list(segments)
    assert segments == same and segments != [*same, (0, 1)] and segments != 5
    assert segments == rig.scripted.port.get_scatter_gather_list(mine)
    assert (segments[0], segments[-1], segments[0:1], len(segments)) == (same[0], same[-1], same, 1)
    assert repr(segments) == "<ScatterGatherList of 1 elements>"
    assert rig.found == set()
    segments[0] = (0, 1)
    assert list(segments) == same
    rig.finish_all()
    assert srb.mdl is not None
    own = srb.mdl.segments
    uses: list[Any] = [
        lambda: segments == own,
        lambda: segments == same,
        lambda: segments[0],
        lambda: len(segments),
        lambda: next(iter(segments)),
    ]
    for number, use in enumerate(uses, 2):
        use()
        assert rig.messages("MB-11") == ["scatter/gather list written; it is read-only"] + [
            "scatter/gather list used after its request was completed"
        ] * (number - 1)
    rig.close()
