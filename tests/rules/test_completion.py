"""What is said of an SRB as the miniport completes it: each judgement with its words; what is right is not judged."""

from __future__ import annotations

from typing import Any

import pytest

from hba import srb as s
from hba.port.scsiport.config import ScsiPortConfig
from hba.rules import RULES
from tests.port.fakes import READ, TAGGED, FakeMiniport, Rig

INQUIRY = bytes((0x12, 0, 0, 0, 36, 0))
SIZE = 512
SENSE = 18
LOGGED = "a {} was completed without ScsiPortLogError".format


def judged(
    status: int,
    cdb: bytes = READ,
    size: int = SIZE,
    moved: int = 0,
    flags: int = 0,
    function: int = s.SRB_FUNCTION_EXECUTE_SCSI,
    options: dict[str, Any] | None = None,
    autosense: bool = True,
    **members: Any,
) -> list[tuple[str, str, str]]:
    """What is found when a request of `size` bytes ends like that. `moved`: what the chip has moved for it."""
    miniport = FakeMiniport("next", **{**TAGGED, "auto_request_sense": autosense, "caches_data": True})
    rig = Rig(miniport, ScsiPortConfig(auto_release=False, **(options or {})), traced=False)
    if function:
        rig.submit(function)
    else:
        srb = rig.command(cdb=cdb, size=size, srb_flags=s.SRB_FLAGS_QUEUE_ACTION_ENABLE | flags)
        if moved:
            assert rig.chip.windows is not None and srb.mdl is not None
            rig.chip.windows.open_now[srb.mdl][1] = moved
    rig.finish(None, status, **members)
    found = [(finding.rule, finding.severity, finding.message) for finding in rig.verifier.findings]
    rig.close()
    return found


@pytest.mark.parametrize(
    ("status", "members", "found"),
    [
        (s.SRB_STATUS_SUCCESS, {}, []),
        (s.SRB_STATUS_SUCCESS, {"moved": SIZE}, []),
        (s.SRB_STATUS_SUCCESS, {"moved": SIZE + 1}, []),
        (s.SRB_STATUS_SUCCESS, {"size": 0}, []),
        (s.SRB_STATUS_SUCCESS, {"sense_info_buffer_length": SENSE}, []),
        (s.SRB_STATUS_SUCCESS, {"sense_info_buffer_length": SENSE - 1}, []),
        (s.SRB_STATUS_BUSY, {}, []),
        (s.SRB_STATUS_ERROR, {"scsi_status": s.SCSISTAT_CHECK_CONDITION}, []),
        (s.SRB_STATUS_ERROR | s.SRB_STATUS_AUTOSENSE_VALID, {"scsi_status": s.SCSISTAT_CHECK_CONDITION}, []),
        (s.SRB_STATUS_REQUEST_SENSE_FAILED, {"scsi_status": s.SCSISTAT_CHECK_CONDITION}, []),
        (s.SRB_STATUS_DATA_OVERRUN, {"data_transfer_length": SIZE - 1}, []),
        (s.SRB_STATUS_DATA_OVERRUN, {"data_transfer_length": 100, "moved": 100}, []),
        (s.SRB_STATUS_DATA_OVERRUN, {"size": 0}, []),
        (s.SRB_STATUS_SUCCESS, {"function": s.SRB_FUNCTION_FLUSH, "scsi_status": s.SCSISTAT_CHECK_CONDITION}, []),
        (s.SRB_STATUS_SELECTION_TIMEOUT, {"options": {"selection_timeouts_logged": False}}, []),
    ],
)
def test_what_is_right(status: int, members: dict[str, Any], found: list[object]) -> None:
    assert judged(status, **members) == found


