"""From the configuration to a running back end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hba.errors import ConfigError
from hba.loop import EventLoop
from hba.storage.backend import Backend
from hba.storage.config import (
    FileStorage,
    MemoryStorage,
    StorageConfig,
    parse_size,
)
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool


def parse_storage(spec: Mapping[str, Any] | StorageConfig) -> StorageConfig:
    """A checked record from a plain mapping. Raises `ConfigError` that names the key and what was expected."""
    if isinstance(spec, msgspec.Struct):
        return spec
    try:
        config: StorageConfig = msgspec.convert(spec, StorageConfig)  # a union of types, which mypy takes for a value
        return config
    except msgspec.ValidationError as problem:
        raise ConfigError(f"storage: {problem}") from None


def open_backend(
    spec: Mapping[str, Any] | StorageConfig, loop: EventLoop, workers: WorkerPool, directory: Path | None = None
) -> Backend:
    """Open the store that `spec` describes; relative paths are relative to `directory` (default: the current one).

    Raises `ConfigError` or `StorageError` with one clear message.
    """
    config = parse_storage(spec)
    base = directory if directory is not None else Path()
    if isinstance(config, MemoryStorage):
        return MemoryBackend(parse_size(config.size), config.read_only)
    if isinstance(config, FileStorage):
        return FileBackend(
            base / Path(config.path).expanduser(),
            loop,
            workers,
            size=None if config.size is None else parse_size(config.size),
            read_only=config.read_only,
            create=config.create,
            direct=config.direct,
            inline_writes=config.inline_writes,
        )
    raise ConfigError(f"storage: {config!r} cannot be opened as blocks")
