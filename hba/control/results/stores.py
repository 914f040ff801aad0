"""What a unit keeps its blocks in: one form for each kind of storage."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from hba.shapes import Bytes, Count, Result


class StoreCounters(Result):
    """Calls and bytes. `at_once`: ended in the call; `hand_offs`: went to a worker."""

    reads: Count
    writes: Count
    bytes_read: Bytes
    bytes_written: Bytes
    flushes: Count
    zeroes: Count
    discards: Count
    at_once: Count
    hand_offs: Count
    errors: Count


class BlockStore(Result, kw_only=True):
    """What stores of blocks have. `granule`, `read_modify_writes`, `changes_waiting`: where the store takes only larger
    pieces than the unit's blocks; `protection`: where the unit has protection information."""

    size: Bytes
    read_only: bool
    physical_block_size: Bytes
    counters: StoreCounters
    granule: Bytes | UnsetType = UNSET
    read_modify_writes: Count | UnsetType = UNSET
    changes_waiting: Count | UnsetType = UNSET
    protection: Literal["off", "type 1"] | UnsetType = UNSET


class MemoryStore(BlockStore, tag_field="kind", tag="memory", kw_only=True):
    """Memory of the server. `used` of at most `limit`."""

    used: Bytes
    limit: Bytes


class DescriptorStore(BlockStore, kw_only=True):
    """What a file and a device have. `direct`: past the page cache; `in_workers`: calls under way;
    `inline_writes`: writes done in the event loop, `slow_inline_writes` of them took long."""

    path: str
    direct: bool
    can_discard: bool
    in_workers: Count
    inline_writes: Count
    slow_inline_writes: Count


class FileStore(DescriptorStore, tag_field="kind", tag="file", kw_only=True):
    """A raw file. `locked`: no other process of ours may have it."""

    state: Literal["open", "deleted", "closed"]
    locked: bool


class HostStore(DescriptorStore, tag_field="kind", tag="host", kw_only=True):
    """A block device of the host. `watched`: its removal is heard of at once."""

    state: Literal["open", "gone", "closed"]
    watched: bool


class NbdStore(BlockStore, tag_field="kind", tag="nbd", kw_only=True):
    """An export of an NBD server."""

    uri: str
    state: str
    in_flight: Count
    reconnects: Count
    can_discard: bool


class OverlayStore(BlockStore, tag_field="kind", tag="overlay", kw_only=True):
    """`base`, and in `top` what was written over it: `changed` bytes. `kept`: the file they stay in; null: gone at the
    end."""

    kept: str | None
    changed: Bytes
    base: Store
    top: Store


class ScsiCounters(Result):
    """What went to a SCSI device."""

    commands: Count
    bytes: Bytes
    errors: Count


class ScsiStore(Result, tag_field="kind", tag="scsi"):
    """A SCSI device of the host, which gets the guest's own commands."""

    path: str
    state: Literal["open", "gone", "closed"]
    read_only: bool
    counters: ScsiCounters


Store = MemoryStore | FileStore | HostStore | NbdStore | OverlayStore
