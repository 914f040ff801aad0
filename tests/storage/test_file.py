from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from hba.clock import S, VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import linux
from hba.storage.file import FileBackend
from hba.storage.vectors import IOV_MAX
from hba.storage.workers import WorkerPool
from tests.descriptors import open_fds
from tests.storage.util import Sync, operations, run_against_model

SIZE = 256 * 1024
MEMORY = Path("/dev/shm")


def make(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"direct": True}, {"inline_writes": "always"}, {"inline_writes": "never"}], ids=str
)
def test_behaves_like_a_bytearray(options: dict[str, bool], tmp_path: Path) -> None:
    @settings(max_examples=30, deadline=None)
    @given(operations(SIZE))
    def check(todo: list[tuple[str, int, int, int]]) -> None:
        path = make(tmp_path / "disk")
        loop = EventLoop()
        workers = WorkerPool(loop, threads=2)
        backend = FileBackend(path, loop, workers, **options)  # type: ignore[arg-type]
        model = bytearray(SIZE)
        run_against_model(Sync(loop, backend), model, todo)
        backend.close()
        assert path.read_bytes() == model
        assert workers.shutdown()
        loop.close()

    check()


def test_in_memory_nothing_is_handed_to_a_worker(loop: EventLoop, workers: WorkerPool) -> None:
    with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
        file.truncate(SIZE)
        if not linux.lives_in_memory(file.fileno()):
            pytest.skip(f"no tmpfs at {MEMORY}")
        backend = FileBackend(file.name, loop, workers)
        sync = Sync(loop, backend)
        sync.write(4096, b"x" * 8192, 100, 200, fua=True)
        sync.flush()
        assert sync.read(4096, 8192, 4096) == b"x" * 8192
        assert sync.later == 0
        backend.close()


def test_what_the_page_cache_has_is_read_at_once(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"abcd" * 1024)
    backend = FileBackend(path, loop, workers, read_only=True)
    sync = Sync(loop, backend)
    for _ in range(3):
        assert sync.read(0, 4096) == b"abcd" * 1024
    assert backend.reads == 3
    assert backend.bytes_read == 3 * 4096
    assert backend.hand_offs <= 1
    backend.close()


