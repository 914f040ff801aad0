"""What is saved of a logical unit: its form, and what each field may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

DATA_CAPACITY = 65536  # bytes, READ BUFFER and WRITE BUFFER
ECHO_CAPACITY = 4096
_Initiator = Annotated[int, Meta(ge=0, le=255)]
_Word = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
_Condition = Annotated[int, Meta(ge=0, le=0xFFFFFF)]  # sense key, code and qualifier
_Conditions = Annotated[list[_Condition], Meta(max_length=64)]
_Slot = Annotated[int, Meta(ge=0, le=255)]


class UnitState(Struct, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """`attentions`: unit attentions that are pending, by initiator."""

    target: Annotated[int, Meta(ge=0, le=255)]
    lun: Annotated[int, Meta(ge=0, le=255)]
    attentions: Annotated[dict[_Initiator, _Conditions], Meta(max_length=256)]


class PassThroughState(UnitState, tag="passthrough", kw_only=True):
    device_type: int


class ReservationState(Struct, forbid_unknown_fields=True):
    """See `hba.scsi.reservations.Reservations`."""

    legacy_holder: _Initiator | None
    keys: Annotated[dict[_Initiator, Annotated[int, Meta(ge=0)]], Meta(max_length=256)]
    holder: _Initiator | None
    type: int
    generation: _Word
    aptpl: bool

    def __post_init__(self) -> None:
        if any(key >> 64 for key in self.keys.values()):
            raise ValueError("a reservation key of more than 64 bits")
        if self.type not in (0, 1, 3, 5, 6, 7, 8):
            raise ValueError(f"there is no reservation of type {self.type}")
        if self.type not in (0, 7, 8) and self.holder not in self.keys:
            raise ValueError("a reservation whose holder is not registered")


class Deferred(Struct, forbid_unknown_fields=True):
    """An error that no command was there to end with."""

    condition: _Condition
    information: Annotated[int, Meta(ge=0)] | None
    specific: Annotated[bytes, Meta(max_length=3)]

    def __post_init__(self) -> None:
        if self.information is not None and self.information >> 64:
            raise ValueError("an INFORMATION field of more than 64 bits")


class ServerState(UnitState, kw_only=True):
    """`mode_pages`: the current ones by "code/subcode". `timestamp`: its origin, and what it says, in ms."""

    identity: list[str]
    mode_pages: dict[str, Annotated[bytes, Meta(max_length=4096)]]
    reservations: ReservationState
    deferred: Deferred | None
    echo: Annotated[bytes, Meta(max_length=ECHO_CAPACITY)]
    buffer: Annotated[bytes, Meta(max_length=DATA_CAPACITY)]
    self_tests: Annotated[list[Annotated[bytes, Meta(min_length=16, max_length=16)]], Meta(max_length=20)]
    timestamp: tuple[Literal[0, 2], int]


class MediumState(ServerState, kw_only=True):
    block_size: int
    blocks: int
    tray_open: bool
    stopped: bool
    locked_by: list[_Initiator]
    write_protected: bool


class DiskState(MediumState, tag="disk", kw_only=True):
    """`copy_results`: initiator, list identifier, whether it went well, segments."""

    sanitize_failed: bool
    sanitize_may_leave: bool
    copy_results: Annotated[
        list[tuple[_Initiator, Annotated[int, Meta(ge=0, le=255)], bool, Annotated[int, Meta(ge=0, le=0xFFFF)]]],
        Meta(max_length=256),
    ]


class CdromState(MediumState, tag="cdrom", kw_only=True):
    power_state: Literal[1, 2, 3, 4]
    media_events: Annotated[list[Literal[1, 2, 3]], Meta(max_length=2)]
    features_changed: bool
    power_changed: bool


class EnclosureState(ServerState, tag="enclosure", kw_only=True):
    identify: list[_Slot]
    fault: list[_Slot]
    identify_enclosure: bool


AnyUnitState = DiskState | CdromState | EnclosureState | PassThroughState
