"""The configuration in force. Its tables are those of the configuration file (`hba check --schema`), without what says
nothing for the port model or the type of unit.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.types import Registry
from hba.classdriver.options import ClassDriverOptions
from hba.config.model import PciOptions, TraceOptions, VerifierOptions
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.shapes import Bytes, Count, Result
from hba.storage.config import StorageConfig


class UnitTable(Result, kw_only=True):
    """A unit's table with defaults filled in: what there is for every type."""

    target: Count
    lun: Count
    storage: StorageConfig | None
    vendor: str
    product: str
    revision: str
    serial: str
    naa: str
    on_gone: Literal["keep", "remove"] | None
    state_file: str | None


class DiskTable(UnitTable, tag_field="type", tag="disk", kw_only=True):
    """A disk's table."""

    block_size: Bytes
    physical_block_size: Bytes | None
    removable: bool
    read_only: bool
    thin: bool
    write_cache: bool
    rotation_rate: Count
    protection: Literal[0, 1]
    protection_file: str | None


class CdromTable(UnitTable, tag_field="type", tag="cdrom", kw_only=True):
    """An optical drive's table."""


class EnclosureTable(UnitTable, tag_field="type", tag="enclosure", kw_only=True):
    """An enclosure's table."""


class ConfigShown(Result, kw_only=True):
    """An adapter's table with defaults filled in, without the options of its type, which `config_shown` adds."""

    type: str
    name: str
    socket: str
    port: str
    miniport: str
    miniport_options: dict[str, Any]
    engine_library: str
    engine: str
    pci: PciOptions
    poll: PollOptions
    interrupts: InterruptOptions
    scsiport: ScsiPortConfig | UnsetType = UNSET
    storport: StorPortConfig | UnsetType = UNSET
    class_driver: ClassDriverOptions
    verifier: VerifierOptions
    trace: TraceOptions
    lun: list[DiskTable | CdromTable | EnclosureTable]


def config_shown(known: Registry) -> type[ConfigShown]:
    """The shape for adapters of these types."""
    told = "An adapter's table with defaults filled in; of types and port models, the options of the one in use."
    made = msgspec.defstruct(
        "ConfigShown",
        [(kind.name, kind.options | UnsetType, UNSET) for kind in known],
        bases=(ConfigShown,),
        namespace={"__doc__": told},
        kw_only=True,
        module=__name__,
    )
    return cast(type[ConfigShown], made)
