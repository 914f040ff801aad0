"""What the methods `inject.*` answer: how requests from above the port have ended."""

from __future__ import annotations

from typing import Literal

from hba.shapes import Bytes, Count, CountByName, HexText, Nanoseconds, Result, UnitName


class Injected(Result):
    """A request and its outcome. `unit`: null for the adapter's; `completed` false: it is still in the port, `where`
    and for the reasons in `blocked`, and its outcome comes with the event `inject`; `srb_status`: as it went up,
    `status` its name without the modifiers `frozen` and `autosense`; `length`: of data that were moved; `data`: what
    came, or what the miniport left in the buffer; `return_code`: of an SRB_IO_CONTROL; `took`: until it went up."""

    id: Count
    function: str
    unit: UnitName | None
    completed: bool
    srb_status: Count
    status: str
    frozen: bool
    autosense: bool
    scsi_status: Count
    length: Bytes
    data: HexText
    sense: HexText
    sense_text: str
    return_code: Count | None
    took: Nanoseconds | None
    where: str
    blocked: list[str]


class StepTaken(Result):
    """One thing the machine or its port did. `unit`: null for the adapter's."""

    what: str
    unit: UnitName | None
    outcome: str


class Sequence(Result):
    """A sequence of steps. `completed` false: it goes on, `pending` is what it waits for, and the event `inject` tells
    the end; `state`: of the adapter, as the PnP and power managers see it."""

    id: Count
    what: str
    completed: bool
    pending: str
    state: Literal["running", "stopping", "stopped", "asleep", "removed"]
    steps: list[StepTaken]


class InjectEvent(Result):
    """The end of what was injected and had not ended when its method answered: a request or a sequence."""

    request: Injected | None
    sequence: Sequence | None


class UnitFound(Result):
    """What answered at an address. `pages`: vital product data pages it says it has."""

    unit: UnitName
    device_type: Count
    vendor: str
    product: str
    revision: str
    serial: str
    pages: list[Count]


class UnitsFound(Result):
    """The units an enumeration has found."""

    units: list[UnitFound]


class Tracing(Result):
    """Whether hw_tracing_enabled was called; a port of the model SCSI Port has no such routine."""

    enabled: bool
    called: bool
    model: str


class ClassDriverUnit(Result):
    """A unit as the class driver knows it. `errors`: those that count (they make it ask less of the unit)."""

    address: str
    device_type: Count
    vendor: str
    product: str
    errors: Count


class ClassDriverState(Result):
    """The class driver above the port. `time_out_value`: seconds of a read; `outstanding`: of the guest's requests,
    `waiting`: of these for their next try."""

    time_out_value: Count
    outstanding: Count
    waiting: Count
    enumerations: Count
    counters: CountByName
    units: list[ClassDriverUnit]
