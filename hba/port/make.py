"""The port driver of the model the configuration names."""

from __future__ import annotations

from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.port.base import PortBase
from hba.port.config import PortConfig
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.scsiport.driver import ScsiPort
from hba.port.storport.config import StorPortConfig
from hba.port.storport.driver import StorPort
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

MODELS = ("scsiport", "storport")


def make_port(
    model: str,
    loop: EventLoop,
    miniport: Miniport,
    chip: Chip,
    config: PortConfig | None = None,
    verifier: Verifier | None = None,
    trace: Recorder | None = None,
) -> PortBase:
    """A port driver, not started yet. `config` is the model's own struct; None: its defaults.

    Raises ValueError for an unknown model and TypeError for the other model's options.
    """
    if model == "scsiport":
        if config is not None and not isinstance(config, ScsiPortConfig):
            raise TypeError(f"scsiport takes a ScsiPortConfig, not {type(config).__name__}")
        return ScsiPort(loop, miniport, chip, config or ScsiPortConfig(), verifier, trace)
    if model == "storport":
        if config is not None and not isinstance(config, StorPortConfig):
            raise TypeError(f"storport takes a StorPortConfig, not {type(config).__name__}")
        return StorPort(loop, miniport, chip, config or StorPortConfig(), verifier, trace)
    raise ValueError(f"no port model {model!r}; there are {', '.join(MODELS)}")
