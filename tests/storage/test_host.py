"""With loop devices, where this machine lets us make them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from hba.clock import S
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import host, sysfs
from hba.storage.host import HostBackend
from hba.storage.workers import WorkerPool
from tests.storage.util import Sync, operations, run_against_model

SIZE = 1 << 20


@pytest.fixture(params=[512])
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A loop device; its parameter is its sector size."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(SIZE)
    try:
        command = ["losetup", "-f", "--show", "--sector-size", str(request.param), str(backing)]
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("losetup is missing (package util-linux/mount)")
    if result.returncode:
        pytest.skip(f"no loop devices here (root and /dev/loop-control needed): {result.stderr.strip()}")
    path = Path(result.stdout.strip())
    yield path
    subprocess.run(["losetup", "-d", str(path)], check=True)


@pytest.mark.parametrize("device", [512, 4096], indirect=True)
@pytest.mark.parametrize("direct", [True, False])
def test_behaves_like_a_bytearray(device: Path, direct: bool) -> None:
    @settings(max_examples=15, deadline=None)
    @given(operations(SIZE))
    def check(todo: list[tuple[str, int, int, int]]) -> None:
        loop = EventLoop()
        workers = WorkerPool(loop, threads=2)
        backend = HostBackend(device, loop, workers, direct=direct)
        sync = Sync(loop, backend)
        sync.zero(0, SIZE)
        run_against_model(sync, bytearray(SIZE), todo)
        backend.close()
        assert workers.shutdown()
        loop.close()

    check()


@pytest.mark.parametrize("device", [4096], indirect=True)
def test_large_sectors_are_what_the_unit_reports(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    assert (backend.granule, backend.medium_block, backend.logical_block_size) == (1, 4096, 4096)
    backend.close()


def test_in_use_is_refused(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    with pytest.raises(StorageError, match="it is in use"):
        HostBackend(device, loop, workers)
    backend.close()
    HostBackend(device, loop, workers).close()


def test_a_new_size_is_noticed(device: Path, tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    if not backend.describe()["watched"]:
        pytest.skip("libudev is missing (package libudev1)")
    events: list[str] = []
    backend.on_event = events.append
    os.truncate(tmp_path / "backing", 2 * SIZE)
    subprocess.run(["losetup", "-c", str(device)], check=True)
    while not events:
        loop.run_once(None)
    assert (events, backend.size) == (["resized"], 2 * SIZE)
    backend.close()


def test_removal_and_return(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    """The kernel's messages are played: a loop device cannot be pulled while it is open."""
    backend = HostBackend(device, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 512)
    number = device.stat().st_rdev
    backend._device_event("remove", number + 1)
    assert events == []
    backend._device_event("remove", number)
    backend._device_event("remove", number)
    for call in (lambda: sync.read(0, 512), lambda: sync.write(0, bytes(512)), sync.flush):
        with pytest.raises(StorageError, match="has gone") as caught:
            call()
        assert caught.value.errno == errno.ENODEV
    assert backend.describe()["state"] == "gone"
    # Its name is free again: nothing of ours has it open.
    os.close(os.open(device, os.O_RDWR | os.O_EXCL))
    backend._device_event("add", number)
    assert events == ["gone", "back"]
    assert sync.read(0, 512) == b"x" * 512
    backend.close()


def pulled_and_back(backend: HostBackend, device: Path) -> None:
    number = device.stat().st_rdev
    backend._device_event("remove", number)
    backend._device_event("add", number)
    assert not backend.gone


def test_a_flush_does_not_vouch_for_what_was_written_before_a_removal(
    device: Path, loop: EventLoop, workers: WorkerPool
) -> None:
    backend = HostBackend(device, loop, workers)
    sync = Sync(loop, backend)
    for change in (lambda: sync.write(0, b"x" * 512), lambda: sync.zero(0, 4096)):
        change()
        pulled_and_back(backend, device)
        with pytest.raises(StorageError, match="may be lost") as caught:
            sync.flush()
        assert caught.value.errno == errno.EIO
        sync.flush()  # said once
    backend.close()


