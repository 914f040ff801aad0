from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.adapters.pvscsi.driver import Driver


@pytest.fixture
def make() -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def factory(**options: Any) -> Driver:
        drivers.append(Driver(**options))
        return drivers[-1]

    yield factory
    for driver in drivers:
        driver.close()


@pytest.fixture
def driver(make: Callable[..., Driver]) -> Driver:
    result = make()
    assert result.setup() == 0
    return result


@pytest.fixture
def watched(make: Callable[..., Driver]) -> Driver:
    result = make(verify=True)
    assert result.setup() == 0
    return result
