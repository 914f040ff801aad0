"""The port driver of the model the configuration names, with the instruments that are wanted around it."""

from __future__ import annotations

from hba.instruments.trace.miniport import ScsiPortTraceProxy, StorPortTraceProxy
from hba.instruments.trace.watcher import TraceWatcher
from hba.instruments.verifier.scsiport import ScsiPortVerifierProxy
from hba.instruments.verifier.storport import StorPortVerifierProxy, StorPortVerifierWatcher
from hba.instruments.verifier.watcher import VerifierWatcher
from hba.loop import EventLoop
from hba.miniport.base import Miniport
from hba.miniport.chip import Chip
from hba.port.base import AnyPort
from hba.port.config import PortConfig
from hba.port.dump import Dump
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.scsiport.driver import ScsiPort
from hba.port.scsiport.services import ScsiPortLibrary
from hba.port.storport.config import StorPortConfig
from hba.port.storport.driver import StorPort
from hba.port.storport.services import StorPortLibrary
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
    dump: Dump | None = None,
) -> AnyPort:
    """A port driver, not started yet. `config` is the model's own struct; None: its defaults. `dump`: for dump mode.

    Raises ValueError for an unknown model and TypeError for the other model's options.
    """
    port: AnyPort
    if model == "scsiport":
        if config is not None and not isinstance(config, ScsiPortConfig):
            raise TypeError(f"scsiport takes a ScsiPortConfig, not {type(config).__name__}")
        scsiport = port = ScsiPort(loop, miniport, chip, config or ScsiPortConfig())
        port.library = ScsiPortLibrary(scsiport)
    elif model == "storport":
        if config is not None and not isinstance(config, StorPortConfig):
            raise TypeError(f"storport takes a StorPortConfig, not {type(config).__name__}")
        storport = port = StorPort(loop, miniport, chip, config or StorPortConfig())
        port.library = StorPortLibrary(storport)
    else:
        raise ValueError(f"no port model {model!r}; there are {', '.join(MODELS)}")
    port.dump = dump
    instrument(port, verifier, trace)
    return port


def instrument(port: AnyPort, verifier: Verifier | None, trace: Recorder | None) -> None:
    """Put the instruments at the port's boundaries: before it is started, and once."""
    if verifier is not None and verifier.level != "off":
        if isinstance(port, StorPort):
            storport = StorPortVerifierWatcher(port, verifier)
            port.edge = StorPortVerifierProxy(port, port.edge, storport)
            port.watchers += (storport,)
        else:
            scsiport = VerifierWatcher(port, verifier)
            port.edge = ScsiPortVerifierProxy(port.edge, scsiport)
            port.watchers += (scsiport,)
    if trace is not None:
        if isinstance(port, StorPort):
            port.edge = StorPortTraceProxy(port, port.edge, trace)
        else:
            port.edge = ScsiPortTraceProxy(port.edge, trace)
        port.watchers += (TraceWatcher(port, trace),)
