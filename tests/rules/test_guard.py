"""The SRB a miniport gets while the verifier watches: every member there is, for every function."""

from __future__ import annotations

import pytest

from hba import srb as s
from hba.instruments.verifier.guard import FIELDS, INVALID, GuardedSrb, GuardPolicy
from hba.port.request import ISSUED, NOTIFIED, Request, RequestOf
from hba.srb import Srb

OWN = {"completion", "context", "mdl", "sense"}  # of who made the request, and of the port


def test_every_member_of_an_SRB_is_known() -> None:
    members = {name for name in vars(Srb) if not name.startswith("_") and not callable(getattr(Srb, name))}
    assert members - OWN == set(FIELDS)


def guarded(function: int) -> tuple[GuardedSrb, Request, list[str]]:
    found: list[str] = []
    request: Request = RequestOf(Srb(function))
    request.state = ISSUED
    policy = GuardPolicy(lambda rule, message, request: found.append(rule), True, False)
    return GuardedSrb(request, policy), request, found


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