def test_more_views_than_one_call_takes(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = FileBackend(make(tmp_path / "disk"), loop, workers)
    sync = Sync(loop, backend)
    count = IOV_MAX * 2 + 3
    data = os.urandom(count * 16)
    cuts = tuple(range(16, len(data), 16))
    sync.write(512, data, *cuts)
    assert sync.read(512, len(data), *cuts) == data
    backend.close()


def test_a_flush_with_nothing_to_flush_costs_nothing(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = FileBackend(make(tmp_path / "disk"), loop, workers)
    sync = Sync(loop, backend)
    sync.flush()
    assert sync.later == 1  # whatever happened before we opened it
    sync.flush()
    assert sync.later == 1
    sync.write(0, bytes(512))
    later = sync.later
    sync.flush()
    assert sync.later == later + 1
    backend.close()


def test_a_write_that_finishes_during_a_flush_needs_another(tmp_path: Path, loop: EventLoop) -> None:
    """The flush began before the write was done, so it does not cover it."""
    workers = WorkerPool(loop, threads=1)
    backend = FileBackend(make(tmp_path / "disk"), loop, workers)
    sync = Sync(loop, backend)
    sync.write(0, b"a" * 512)
    outcomes: list[str] = []
    assert not backend.flush(lambda error: outcomes.append("flush"))
    backend.write([memoryview(b"b" * 512)], 0, lambda error: outcomes.append("write"))
    assert workers.wait(lambda: backend.in_flight == 0, 5)
    later = sync.later
    sync.flush()
    assert sync.later == later + 1
    backend.close()
    assert workers.shutdown()


def test_holes(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = make(tmp_path / "disk", 1 << 20)
    backend = FileBackend(path, loop, workers)
    sync = Sync(loop, backend)
    assert backend.allocated(0, 1 << 20) == (False, 1 << 20)
    sync.write(65536, b"x" * 131072)
    sync.flush()
    used = path.stat().st_blocks
    assert backend.allocated(0, 1 << 20)[0] is False
    assert backend.allocated(65536, 1 << 20)[0] is True
    if backend.can_discard:
        sync.discard(65536, 131072)
        assert path.stat().st_blocks < used
    assert path.stat().st_size == 1 << 20
    backend.close()


def test_a_file_cut_short_by_someone_is_an_error_and_an_event(tmp_path: Path) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    workers = WorkerPool(loop)
    path = make(tmp_path / "disk")
    backend = FileBackend(path, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    os.truncate(path, 4096)
    sync = Sync(loop, backend)
    with pytest.raises(StorageError, match="smaller while it was in use") as caught:
        sync.read(8192, 4096)
    assert caught.value.errno == errno.EIO
    assert backend.errors == 1
    assert workers.wait(lambda: bool(events), 5)
    assert (events, backend.size) == (["resized"], 4096)
    backend.close()
    assert workers.shutdown()
    loop.close()


def test_a_file_that_grows_is_noticed_in_time(tmp_path: Path) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    workers = WorkerPool(loop)
    path = make(tmp_path / "disk")
    backend = FileBackend(path, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    os.truncate(path, 2 * SIZE + 100)
    clock.advance(3 * S)
    assert workers.wait(lambda: bool(events), 5)
    assert (events, backend.size) == (["resized"], 2 * SIZE)
    backend.resize(SIZE)
    assert path.stat().st_size == SIZE
    backend.close()
    clock.advance(10 * S)
    assert workers.shutdown()
    loop.close()


def test_a_full_disk_is_enospc(loop: EventLoop, workers: WorkerPool, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: EFBIG instead of ENOSPC, by the same way."""
    path = make(tmp_path / "disk", SIZE)
    script = (
        "import resource, signal, sys\n"
        "from hba.loop import EventLoop\n"
        "from hba.storage.file import FileBackend\n"
        "from hba.storage.workers import WorkerPool\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))\n"
        "loop = EventLoop(); pool = WorkerPool(loop)\n"
        "backend = FileBackend(sys.argv[1], loop, pool)\n"
        "errors = []\n"
        "assert not backend.write([memoryview(bytes(8192))], 4096, errors.append)\n"
        "pool.wait(lambda: errors, 5)\n"
        "print(errors[0].errno, errors[0])\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"{errno.EFBIG} {path}: cannot write 8192 bytes at 4096: File too large")


def test_another_writer_is_refused(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = make(tmp_path / "disk")
    first = FileBackend(path, loop, workers)
    with pytest.raises(StorageError, match="in use by another process"):
        FileBackend(path, loop, workers)
    with pytest.raises(StorageError, match="in use by another process"):
        FileBackend(path, loop, workers, read_only=True)
    first.close()
    readers = [FileBackend(path, loop, workers, read_only=True) for _ in range(2)]
    for reader in readers:
        reader.close()
    FileBackend(path, loop, workers).close()


def test_read_only_never_writes(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    backend = FileBackend(make(tmp_path / "disk"), loop, workers, read_only=True)
    sync = Sync(loop, backend)
    for call in (lambda: sync.write(0, bytes(512)), lambda: sync.zero(0, 512), lambda: sync.discard(0, 512)):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.errno == errno.EROFS
    sync.flush()
    assert not backend.can_discard
    backend.close()


def test_create(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = tmp_path / "new"
    FileBackend(path, loop, workers, size=SIZE, create=True).close()
    assert path.stat().st_size == SIZE
    path.write_bytes(b"k" * SIZE)
    FileBackend(path, loop, workers, size=SIZE, create=True).close()
    assert path.read_bytes() == b"k" * SIZE, "an existing file was made anew"


@pytest.mark.parametrize(
    ("prepare", "options", "says"),
    [
        (lambda path: None, {}, "does not exist; name an existing file, or give create"),
        (lambda path: path.mkdir(), {}, "is a directory"),
        (lambda path: path.mkdir(), {"read_only": True}, "is a directory"),
        (lambda path: path.write_bytes(b""), {}, "truncate -s 512"),
        (lambda path: path.write_bytes(b"x" * 1000), {}, "truncate -s 1024"),
        (lambda path: make(path, 1024), {"size": 2048}, "the configuration says 2048"),
        (lambda path: None, {"size": 1000, "create": True}, "not a positive multiple of 512"),
        (lambda path: os.mkfifo(path), {}, "not a regular file"),
        (lambda path: os.mkfifo(path), {"read_only": True}, "not a regular file"),
    ],
)
def test_errors_at_opening(
    prepare: object, options: dict[str, object], says: str, tmp_path: Path, loop: EventLoop, workers: WorkerPool
) -> None:
    path = tmp_path / "disk"
    prepare(path)  # type: ignore[operator]
    before = open_fds()
    with pytest.raises(StorageError, match=says) as caught:
        FileBackend(path, loop, workers, **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    assert open_fds() == before, "a descriptor was left open"


def test_no_directory_to_create_in(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    with pytest.raises(StorageError, match="create that directory first"):
        FileBackend(tmp_path / "no" / "disk", loop, workers, size=512, create=True)


def test_closing_waits_for_the_workers_and_is_idempotent(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = make(tmp_path / "disk")
    backend = FileBackend(path, loop, workers)
    outcomes: list[StorageError | None] = []
    assert not backend.write([memoryview(b"z" * SIZE)], 0, outcomes.append)
    backend.close()
    backend.close()
    assert outcomes == [None]
    assert path.read_bytes() == b"z" * SIZE
    with pytest.raises(StorageError, match="closed"):
        backend.read([memoryview(bytearray(512))], 0, outcomes.append)
    with pytest.raises(StorageError, match="closed"):
        backend.flush(outcomes.append)


def test_closing_in_a_callback_waits_for_the_others(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    """All outcomes arrive in one batch; the first one's callback closes the store."""
    backend = FileBackend(make(tmp_path / "disk"), loop, workers)
    outcomes: list[StorageError | None] = []

    def close(error: StorageError | None) -> None:
        outcomes.append(error)
        backend.close()

    for number in range(4):
        assert not backend.write([memoryview(b"c" * 512)], number * 512, outcomes.append if number else close)
    while workers.busy:
        pass
    loop.run_once(None)
    assert outcomes == [None] * 4
    assert backend._fd == -1, "the descriptor was left open"


def test_a_deleted_file_is_told_once(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    """It goes on working: the guest gets no error, but its data will be lost."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    backend = FileBackend(path, loop, workers)
    events: list[str] = []
    backend.on_event = events.append
    path.unlink()
    for _ in range(2):
        backend.check_size()
        while backend.in_flight:
            loop.run_once(None)
    assert len(events) == 1
    assert "was deleted" in events[0]
    assert backend.describe()["state"] == "deleted"
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 512)
    assert sync.read(0, 512) == b"x" * 512
    backend.close()
    assert backend.describe()["state"] == "closed"


def test_an_unnamed_file_is_no_news(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    backend = FileBackend(path, loop, workers, unnamed=True)
    events: list[str] = []
    backend.on_event = events.append
    path.unlink()
    backend.check_size()
    while backend.in_flight:
        loop.run_once(None)
    assert events == []
    backend.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_space_that_can_no_longer_be_given_up_becomes_zeros(
    tmp_path: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    backend = FileBackend(make(tmp_path / "disk"), loop, workers)
    if not backend.can_discard:
        pytest.skip("no holes here")
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 65536)

    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(linux, "punch_hole", refuse)
    sync.discard(0, 65536)
    assert sync.read(0, 65536) == bytes(65536)
    backend.close()
