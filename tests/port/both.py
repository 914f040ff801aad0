"""A port of either model with a miniport that declares what it is told to: for what both models do alike."""

from __future__ import annotations

from typing import Any

from hba.miniport.base import (
    SCSI_ADAPTER_POWER,
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    AdapterControlPower,
)
from hba.port.pnp import PnpStep
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.srb import SRB_FUNCTION_EXECUTE_SCSI, SRB_STATUS_SUCCESS, Srb
from tests.port.fakes import TAGGED, FakeMiniport, Rig

BASIC = (SCSI_STOP_ADAPTER, SCSI_RESTART_ADAPTER, SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG)


class Controlled(FakeMiniport):
    """Declares control types, and keeps what it was called with; answers everything but commands at once."""

    def __init__(self, declares: tuple[int, ...], units: tuple[int, ...], **info: Any) -> None:
        super().__init__(**info)
        self.declares = declares
        self.units = units
        self.outstanding: list[tuple[int, int]] = []  # control type, requests outstanding then
        self.powers: list[AdapterControlPower] = []
        self.removed: list[tuple[int, tuple[int, ...]]] = []
        self.traced: list[bool] = []
        self.later: list[int] = []  # functions that are not answered at once

    def hw_start_io(self, srb: Srb) -> bool:
        started = super().hw_start_io(srb)
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI and srb.function not in self.later:
            self.finish(srb, SRB_STATUS_SUCCESS)
        return started

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            for declared in self.declares:
                if declared < parameters.max_control_type:
                    parameters[declared] = True
            return 0
        self.outstanding.append((control_type, self.rig.port.outstanding))
        if control_type == SCSI_ADAPTER_POWER:
            self.powers.append(parameters)
        return 0

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        if not control_type:
            for declared in self.units:
                parameters[declared] = True
        else:
            self.removed.append((control_type, parameters))
        return 0

    def hw_tracing_enabled(self, enabled: bool) -> None:
        self.traced.append(enabled)

    rig: Pnped


class Pnped(Rig):
    def __init__(self, model: str, declares: tuple[int, ...] = BASIC, units: tuple[int, ...] = (), **info: Any) -> None:
        storport = model == "storport"
        more = {"synchronization_model": 1, "maximum_transfer_length": 1 << 20} if storport else {}
        miniport = Controlled(declares, units, next="" if storport else "lu", **{**TAGGED, **more, **info})
        miniport.rig = self
        super().__init__(miniport, StorPortConfig() if storport else ScsiPortConfig(), model)
        self.controlled = miniport
        self.steps: list[tuple[str, str]] | None = None

    def told(self, steps: list[PnpStep]) -> None:
        self.steps = [(step.what, step.outcome) for step in steps]

    def do(self, what: str, *arguments: Any) -> list[tuple[str, str]]:
        """Run a sequence to its end; its steps."""
        self.begin(what, *arguments)
        assert self.steps is not None, "it waits"
        return self.steps

    def begin(self, what: str, *arguments: Any) -> None:
        self.steps = None
        getattr(self.port.pnp, what)(*arguments, self.told)
        self.loop.run_once(0)

    def seen(self) -> list[int]:
        """Functions the miniport was given."""
        return [self.real(srb).function for srb in self.miniport.started]
