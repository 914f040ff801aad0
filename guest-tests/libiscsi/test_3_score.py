"""How many tests have passed, over all disks."""

from __future__ import annotations

import pytest
import tool

AT_LEAST = 140


def test_enough_have_passed(score, disks_by_kind):
    listed = tool.tests()
    if score.cases() < len(listed) * len(disks_by_kind):
        pytest.skip("not all tests were selected")
    passed = score.passed()
    print(f"{len(passed)} of {len(listed)} tests have passed")
    assert len(passed) >= AT_LEAST
