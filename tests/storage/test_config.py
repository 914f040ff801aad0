from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.errors import ConfigError, HbaError
from hba.loop import EventLoop
from hba.storage.config import FileStorage, OverlayStorage, format_size, parse_size
from hba.storage.open import open_backend, parse_storage
from hba.storage.workers import WorkerPool


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        (4096, 4096),
        ("64M", 64 << 20),
        ("1G", 1 << 30),
        ("2 tib", 2 << 40),
        ("16kB", 16384),
        ("1P", 1 << 50),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1", -1, "1X", "1 M B", True, "9" * 30, None, "１２"])
def test_what_is_not_a_size(text: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_format_size_is_read_back(size: int) -> None:
    if len(format_size(size)) <= 18:
        assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "kind"),
        ({"kind": "tape"}, "tape"),
        ({"kind": "memory"}, "size"),
        ({"kind": "memory", "size": "1000"}, "multiple of 512"),
        ({"kind": "memory", "size": "64M", "color": 1}, "color"),
        ({"kind": "file", "path": "x", "direct": "yes"}, "direct"),
        ({"kind": "file", "path": "x", "create": True}, "needs a size"),
        ({"kind": "file", "path": ""}, "path is empty"),
        ({"kind": "nbd", "uri": "http://x"}, "not an NBD URI"),
        ({"kind": "overlay", "base": {"kind": "file"}}, r"path.*base"),
        ({"kind": "overlay", "base": {"kind": "memory", "size": "1M"}, "memory": True, "path": "x"}, "exclude"),
        ({"kind": "scsi", "path": "/dev/sg0"}, "takes commands, not blocks"),
        ({"kind": "overlay", "base": {"kind": "scsi", "path": "/dev/sg0"}}, "needs blocks under it"),
    ],
)
def test_bad_configurations(spec: dict[str, Any], says: str, loop: EventLoop, workers: WorkerPool) -> None:
    with pytest.raises(ConfigError, match=says):
        open_backend(spec, loop, workers)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_configuration_is_read_or_refused(value: Any) -> None:
    for spec in (value, {"kind": "memory", "size": value}, {"kind": "overlay", "base": value}):
        try:
            parse_storage(spec)
        except ConfigError:
            pass


def test_an_overlay_opens_its_base_read_only_and_relative_to_the_configuration(
    tmp_path: Path, loop: EventLoop, workers: WorkerPool
) -> None:
    (tmp_path / "golden.img").write_bytes(b"g" * 4096)
    spec = {
        "kind": "overlay",
        "path": "changes.cow",
        "base": {"kind": "overlay", "memory": True, "base": {"kind": "file", "path": "golden.img"}},
    }
    config = parse_storage(spec)
    assert isinstance(config, OverlayStorage) and isinstance(config.base, OverlayStorage)
    assert isinstance(config.base.base, FileStorage)
    backend = open_backend(config, loop, workers, tmp_path)
    other = open_backend({"kind": "file", "path": "golden.img", "read_only": True}, loop, workers, tmp_path)
    target = bytearray(4096)
    outcomes: list[object] = []
    if not backend.read([memoryview(target)], 0, outcomes.append):
        while not outcomes:
            loop.run_once(None)
    assert target == b"g" * 4096
    assert (tmp_path / "changes.cow").exists()
    backend.close()
    other.close()


def test_a_failed_overlay_lets_its_base_go(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    (tmp_path / "golden.img").write_bytes(b"g" * 4096)
    (tmp_path / "strange").write_bytes(b"?" * 4096)
    base = {"kind": "file", "path": "golden.img"}
    with pytest.raises(HbaError):
        open_backend({"kind": "overlay", "path": "strange", "base": base}, loop, workers, tmp_path)
    open_backend(base, loop, workers, tmp_path).close()
