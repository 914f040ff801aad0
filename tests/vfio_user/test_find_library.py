"""Where libvfio-user is looked for, and what is said when it is not there or cannot be used."""

from __future__ import annotations

import ctypes.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.errors import EXIT_ENGINE, EngineMissing
from hba.loop import EventLoop
from hba.vfio_user.libvfio_user import find as module
from hba.vfio_user.libvfio_user import probe
from hba.vfio_user.libvfio_user.binding import SONAME, DmaRange, Unusable
from hba.vfio_user.libvfio_user.engine import LibraryEngine
from hba.vfio_user.libvfio_user.find import SOURCES, VARIABLE, Found, Place, find, place
from tests.engines import require
from tests.vfio_user.support import FakeDevice


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Nothing is remembered from one test to the other."""
    module._tried.cache_clear()
    yield
    module._tried.cache_clear()


def refused(configured: Path | None = None) -> str:
    with pytest.raises(EngineMissing) as caught:
        find(configured)
    assert caught.value.exit_code == EXIT_ENGINE == 12
    why = str(caught.value)
    assert SOURCES in why and VARIABLE in why and 'engine = "native"' in why
    return why


def test_who_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert place() == Place(SONAME, "the loader")
    assert place(tmp_path / "a.so") == Place(str(tmp_path / "a.so"), "the configuration")
    monkeypatch.setenv(VARIABLE, "other.so.0")
    assert place(tmp_path / "a.so") == Place("other.so.0", VARIABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "./b.so")
    assert place() == Place(str(tmp_path / "b.so"), VARIABLE)
    monkeypatch.setenv(VARIABLE, "")
    assert place() == Place(SONAME, "the loader")


def test_it_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    assert f"{tmp_path}/none.so (named by {VARIABLE}): cannot open shared object file" in refused()
    monkeypatch.delenv(VARIABLE)
    assert f"{tmp_path}/mine.so (named by the configuration): cannot open" in refused(tmp_path / "mine.so")


def test_it_is_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "text.so"))
    assert "text.so" in refused()
    libc = ctypes.util.find_library("c")
    assert libc is not None
    monkeypatch.setenv(VARIABLE, libc)
    assert "it has no function vfu_create_ctx" in refused()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "trying it out ended with SIGSEGV"),
        ("raise SystemExit('what it said')", "trying it out failed: what it said"),
        ("raise SystemExit(3)", "trying it out failed: exit code 3"),
        ("print('[]')", "trying it out failed"),
        ("""print('{"why": "it refuses VERSION"}')""", "it refuses VERSION"),
        ("import time; time.sleep(60)", "does not answer within"),  # a library that hangs is what is tested
    ],
)
def test_trying_it_out_goes_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, said: str) -> None:
    """What the library does there, it does to a process of its own."""
    (tmp_path / "probe.py").write_text(does)
    monkeypatch.setattr(module, "PROBE", [sys.executable, str(tmp_path / "probe.py")])
    monkeypatch.setattr(module, "PATIENCE", 1 if "sleep" in does else 20)
    assert said in refused()


ELSEWHERE = DmaRange(0x20000, 0x1000, 3, 1, 1, 1)
NOWHERE = DmaRange(0x10000, 0x1000, 3, 0, 0, 0)


@pytest.mark.parametrize(
    ("called", "why"),
    [([], "0 callbacks"), ([(2, NOWHERE)], "third"), ([(0, ELSEWHERE)], "layout"), ([(1, NOWHERE)], "layout")],
)
def test_an_abi_nobody_knows(called: list[tuple[int, DmaRange]], why: str) -> None:
    with pytest.raises(Unusable, match=why):
        probe._judge(called)


# -- with the library -------------------------------------------------------------------------------------------------


def test_it_is_found_and_serves() -> None:
    require("libvfio-user")
    found = find()
    assert found.file.startswith("/") and Path(found.file).name.startswith("libvfio-user.so")
    assert found.file in found.told
    loop = EventLoop()
    ours, theirs = os.pipe()
    os.close(ours)
    os.close(theirs)
    engine = LibraryEngine(loop, "", FakeDevice(), library=found)
    assert engine.snapshot()["library"] == found.file
    engine.close()
    loop.close()


def test_the_other_abi_would_not_do(tmp_path: Path) -> None:
    """The probe tells apart what would not work: with the wrong one the first map of a client goes to the wrong
    callback, or to none."""
    require("libvfio-user")
    found = find()
    wrong = [sys.executable, "-c", _WRONG, found.file, str(int(not found.dma_limit))]
    status = os.spawnv(os.P_WAIT, sys.executable, wrong)
    assert status != 0
    right = [sys.executable, "-c", _WRONG, found.file, str(int(found.dma_limit))]
    assert os.spawnv(os.P_WAIT, sys.executable, right) == 0


# Sets a device up as if the library had the ABI that is said, lets a client map memory, and exits with 0 when the
# device has heard of it.
_WRONG = """
import sys
from hba.loop import EventLoop
from hba.vfio_user.libvfio_user.find import Found, Place
from tests.vfio_user.support import FakeDevice, ENGINES, run_beside
from hba.vfio_user.client import GuestRam, VfioUserClient
import socket
loop, device = EventLoop(), FakeDevice()
found = Found(Place(sys.argv[1], "a test"), sys.argv[1], sys.argv[2] == "1")
server = ENGINES["libvfio-user"](loop, "", device, library=found)
ours, theirs = socket.socketpair()
server.take(ours.detach())
server.start()
client = VfioUserClient(theirs)
with GuestRam(0x1000, 0x1000) as ram:
    run_beside(loop, client.version)
    run_beside(loop, lambda: client.map_ram(ram))
    sys.exit(0 if (0x1000, 0x1000) in device.mapped else 1)
"""


def test_doctor_says_what_it_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hba.cli import machine
    from hba.lab.doctor import GOOD, LIMITED

    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.so"))
    check = machine._libvfio_user()
    assert check.state == LIMITED
    assert "native" in check.found and SOURCES in check.next_step
    monkeypatch.setattr(machine, "find", lambda: Found(Place("x", "a test"), "/lib/x.so", True))
    check = machine._libvfio_user()
    assert (check.state, check.next_step) == (GOOD, "")
    assert "/lib/x.so, by a test" in check.found
