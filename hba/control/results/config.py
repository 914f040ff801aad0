"""The configuration in force. Its tables are those of the configuration file (`hba check --schema`)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from hba.adapters.pvscsi.options import PvscsiOptions
from hba.config.model import PciOptions, TraceOptions, VerifierOptions
from hba.control.results.base import Result
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.scsi.config import LunConfig


class ConfigShown(Result, kw_only=True):
    """An adapter's table with defaults filled in; of the port models, the options of the one in use."""

    type: str
    name: str
    socket: str
    port: str
    miniport: str
    miniport_options: dict[str, Any]
    engine: str
    pci: PciOptions
    pvscsi: PvscsiOptions
    scsiport: ScsiPortConfig | UnsetType = UNSET
    storport: StorPortConfig | UnsetType = UNSET
    verifier: VerifierOptions
    trace: TraceOptions
    lun: list[LunConfig]
