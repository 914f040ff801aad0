"""The SRB a miniport gets while the verifier watches: every member there is, for every function."""

from __future__ import annotations

import pytest

from hba import srb as s
from hba.instruments.verifier.guard import FIELDS, INVALID, GuardedSrb, GuardPolicy
from hba.port.buffers import POISON
from hba.port.request import ISSUED, NOTIFIED, Request, RequestOf
from hba.srb import Srb

BOTH, OTHER = s.SRB_FLAGS_UNSPECIFIED_DIRECTION, s.SRB_FLAGS_QUEUE_ACTION_ENABLE
OWN = {"completion", "context", "mdl", "sense"}  # of who made the request, and of the port


def test_every_member_of_an_SRB_is_known() -> None:
    members = {name for name in vars(Srb) if not name.startswith("_") and not callable(getattr(Srb, name))}
    assert members - OWN == set(FIELDS)


def guarded(
    function: int = 0, extension: bool = True, luns: bool = False, messages: bool = False
) -> tuple[GuardedSrb, Request, list[str]]:
    """What is found is listed by rule, or with its words."""
    found: list[str] = []

    def report(rule: str, message: str, at: Request) -> None:
        assert at is request
        found.append(f"{rule} {message}" if messages else rule)

    request: Request = RequestOf(Srb(function))
    request.state = ISSUED
    return GuardedSrb(request, GuardPolicy(report, extension, luns)), request, found


@pytest.mark.parametrize("function", sorted(INVALID))
@pytest.mark.parametrize("name", FIELDS)
def test_OW_09_a_member_is_read_where_it_is_valid(function: int, name: str) -> None:
    guard, request, found = guarded(function)
    value = getattr(guard, name)
    if name in INVALID[function]:
        assert found == ["OW-09"]
    else:
        assert found == []
        assert name == "sense_info_buffer" or value == getattr(request.srb, name)
    request.lent = None
    request.state = NOTIFIED
    found.clear()
    getattr(guard, name)
    assert found == ["OW-08" if name == "srb_extension" else "OW-01"]


def test_a_power_request_says_which_state() -> None:
    guard, request, found = guarded(s.SRB_FUNCTION_POWER)
    request.srb.device_power_state = s.STOR_POWER_DEVICE_D3
    assert guard.device_power_state == s.STOR_POWER_DEVICE_D3 and found == []


ALWAYS = {"srb_status", "scsi_status", "data_transfer_length", "sense_info_buffer", "sense_info_buffer_length"}


@pytest.mark.parametrize("luns", [False, True])
@pytest.mark.parametrize("name", [*FIELDS, "mine"])
def test_OW_06_what_a_miniport_may_write(name: str, luns: bool) -> None:
    guard, request, found = guarded(luns=luns, messages=True)
    before = getattr(request.srb, name, None)
    value = b"abc" if name == "sense_info_buffer" else 0x55
    setattr(guard, name, value)
    if name in ALWAYS or (luns and name == "lun"):
        assert found == [] and getattr(request.srb, name) == value
        before = value
    else:
        why = {
            "mine": "no member; private state goes to the extension",
            "srb_extension": "the memory is the port's; write to it, or set attributes on it",
        }.get(name, "read-only to a miniport")
        rule = "OW-08" if name == "srb_extension" else "OW-06"
        assert found == [f"{rule} srb.{name} = {value!r}: {why}; not written"]
        assert getattr(request.srb, name, None) == before
    found.clear()
    request.lent = None
    request.state = NOTIFIED
    setattr(guard, name, b"xyz")
    rule = "OW-08" if name == "srb_extension" else "OW-01"
    assert found == [f"{rule} srb.{name} written after the request was completed; not written"]
    assert getattr(request.srb, name, None) == before


@pytest.mark.parametrize(
    ("flags", "value", "allowed"),
    [
        (BOTH | OTHER, s.SRB_FLAGS_DATA_IN | OTHER, True),
        (BOTH | OTHER, s.SRB_FLAGS_DATA_OUT | OTHER, True),
        (BOTH | OTHER, BOTH | OTHER, True),
        (BOTH | OTHER, s.SRB_FLAGS_DATA_IN, False),
        (BOTH, s.SRB_FLAGS_DATA_IN | 1, False),
        (s.SRB_FLAGS_DATA_IN | OTHER, s.SRB_FLAGS_DATA_OUT | OTHER, False),
        (OTHER, s.SRB_FLAGS_DATA_IN | OTHER, False),
    ],
)
def test_OW_06_an_unspecified_direction_may_become_definite(flags: int, value: int, allowed: bool) -> None:
    guard, request, found = guarded()
    request.srb.srb_flags = flags
    guard.srb_flags = value
    assert found == ([] if allowed else ["OW-06"])
    assert request.srb.srb_flags == (value if allowed else flags)


def test_OW_08_without_an_extension() -> None:
    guard, _, found = guarded(extension=False, messages=True)
    assert guard.srb_extension is None
    guard.srb_extension = 1
    assert found == [
        "OW-08 srb.srb_extension used although srb_extension_size is 0",
        "OW-08 srb.srb_extension = 1: size is 0; not written",
    ]


def test_what_reading_says() -> None:
    guard, request, found = guarded(s.SRB_FUNCTION_RESET_BUS, messages=True)
    assert guard.cdb == bytes((POISON,)) * 16
    assert guard.data_transfer_length == POISON * 0x01010101
    assert guard.lun == POISON
    assert guard.mdl is None
    request.state = NOTIFIED
    assert guard.path_id == 0
    assert guard.srb_extension is None
    assert found == [
        "OW-09 srb.cdb read, which is not valid for function 0x12",
        "OW-09 srb.data_transfer_length read, which is not valid for function 0x12",
        "OW-09 srb.lun read, which is not valid for function 0x12",
        "OW-09 srb.mdl read, which is no member of an SRB",
        "OW-01 srb.path_id read after the request was completed",
        "OW-08 srb.srb_extension read after the request was completed",
    ]


def test_the_victim_of_an_abort_is_what_the_miniport_knows() -> None:
    """Its guard; and itself where no port has it."""
    guard, request, found = guarded(s.SRB_FUNCTION_ABORT_COMMAND)
    victim, held, _ = guarded()
    held.handed = victim  # type: ignore[assignment]
    held.srb._port = held
    request.srb.next_srb = held.srb
    assert guard.next_srb is victim
    held.srb._port = None
    assert guard.next_srb is held.srb
    assert found == []
