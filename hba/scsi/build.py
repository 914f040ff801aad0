"""From a logical unit's configuration and its open store to the device server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hba.clock import Clock
from hba.errors import ConfigError
from hba.scsi.address import unit_name
from hba.scsi.config import LunConfig
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.disk.tags import OpenTags, Tags, in_memory
from hba.scsi.enclosure.enclosure import Enclosure
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.passthrough import Device, PassThrough
from hba.scsi.server import Identity
from hba.scsi.state import SavedState
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.workers import WorkerPool

OpenFile = Callable[[Path, int, int], Tags]  # (path, blocks, bytes in a block)

_NAMES = {"disk": "VIRTUAL DISK", "cdrom": "VIRTUAL CD-ROM", "enclosure": "VIRTUAL ENCLOSUR"}


def identity_of(config: LunConfig) -> Identity:
    return Identity(
        vendor=config.vendor or "HBA",
        product=config.product or _NAMES[config.type],
        revision=config.revision or "0001",
        serial=config.serial or f"HBA{config.target:03d}{config.lun:03d}",
        naa=int(config.naa, 16) if config.naa else 0,
        target=config.target,
        lun=config.lun,
    )


def _path(name: str | None, directory: Path | None) -> Path | None:
    return None if name is None else (directory or Path()) / Path(name).expanduser()


def _tags(config: LunConfig, directory: Path | None, open_tags: OpenFile | None) -> OpenTags:
    path = _path(config.protection_file, directory)
    if path is None:
        return in_memory
    if open_tags is None:
        raise ConfigError(f"{path}: protection_file needs an event loop")
    return partial(open_tags, path)


def build_unit(
    config: LunConfig,
    backend: Backend | Device | None,
    clock: Clock,
    directory: Path | None = None,
    open_tags: OpenFile | None = None,
    workers: WorkerPool | None = None,
) -> LogicalUnit:
    """The logical unit, not yet attached to a bus. It owns `backend` (or the device passed through) from now on.

    `directory`: what a relative `state_file` is relative to. `open_tags` opens a `protection_file`;
    `workers` write the `state_file`. Raises `ConfigError` when the store does not fit the configuration, `StorageError`
    when the saved state cannot be read; the back end is then still the caller's.
    """
    if backend is not None and not isinstance(backend, Backend):
        return PassThrough(backend, clock)
    state = SavedState(_path(config.state_file, directory), workers)
    try:
        return _built(config, backend, clock, state, _tags(config, directory, open_tags))
    except BaseException:
        state.close()
        raise


def _built(config: LunConfig, backend: Backend | None, clock: Clock, state: SavedState, tags: OpenTags) -> LogicalUnit:
    identity = identity_of(config)
    where = f"lun {unit_name(config.target, config.lun)}"
    if config.type == "disk":
        if backend is None and not config.removable:
            raise ConfigError(f"{where}: a disk that is not removable needs storage")
        physical = config.physical_block_size or 0
        options = DiskOptions(
            block_size=config.block_size,
            physical_block_size=physical,
            removable=config.removable,
            read_only=config.read_only,
            thin=config.thin,
            write_cache=config.write_cache,
            rotation_rate=config.rotation_rate,
            protection=bool(config.protection),
            tags=tags,
        )
        return _fitting(where, lambda: Disk(backend, identity, clock, options, state))
    if config.type == "cdrom":
        return _fitting(where, lambda: Cdrom(backend, identity, clock, state))
    return Enclosure(identity, clock, state)


def _fitting(where: str, make: Callable[[], LogicalUnit]) -> LogicalUnit:
    """What does not fit is told with the unit's address."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
