"""Cache entries are whole or not there."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from hba import places
from hba.errors import PermissionDenied
from hba.lab.cache import Cache, key_of
from hba.lab.progress import Progress, Step


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(Progress(io.StringIO()), tmp_path / "cache")


def write_name(folder: Path, _step: Step) -> None:
    (folder / "name").write_text("x")


def test_an_entry_is_built_once(cache: Cache) -> None:
    assert (cache.entry("a", "making a", write_name) / "name").read_text() == "x"

    def never(folder: Path, _step: Step) -> None:
        raise AssertionError("built twice")

    assert cache.entry("a", "making a", never) == cache.path("a")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(cache: Cache, error: BaseException) -> None:
    def fail(folder: Path, step: Step) -> None:
        write_name(folder, step)
        raise error

    with pytest.raises(type(error)):
        cache.entry("a", "making a", fail)
    assert not cache.path("a").exists()
    assert [path.name for path in cache.root.iterdir()] == [".a.lock"]


def test_what_a_killed_build_left_is_removed(cache: Cache) -> None:
    left = cache.root / ".a.building"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "old").touch()
    (left / "sub").chmod(0o500)
    entry = cache.entry("a", "making a", write_name)
    assert sorted(path.name for path in entry.iterdir()) == ["name"]


def test_two_builders_wait_for_each_other(cache: Cache) -> None:
    entered, go_on = threading.Event(), threading.Event()
    built: list[int] = []

    def slowly(folder: Path, _step: Step) -> None:
        built.append(1)
        entered.set()
        assert go_on.wait(30)

    threads = [threading.Thread(target=cache.entry, args=("a", "making a", slowly)) for _ in range(2)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert built == [1]


def test_the_folder_is_chosen_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBA_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert places.cache_root() == Path("/a")
    monkeypatch.delenv("HBA_CACHE")
    assert places.cache_root() == Path("/b/hba")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert places.cache_root() == Path("/c/.cache/hba")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermissionDenied, match="HBA_CACHE"):
        Cache(Progress(io.StringIO()), tmp_path / "file" / "cache")


def test_keys_tell_their_parts_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a") == key_of(b"a")
    assert len(key_of("a")) == 12
