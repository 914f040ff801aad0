"""STORAGE_REQUEST_BLOCK: what a miniport may write in it, and when (XS-01, OW-01, OW-06)."""

from __future__ import annotations

from typing import Any

import pytest

from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_ERROR,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Scripted


@pytest.mark.parametrize(
    ("size", "kind", "length"),
    [(1, 0x40, 0x20), (16, 0x40, 0x20), (17, 0x41, 0x30), (32, 0x41, 0x30), (33, 0x42, 0x39)],
)
def test_XS_01_the_kind_follows_from_the_length_of_the_cdb(
    make_rig: MakeRig, size: int, kind: int, length: int
) -> None:
    rig = make_rig(Scripted(srb_type=1))
    srb = rig.srb()
    srb.cdb = b"\x28" + bytes(size - 1)
    rig.port.submit(srb)
    block: Any = rig.scripted.started[0]
    (data,) = block.srb_ex_data
    assert (data.type, data.length, block.srb_length) == (kind, length, 0x90 + (8 + length + 7) // 8 * 8)
    assert (block.request_tag, block.request_attribute) == (1, srb.queue_action)


BOTH = SRB_FLAGS_UNSPECIFIED_DIRECTION
OTHER = SRB_FLAGS_DISABLE_SYNCH_TRANSFER


@pytest.mark.parametrize(
    ("was", "written", "works"),
    [
        (BOTH, SRB_FLAGS_DATA_IN, True),
        (BOTH, SRB_FLAGS_DATA_OUT, True),
        (BOTH | OTHER, SRB_FLAGS_DATA_OUT | OTHER, True),
        (BOTH, SRB_FLAGS_DATA_IN | OTHER, False),
        (BOTH | OTHER, SRB_FLAGS_DATA_IN, False),
        (SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, False),
        (SRB_FLAGS_DATA_IN, BOTH, False),
        (0, SRB_FLAGS_DATA_IN, False),
    ],
)
def test_OW_06_only_a_direction_may_be_made_definite(make_rig: MakeRig, was: int, written: int, works: bool) -> None:
    rig = make_rig(Scripted(srb_type=1))
    srb = rig.srb(length=0)
    srb.srb_flags = was
    rig.port.submit(srb)
    block: Any = rig.scripted.started[0]
    block.srb_flags = written
    assert srb.srb_flags == (written if works else was) and block.srb_flags == srb.srb_flags
    assert rig.messages("OW-06") == (
        [] if works else [f"srb.srb_flags = {written}: read-only to a miniport; not written"]
    )


@pytest.mark.parametrize("name", ["time_out_value", "data_buffer", "next_srb", "original_request", "function", "mine"])
def test_OW_06_the_rest_is_read_only(make_rig: MakeRig, name: str) -> None:
    """The rule of directions is about the flags alone, whatever the value looks like."""
    rig = make_rig(Scripted(srb_type=1))
    srb = rig.srb(length=0)
    srb.srb_flags = BOTH
    rig.port.submit(srb)
    block: Any = rig.scripted.started[0]
    setattr(block, name, SRB_FLAGS_DATA_IN)
    assert rig.messages("OW-06") == [f"srb.{name} = {SRB_FLAGS_DATA_IN}: read-only to a miniport; not written"]
    assert getattr(srb, name, None) != SRB_FLAGS_DATA_IN and srb.srb_flags == BOTH


def test_OW_01_nothing_is_written_after_the_completion(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(srb_type=1))
    srb = rig.submit()
    block: Any = rig.scripted.started[0]
    rig.finish_all(SRB_STATUS_ERROR)
    block.data_transfer_length = 7
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_ERROR, 4096)
    assert rig.messages("OW-01") == ["srb.data_transfer_length written after the request was completed; not written"]


def test_sense_data_and_status_lie_in_the_extended_data(make_rig: MakeRig) -> None:
    miniport = Scripted(srb_type=1)
    seen: list[Any] = []

    def start(srb: Any) -> bool:
        data = srb.srb_ex_data[0]
        data.scsi_status = 2
        data.sense_info_buffer = b"\x70\0\5"
        seen.append((data.sense_info_buffer_length, bytes(data.sense_info_buffer), data.scsi_status, data.cdb_length))
        miniport.complete(srb, SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID)
        return True

    miniport.start = start
    rig = make_rig(miniport)
    srb = rig.submit()
    assert rig.done == [srb] and (srb.scsi_status, bytes(srb.sense_info_buffer)) == (2, b"\x70\0\5")
    assert seen[0][1:] == (b"\x70\0\5", 2, 10) and rig.found == set()
