"""Settings of all tests.

Property tests take the same examples every time, so that a run that fails fails again. `HBA_FUZZ=1` makes them random
and ten times as many: how new defects are looked for. `HBA_MUTANTS=1` stops at the first one that fails.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from hba.clock import VirtualClock
from hba.loop import EventLoop
from hba.pci.function import PciFunction
from hba.scsi.medium import MediumUnit
from hba.scsi.server import DeviceServer
from hba.watchdog import FILE_VARIABLE, LIMIT_VARIABLE, Watchdog
from tests.engines import ENGINES, require

GUESTS = ("tests/guest/", "tests/bench/test_guest.py")  # where the tests with a guest are
GUEST_LIMIT = 1500  # s, for one test with a guest: the longest, a whole conformance suite, takes a third of it

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", max_examples=1000, deadline=None)
settings.register_profile(
    "mutants", settings.get_profile("repeatable"), phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False
)
settings.load_profile(
    "fuzz" if os.environ.get("HBA_FUZZ") else "mutants" if os.environ.get("HBA_MUTANTS") else "repeatable"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("qemu"):
            if not item.nodeid.startswith(GUESTS):
                raise pytest.UsageError(f"{item.nodeid} has a guest and is not below {' or '.join(GUESTS)}")
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(GUEST_LIMIT))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes one has all tests with guests, one after the other, and begins with them."""
    from xdist.scheduler import LoadScopeScheduling

    class GuestsTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "guest" if nodeid.startswith(GUESTS) else nodeid

    return GuestsTogether(config, log)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine's name, as in a configuration. Skips where what it needs is missing, and says what that is."""
    name: str = request.param
    require(name)
    return name


def pytest_runtest_teardown() -> None:
    gc.enable()  # see tests.descriptors


# -- no turn of an event loop takes long ------------------------------------------------------------------------------

LIMIT = 50  # ms of CPU; see hba.watchdog


@pytest.fixture(scope="session", autouse=True)
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Every event loop of this process is watched, and every server's; long turns land in this list.

    So is what tests do without a loop, as one would: a command, a register access.
    """
    found: list[str] = []
    watchdog = Watchdog(LIMIT * 1_000_000, found.append)

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            results: list[object] = []
            watchdog.turn(lambda: results.append(function(*arguments)))
            return results[0]

        return run

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (EventLoop, "run_once"),
            (DeviceServer, "execute"),
            (MediumUnit, "execute"),
            (PciFunction, "region_write"),
            (VirtualClock, "run_due"),
        ):
            patch.setattr(owner, name, watched(getattr(owner, name)))
        patch.setenv(LIMIT_VARIABLE, str(LIMIT))
        patch.setenv(FILE_VARIABLE, str(tmp_path_factory.mktemp("turns") / "long"))
        yield found
    watchdog.close()


@pytest.fixture(autouse=True)
def short_turns(request: pytest.FixtureRequest, turns: list[str]) -> Iterator[None]:
    """Fails a test in which a turn took too long, in this process or in a server."""
    servers = Path(os.environ[FILE_VARIABLE])
    turns.clear()
    servers.unlink(missing_ok=True)
    yield
    told = list(turns)
    if servers.exists():
        told.append(servers.read_text("utf-8"))
    traced = sys.gettrace() is not None  # by coverage, as for scripts/mutate: all takes several times as long
    if told and not traced and request.node.get_closest_marker("long_turns") is None:
        pytest.fail("\n".join(told), pytrace=False)
