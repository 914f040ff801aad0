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
    HostStorage,
    MemoryStorage,
    NbdStorage,
    OverlayStorage,
    ScsiStorage,
    StorageConfig,
    parse_size,
)
from hba.storage.file import FileBackend
from hba.storage.granules import fit
from hba.storage.host import HostBackend
from hba.storage.memory import MemoryBackend
from hba.storage.nbd import NbdBackend
from hba.storage.overlay import OverlayBackend, open_overlay
from hba.storage.sectors import SECTOR
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
        limit = None if config.limit is None else parse_size(config.limit)
        return MemoryBackend(parse_size(config.size), config.read_only, limit)
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
    if isinstance(config, HostStorage):
        return HostBackend(Path(config.path), loop, workers, read_only=config.read_only, direct=config.direct)
    if isinstance(config, NbdStorage):
        return NbdBackend(
            config.uri, loop, read_only=config.read_only, hold=config.hold, connect_timeout=config.connect_timeout
        )
    if isinstance(config, OverlayStorage):
        return _open_overlay(config, loop, workers, base)
    raise ConfigError(
        f'storage: {config.path} is a SCSI device (kind = "scsi"), which takes commands, not blocks; '
        'for its blocks use kind = "host"'
    )


def _open_overlay(config: OverlayStorage, loop: EventLoop, workers: WorkerPool, directory: Path) -> OverlayBackend:
    if isinstance(config.base, ScsiStorage):
        raise ConfigError('storage: an overlay needs blocks under it, not a SCSI device (kind = "scsi")')
    # An overlay never writes its base, so the base is opened read-only and may be shared.
    below = config.base
    if not isinstance(below, OverlayStorage):
        below = msgspec.structs.replace(below, read_only=True)
    base = open_backend(below, loop, workers, directory)
    try:
        base = fit(base, SECTOR)
        return open_overlay(
            base,
            loop,
            workers,
            path=None if config.path is None else directory / Path(config.path).expanduser(),
            memory=config.memory,
            limit=None if config.limit is None else parse_size(config.limit),
            directory=None if config.directory is None else directory / Path(config.directory).expanduser(),
        )
    except BaseException:
        base.close()
        raise
