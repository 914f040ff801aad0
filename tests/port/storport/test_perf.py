"""PF and XS: performance options, DPCs, extended SRBs."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.config import (
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_PERF_NO_SGL,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    GroupAffinity,
    PerfConfigurationData,
)
from hba.miniport.services import STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL, Dpc
from hba.port.context import DISPATCH_LEVEL
from hba.srb import SRB_FUNCTION_RESET_DEVICE, SRB_FUNCTION_STORAGE_REQUEST_BLOCK, SRB_STATUS_SUCCESS, Srb
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted


def initialized_with(
    make_rig: MakeRig, config: PerfConfigurationData | None, query: bool = False, passive: bool = False, **options: Any
) -> tuple[Rig, int]:
    miniport = Scripted(interrupt_synchronization_mode=1)
    results: list[int] = []

    def ask() -> bool:
        results.append(miniport.port.initialize_perf_opts(query, config))
        return True

    miniport.initialize = (lambda: miniport.port.enable_passive_initialization(ask)) if passive else ask
    rig = make_rig(miniport, **options)
    return rig, results[0]


@pytest.mark.parametrize("passive", [False, True])
def test_PF_01_query_then_set_while_initialising(make_rig: MakeRig, passive: bool) -> None:
    config = PerfConfigurationData(message_targets=[None])
    rig, status = initialized_with(make_rig, config, query=True, passive=passive)
    assert status == STOR_STATUS_SUCCESS and config.flags & STOR_PERF_NO_SGL
    rig, status = initialized_with(make_rig, config, passive=passive)
    assert status == STOR_STATUS_SUCCESS
    assert rig.found == set()
    assert rig.port.perf.flags == config.flags


def test_PF_01_null_unknown_flags_and_the_wrong_place(make_rig: MakeRig) -> None:
    rig, status = initialized_with(make_rig, None)
    assert status == STOR_STATUS_INVALID_PARAMETER and rig.found == {"PF-01"}
    rig, status = initialized_with(make_rig, PerfConfigurationData(flags=0x8000))
    assert status == STOR_STATUS_UNSUCCESSFUL and rig.found == {"PF-01"}
    rig = make_rig()
    statuses: list[int] = []
    rig.in_interrupt(lambda: statuses.append(rig.scripted.port.initialize_perf_opts(True, PerfConfigurationData())))
    assert statuses == [STOR_STATUS_UNSUCCESSFUL] and rig.found == {"PF-01"}
    rig.in_interrupt(lambda: rig.scripted.port.enable_passive_initialization(lambda: True))
    assert len(rig.messages("PF-01")) == 2


@pytest.mark.parametrize(
    "flag",
    [
        STOR_PERF_INTERRUPT_MESSAGE_RANGES,
        STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
        STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
        STOR_PERF_ADV_CONFIG_LOCALITY | STOR_PERF_DPC_REDIRECTION,
    ],
)
def test_PF_02_flags_that_need_others(make_rig: MakeRig, flag: int) -> None:
    rig, status = initialized_with(make_rig, PerfConfigurationData(flags=flag))
    assert status == STOR_STATUS_UNSUCCESSFUL and rig.found == {"PF-02"}
    needed = STOR_PERF_DPC_REDIRECTION | STOR_PERF_INTERRUPT_MESSAGE_RANGES
    targets: list[GroupAffinity | None] = [None]
    rig, status = initialized_with(make_rig, PerfConfigurationData(flags=flag | needed, message_targets=targets))
    assert status == STOR_STATUS_SUCCESS and rig.found == set()


@pytest.mark.parametrize(
    ("version", "flag"),
    [
        (2, STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO),
        (3, STOR_PERF_DPC_REDIRECTION_CURRENT_CPU),
        (4, STOR_PERF_NO_SGL),
    ],
)
def test_PF_02_a_version_has_only_its_flags(make_rig: MakeRig, version: int, flag: int) -> None:
    config = PerfConfigurationData(version=version, flags=flag | STOR_PERF_DPC_REDIRECTION)
    assert initialized_with(make_rig, config)[1] == STOR_STATUS_UNSUCCESSFUL
    config = PerfConfigurationData(version=version + 1, flags=flag | STOR_PERF_DPC_REDIRECTION)
    assert initialized_with(make_rig, config)[1] == STOR_STATUS_SUCCESS


def test_PF_02_versions_that_do_not_exist(make_rig: MakeRig) -> None:
    assert initialized_with(make_rig, PerfConfigurationData(version=1))[0].found == {"PF-02"}
    assert initialized_with(make_rig, PerfConfigurationData(version=9))[0].found == {"PF-02"}


@pytest.mark.parametrize(("windows", "works"), [((6, 1), False), ((6, 2), True)])
def test_PF_03_concurrent_channels_from_windows_8(make_rig: MakeRig, windows: tuple[int, int], works: bool) -> None:
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=4)
    rig, status = initialized_with(make_rig, config, windows_version=windows)
    assert (status == STOR_STATUS_SUCCESS) is works
    assert rig.found == (set() if works else {"PF-03"})
    assert rig.port.perf.channels == (4 if works else 1)


@pytest.mark.parametrize("level", [None, "report"])
def test_PF_04_dpcs_run_after_the_interrupt_before_completions_go_up(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    order: list[object] = []
    port = rig.scripted.port

    def routine(dpc: Dpc, one: object, two: object) -> None:
        assert rig.port.irql == DISPATCH_LEVEL
        order.append(("dpc", one, two))
        rig.scripted.complete(rig.scripted.started[0])

    dpc = port.initialize_dpc(routine)
    srb = rig.srb()
    srb.completion = lambda srb: order.append("up")
    rig.port.submit(srb)

    def isr() -> None:
        assert port.issue_dpc(dpc, 1, 2)
        assert not port.issue_dpc(dpc, 3, 4)  # queued already
        order.append("isr")

    rig.in_interrupt(isr)
    assert order == ["isr", ("dpc", 1, 2), "up"]
    if level is not None:
        assert rig.found == set()


def extended(make_rig: MakeRig) -> Rig:
    return make_rig(Scripted(srb_type=1))


def test_XS_01_the_extended_srb(make_rig: MakeRig) -> None:
    rig = extended(make_rig)
    seen: list[Any] = []

    def start(srb: Any) -> bool:
        seen.append(srb)
        assert srb.function == SRB_FUNCTION_STORAGE_REQUEST_BLOCK and srb.srb_function == 0
        assert (srb.signature, srb.version) == (0x53524258, 1)
        assert srb.length == 8  # the offset of Signature
        assert (srb.address.path, srb.address.target, srb.address.lun) == (0, 3, 2)
        assert srb.num_srb_ex_data == 1 and len(srb.srb_ex_data_offset) == 1
        assert srb.srb_ex_data[0].cdb[0] == 0x28
        srb.srb_ex_data[0].scsi_status = 0
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.submit(target=3, lun=2)
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_SUCCESS
    assert rig.found == set()
    assert seen[0].srb_status == SRB_STATUS_SUCCESS
    assert rig.found == {"OW-01"}


def test_XS_01_old_members_are_found(make_rig: MakeRig) -> None:
    rig = extended(make_rig)
    cdbs: list[bytes] = []

    def start(srb: Srb) -> bool:
        cdbs.append(srb.cdb)
        srb.scsi_status = 2
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.submit()
    assert cdbs == [b"\xdb" * 16]
    assert len(rig.messages("XS-01")) == 2 and rig.found == {"XS-01"}
    assert srb.scsi_status == 0


def test_XS_01_only_when_asked_for(rig: Rig) -> None:
    rig.submit()
    assert rig.scripted.started[0].function == 0


def test_XS_01_more_than_255_per_unit(make_rig: MakeRig) -> None:
    miniport = Scripted(srb_type=1, max_ios_per_lun=600, initial_lun_queue_depth=600)
    rig = make_rig(miniport)
    rig.inquire()
    for _ in range(600):
        rig.submit()
    assert len(miniport.started) == 600
    assert rig.found == set()


@pytest.mark.parametrize("kind", [0, 1])
def test_XS_02_reset_device_is_0x13(make_rig: MakeRig, kind: int) -> None:
    rig = make_rig(Scripted(srb_type=kind))
    rig.submit(function=SRB_FUNCTION_RESET_DEVICE)
    (srb,) = rig.scripted.started
    assert (srb.srb_function if kind else srb.function) == 0x13  # type: ignore[attr-defined]