@pytest.mark.parametrize(
    ("status", "members", "found"),
    [
        (
            s.SRB_STATUS_SUCCESS | s.SRB_STATUS_QUEUE_FROZEN,
            {},
            [("Q-13", "the miniport set SRB_STATUS_QUEUE_FROZEN; the bit was cleared")],
        ),
        (s.SRB_STATUS_PENDING, {}, [("OW-03", "completed with PENDING; goes up as INTERNAL_ERROR")]),
        (0x0C, {}, [("OW-03", "completed with 0x0c, which is no status; goes up as INTERNAL_ERROR")]),
        (
            0x0C | s.SRB_STATUS_QUEUE_FROZEN,
            {},
            [
                ("Q-13", "the miniport set SRB_STATUS_QUEUE_FROZEN; the bit was cleared"),
                ("OW-03", "completed with 0x0c, which is no status; goes up as INTERNAL_ERROR"),
            ],
        ),
        (s.SRB_STATUS_SUCCESS, {"scsi_status": 2}, [("OW-04", "SRB_STATUS_SUCCESS with ScsiStatus 0x02")]),
        (
            s.SRB_STATUS_ERROR,
            {},
            [("ER-01", "SRB_STATUS_ERROR with ScsiStatus GOOD: no status says what went wrong")],
        ),
        (
            s.SRB_STATUS_SUCCESS,
            {"data_transfer_length": SIZE + 1},
            [("OW-06", "DataTransferLength raised from 512 to 513; set back")],
        ),
        (
            s.SRB_STATUS_SUCCESS,
            {"data_transfer_length": 0},
            [("OW-05", "a read or write succeeded with DataTransferLength 0")],
        ),
        (s.SRB_STATUS_SUCCESS, {"sense_info_buffer_length": 19}, [("OW-06", "SenseInfoBufferLength raised; set back")]),
        (
            s.SRB_STATUS_DATA_OVERRUN,
            {"moved": SIZE - 1},
            [("OW-07", "underrun: the device moved 511 bytes, DataTransferLength still says 512")],
        ),
        (
            s.SRB_STATUS_ERROR | s.SRB_STATUS_AUTOSENSE_VALID,
            {"scsi_status": 2, "autosense": False},
            [("ER-04", "AUTOSENSE_VALID from a miniport without AutoRequestSense")],
        ),
        (
            s.SRB_STATUS_REQUEST_SENSE_FAILED,
            {"scsi_status": 2, "autosense": False},
            [("ER-04", "REQUEST_SENSE_FAILED from a miniport without AutoRequestSense")],
        ),
        (
            s.SRB_STATUS_ERROR | s.SRB_STATUS_AUTOSENSE_VALID,
            {"scsi_status": 2, "flags": s.SRB_FLAGS_DISABLE_AUTOSENSE},
            [("ER-04", "sense data although SRB_FLAGS_DISABLE_AUTOSENSE is set")],
        ),
    ],
)
def test_what_is_wrong(status: int, members: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert judged(status, **members) == [(rule, RULES[rule].severity, message) for rule, message in found]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"data_transfer_length": 1}, "1 of 512 bytes, but SUCCESS instead of DATA_OVERRUN"),
        ({"data_transfer_length": 0, "cdb": INQUIRY}, "0 of 512 bytes, but SUCCESS instead of DATA_OVERRUN"),
        ({"moved": 511}, "SUCCESS with DataTransferLength 512, but the device moved 511 bytes"),
        ({"moved": 1}, "SUCCESS with DataTransferLength 512, but the device moved 1 bytes"),
    ],
)
def test_less_than_was_asked_for(members: dict[str, Any], message: str) -> None:
    assert judged(s.SRB_STATUS_SUCCESS, **members) == [("OW-07", "warning", message)]


@pytest.mark.parametrize(
    ("status", "members", "what"),
    [
        (s.SRB_STATUS_PARITY_ERROR, {}, "parity error"),
        (s.SRB_STATUS_PARITY_ERROR, {"options": {"selection_timeouts_logged": False}}, "parity error"),
        (s.SRB_STATUS_UNEXPECTED_BUS_FREE, {}, "unexpected bus free"),
        (s.SRB_STATUS_SELECTION_TIMEOUT, {}, "selection time-out"),
        (s.SRB_STATUS_COMMAND_TIMEOUT, {}, "command time-out"),
        (s.SRB_STATUS_PHASE_SEQUENCE_FAILURE, {}, "phase sequence failure"),
        (s.SRB_STATUS_DATA_OVERRUN, {}, "data overrun"),
        (s.SRB_STATUS_DATA_OVERRUN, {"moved": SIZE}, "data overrun"),
    ],
)
def test_what_has_to_be_in_the_log(status: int, members: dict[str, Any], what: str) -> None:
    assert judged(status, **members) == [("ER-02", "note", LOGGED(what))]
