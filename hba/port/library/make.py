"""Puts a port's library together: which families a model has, and what each takes of the port."""

from __future__ import annotations

from typing import Protocol

from hba.miniport.board import board_of
from hba.miniport.chip import Chip
from hba.port.library.bus_data import BusData
from hba.port.library.documented import SCSIPORT, STORPORT
from hba.port.library.host import Host
from hba.port.library.registers import DeviceBase, Registers, ScsiPortRanges, StorPortRanges, WideRegisters
from hba.port.library.routines import Routines
from hba.port.library.spin_locks import Acquire, Lists, SpinLocks


class AnyHost(Host, Protocol):
    """What the libraries of both models are made from."""

    chip: Chip
    control_type: int


def scsiport_routines(port: AnyHost) -> Routines:
    board = board_of(port.chip)
    return Routines(
        SCSIPORT,
        port,
        (
            Registers(port),
            DeviceBase(port, board, "CF-10"),
            ScsiPortRanges(board),
            BusData(port, board.config_space, lambda: port.control_type),
        ),
    )


def storport_routines(port: AnyHost, acquire: Acquire) -> Routines:
    """`acquire`: how a spin lock is taken."""
    board = board_of(port.chip)
    return Routines(
        STORPORT,
        port,
        (
            WideRegisters(port),
            DeviceBase(port, board, "MB-16"),
            StorPortRanges(),
            BusData(port, board.config_space, lambda: port.control_type),
            SpinLocks(port, acquire),
            Lists(port),
        ),
    )
