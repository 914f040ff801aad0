"""What a configuration file may say: one Struct per table. docs/config.md tells it for people.

The options of a part live with that part (adapter, port model, logical unit, storage); here they only get their place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from hba.adapters.moderation.options import InterruptOptions, PollOptions
from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.classdriver.options import ClassDriverOptions
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.scsi.config import LunConfig, in_force

PORT_MODELS = ("scsiport", "storport")
ENGINES = ("native", "libvfio-user")

Severity = Literal["off", "note", "warning", "violation"]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]


class PciOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """[adapter.pci]: how the PCI function presents itself."""

    msi: bool = True
    msix: bool = False  # off by default: unplugging an MSI-X function makes QEMU 11.1 abort
    msix_vectors: Annotated[int, Meta(ge=1, le=256)] = 1  # of its table; Linux takes one of them
    ioeventfd: bool = True  # offer kicks as events to clients that ask (docs/wire.md); not with posted_writes
    posted_writes: bool = False  # true: the device acts after the driver has gone on (docs/performance.md)


class VerifierOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """[adapter.verifier]: how strictly the rules are watched, and exceptions by rule."""

    level: Literal["off", "report", "strict"] = "report"
    rules: dict[str, Severity] = {}


class TraceOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """[adapter.trace]: the record of what happened to each request."""

    enabled: bool = False
    keep: Annotated[int, Meta(ge=1, le=10_000_000)] = 65_536  # events


class AdapterConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[adapter]]: one HBA in one process on one vfio-user socket.

    What there is for every type; `file_config` adds the tables with the options of each.
    """

    type: str
    name: Name = ""  # filled in by `load`: type and number
    socket: str = ""  # filled in by `load`: in the runtime folder
    port: Literal["scsiport", "storport"] = "storport"
    miniport: Annotated[str, Meta(extra_json_schema={"pattern": "^(dma|.+:.+)$"})] = "dma"  # or "module:Class"
    miniport_options: dict[str, Any] = {}
    engine: Literal["native", "libvfio-user"] = "native"
    engine_library: str = ""  # the file of libvfio-user; made absolute by `load`
    pci: PciOptions = PciOptions()
    poll: PollOptions = PollOptions()
    interrupts: InterruptOptions = InterruptOptions()
    scsiport: ScsiPortConfig = ScsiPortConfig()
    storport: StorPortConfig = StorPortConfig()
    class_driver: ClassDriverOptions = ClassDriverOptions()
    verifier: VerifierOptions = VerifierOptions()
    trace: TraceOptions = TraceOptions()
    lun: list[LunConfig] = []

    def __post_init__(self) -> None:
        if self.miniport != "dma" and not _is_reference(self.miniport):
            expected = '"dma", "module:Class" or "module:driver_entry"'
            raise ValueError(f'miniport: expected {expected}, got "{self.miniport}"')

    @property
    def options(self) -> Struct:
        """The table of its type."""
        options: Struct = getattr(self, self.type)
        return options


def adapter_config(adapters: Registry = ADAPTERS) -> type[AdapterConfig]:
    """[[adapter]] with `type` one of these, and a table for the options of each."""
    made = msgspec.defstruct(
        "AdapterConfig",
        [("type", Literal[adapters.names]), *((kind.name, kind.options, kind.options()) for kind in adapters)],
        bases=(AdapterConfig,),
        namespace={"__doc__": "[[adapter]]: one HBA in one process on one vfio-user socket."},
        forbid_unknown_fields=True,
        kw_only=True,
    )
    return cast(type[AdapterConfig], made)


def file_config(adapters: Registry = ADAPTERS) -> type[Struct]:
    """The whole file: `adapter`, a list of these tables."""
    return msgspec.defstruct(
        "FileConfig",
        [("adapter", list[adapter_config(adapters)])],  # type: ignore[misc]
        namespace={"__doc__": "The whole file."},
        forbid_unknown_fields=True,
    )


class Config(Struct, frozen=True):
    """A checked configuration: every default filled in, relative paths relative to `directory`."""

    path: Path
    directory: Path
    adapters: tuple[AdapterConfig, ...]


def _is_reference(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def to_plain(config: AdapterConfig) -> dict[str, Any]:
    """The configuration as JSON has it, for `hba show config`, without options of adapter types, port models and unit
    types that are not in use."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    plain["lun"] = [in_force(unit) for unit in plain["lun"]]
    known = {*AdapterConfig.__struct_fields__, config.type} - {*PORT_MODELS} | {config.port}
    return {key: value for key, value in plain.items() if key in known}