def test_what_was_flushed_is_not_lost_by_a_removal(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 512)
    sync.flush()
    sync.write(512, b"y" * 512, fua=True)
    pulled_and_back(backend, device)
    sync.flush()
    sync.write(0, b"z" * 512)
    pulled_and_back(backend, device)
    backend.forget_lost()  # the guest was told of the removal, and starts over
    sync.flush()
    backend.close()


def test_a_flush_that_a_removal_overtakes(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    Sync(loop, backend).write(0, b"x" * 512)
    outcomes: list[StorageError | None] = []
    assert not backend.flush(outcomes.append)
    pulled_and_back(backend, device)
    while not outcomes:
        loop.run_once(S)
    assert outcomes[0] is not None and outcomes[0].errno == errno.EIO
    Sync(loop, backend).flush()
    backend.close()


def test_another_device_under_the_name_is_not_taken(
    device: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ["ours"]
    monkeypatch.setattr(sysfs, "identity", lambda node: who[0])
    backend = HostBackend(device, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    number = device.stat().st_rdev
    backend._device_event("remove", number)
    who[0] = "another"
    backend._device_event("add", number)
    assert events == ["gone"]
    who[0] = "ours"
    backend._device_event("add", number)
    assert events == ["gone", "back"]
    backend.close()


def test_a_name_that_comes_later_than_the_device_is_found(
    device: Path, tmp_path: Path, loop: EventLoop, workers: WorkerPool
) -> None:
    """udev makes /dev/disk/by-id/ after the kernel's news, and no news of its own comes here."""
    name = tmp_path / "by-id"
    name.symlink_to(device)
    backend = HostBackend(name, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    number = device.stat().st_rdev
    name.unlink()
    backend._device_event("remove", number)
    backend._device_event("add", number)
    assert events == ["gone"]
    name.symlink_to(device)
    backend._watch()
    assert events == ["gone", "back"]
    backend.close()


def test_any_error_of_a_device_that_is_not_there_any_more(
    device: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says EIO at first. Without its news, our own looking finds out that the device is away."""
    backend = HostBackend(device, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    assert backend._explain(StorageError("", errno.EIO), "read", 0, 512).errno == errno.EIO
    assert events == []
    with monkeypatch.context() as away:
        away.setattr(host, "_size", lambda fd: 0)
        away.setattr(sysfs, "is_there", lambda node: False)
        assert backend._explain(StorageError("", errno.EIO), "read", 0, 512).errno == errno.ENODEV
        backend._watch()
        assert events == ["gone"]
    backend._watch()
    assert events == ["gone", "back"]
    backend.close()


def test_a_device_without_a_size_has_gone(
    device: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the medium's removal from a drive leaves, or `losetup -d`."""
    backend = HostBackend(device, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    monkeypatch.setattr(backend, "_measure", lambda: 0)
    for _ in range(2):
        backend.check_size()
        while backend.in_flight:
            loop.run_once(None)
    assert events == ["gone"]
    assert backend.size == SIZE
    with pytest.raises(StorageError, match="has gone"):
        Sync(loop, backend).read(0, 512)
    monkeypatch.undo()
    backend._device_event("change", device.stat().st_rdev)
    while backend.in_flight:
        loop.run_once(None)
    assert events == ["gone", "back"]
    assert Sync(loop, backend).read(0, 512) == bytes(512)
    backend.close()


def test_an_error_that_says_gone_is_believed(device: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = HostBackend(device, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    error = backend._explain(StorageError("", errno.ENXIO), "read", 0, 512)
    assert (error.errno, events) == (errno.ENODEV, ["gone"])
    backend.close()


@pytest.mark.parametrize(
    ("path", "says"), [("/dev/no-such-disk", "lsblk"), ("/dev/null", "not a block device"), ("/tmp", 'kind = "file"')]
)
def test_errors_at_opening(path: str, says: str, loop: EventLoop, workers: WorkerPool) -> None:
    with pytest.raises(StorageError, match=says):
        HostBackend(path, loop, workers)
