"""PF and XS: performance options, DPCs, extended SRBs."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport import srbhelper as helper
from hba.miniport.config import (
    STOR_ADAPTER_FEATURE_ABORT_COMMAND,
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_PERF_NO_SGL,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    GroupAffinity,
    PerfConfigurationData,
    StartIoPerformanceParameters,
)
from hba.miniport.services import STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL, Dpc
from hba.port.context import DISPATCH_LEVEL
from hba.srb import (
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_STORAGE_REQUEST_BLOCK,
    SRB_FUNCTION_WMI,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_ERROR,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import Rig, Scripted


def initialized_with(
    make_rig: MakeRig, config: PerfConfigurationData | None, query: bool = False, passive: bool = False, **options: Any
) -> tuple[Rig, int]:
    miniport = Scripted(interrupt_synchronization_mode=1, hw_ms_interrupt_routine=lambda miniport, message_id: True)
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


@pytest.mark.parametrize(
    "name",
    [
        *("srb_power_flags", "device_power_state", "power_action"),
        *("srb_pnp_flags", "pnp_action", "pnp_sub_function"),
        *("wmi_flags", "wmi_sub_function", "data_path"),
    ],
)
def test_XS_01_members_of_the_special_blocks_are_in_the_extended_data(make_rig: MakeRig, name: str) -> None:
    rig = extended(make_rig)
    values: list[object] = []

    def start(srb: Srb) -> bool:
        values.append(getattr(srb, name))
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    rig.submit()
    assert values == [0xDB]
    (message,) = rig.messages("XS-01")
    assert f"srb.{name} read, which an extended SRB does not have" in message


@pytest.mark.parametrize(
    ("size", "kind", "length"), [(10, 0x40, 0x20), (16, 0x40, 0x20), (32, 0x41, 0x30), (40, 0x42, 64)]
)
def test_XS_01_where_everything_lies(make_rig: MakeRig, size: int, kind: int, length: int) -> None:
    """Offsets as in srb.h for 64 bits; SrbLength covers header, address and extended data."""
    rig = extended(make_rig)
    srb = rig.srb()
    srb.cdb = b"\x28" + bytes(size - 1)
    rig.port.submit(srb)
    block: Any = rig.scripted.started[0]
    (data,) = block.srb_ex_data
    assert (block.address_offset, block.srb_ex_data_offset, block.num_srb_ex_data) == (0x80, [0x90], 1)
    assert (data.type, data.length, data.cdb) == (kind, length, srb.cdb)
    assert block.srb_length == 0x90 + 8 + length
    assert block.request_priority == 2  # IoPriorityNormal
    assert (block.zero_guard1, block.zero_guard2) == (0, 0)
    assert rig.found == set()


def test_XS_01_without_extended_data(make_rig: MakeRig) -> None:
    rig = extended(make_rig)
    rig.submit(function=SRB_FUNCTION_RESET_DEVICE)
    block: Any = rig.scripted.started[0]
    assert (block.srb_ex_data_offset, block.num_srb_ex_data, block.srb_length) == ([], 0, 0x90)


@pytest.mark.parametrize(
    ("function", "kind", "length", "members"),
    [
        (SRB_FUNCTION_WMI, 0x60, 0x10, {"wmi_sub_function": 4, "wmi_flags": 1, "data_path": 9}),
        (SRB_FUNCTION_POWER, 0x61, 0x0C, {"srb_power_flags": 0, "device_power_state": 4, "power_action": 2}),
        (SRB_FUNCTION_PNP, 0x62, 0x10, {"pnp_sub_function": 0, "pnp_action": 0x09, "srb_pnp_flags": 1}),
    ],
)
def test_XS_01_wmi_power_and_pnp_data(
    make_rig: MakeRig, function: int, kind: int, length: int, members: dict[str, int]
) -> None:
    rig = extended(make_rig)
    srb = rig.srb(function=function, length=0)
    for name, value in members.items():
        setattr(srb, name, value)
    rig.port.submit(srb)
    (block,) = rig.scripted.started
    (data,) = block.srb_ex_data  # type: ignore[attr-defined]
    assert (data.type, data.length) == (kind, length)
    assert {name: getattr(data, name) for name in members} == members
    assert block.srb_length == 0x90 + (8 + length + 7 & ~7)  # type: ignore[attr-defined]


def test_XS_01_the_extension_is_the_miniport_context(make_rig: MakeRig) -> None:
    rig = extended(make_rig)
    rig.submit()
    block: Any = rig.scripted.started[0]
    assert len(block.miniport_context) == 32
    address, left = rig.scripted.port.get_physical_address(None, block.miniport_context + 8) or (0, 0)
    assert address and left == 24 and rig.found == set()
    block.srb_extension  # noqa: B018
    assert rig.found == {"XS-01"}
    rig.finish_all()
    block.miniport_context  # noqa: B018
    block.srb_ex_data  # noqa: B018
    assert rig.found == {"XS-01", "OW-08"}
    block_data = block.srb_ex_data[0]
    block_data.scsi_status = 2
    assert rig.found == {"XS-01", "OW-08", "OW-01"}


def test_XS_01_no_miniport_context_without_its_size(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(srb_type=1, srb_extension_size=0))
    rig.submit()
    block: Any = rig.scripted.started[0]
    assert block.miniport_context is None and rig.found == {"OW-08"}


def test_XS_01_the_victim_of_an_abort_is_extended_too(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(srb_type=1, feature_support=STOR_ADAPTER_FEATURE_ABORT_COMMAND))
    victim = rig.submit()
    abort = rig.srb(function=SRB_FUNCTION_ABORT_COMMAND)
    abort.next_srb = victim
    rig.port.submit(abort)
    started: list[Any] = rig.scripted.started
    assert started[1].next_srb is started[0]


@pytest.mark.parametrize("kind", [0, 1])
def test_srbhelper_reads_both_kinds(make_rig: MakeRig, kind: int) -> None:
    rig = make_rig(Scripted(srb_type=kind))
    srb = rig.submit(target=3, lun=2)
    (held,) = rig.scripted.started
    assert helper.srb_get_srb_function(held) == 0
    assert helper.srb_get_path_target_lun(held) == (0, 3, 2)
    assert helper.srb_get_cdb(held) == srb.cdb
    assert len(helper.srb_get_miniport_context(held)) == 32
    assert helper.srb_get_request_attribute(held) == srb.queue_action
    helper.srb_get_queue_tag(held)
    assert helper.srb_get_sense_info_buffer_length(held) == 96
    helper.srb_get_sense_info_buffer(held)[0:4] = b"\x70\0\5\0"
    helper.srb_set_sense_info_buffer_length(held, 4)
    helper.srb_set_scsi_status(held, 2)
    rig.finish_all(SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID)
    assert (srb.scsi_status, srb.sense) == (2, b"\x70\0\5\0")
    assert rig.found == set()


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


# -- exactly ---------------------------------------------------------------------------------------------------------

EVERY_FLAG = (
    STOR_PERF_DPC_REDIRECTION,
    STOR_PERF_CONCURRENT_CHANNELS,
    STOR_PERF_INTERRUPT_MESSAGE_RANGES,
    STOR_PERF_ADV_CONFIG_LOCALITY,
    STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO,
    STOR_PERF_DPC_REDIRECTION_CURRENT_CPU,
    STOR_PERF_NO_SGL,
)


def adapter_of(rig: Rig) -> dict[str, Any]:
    adapter = rig.port.snapshot()["adapter"]
    assert isinstance(adapter, dict)
    return adapter


@pytest.mark.parametrize("windows", [(6, 1), (6, 2)])
@pytest.mark.parametrize(("version", "flags"), [(1, None), (2, 0x07), (3, 0x1F), (4, 0x3F), (5, 0x7F), (6, None)])
def test_PF_01_what_each_version_has(
    make_rig: MakeRig, version: int, flags: int | None, windows: tuple[int, int]
) -> None:
    config = PerfConfigurationData(version=version, flags=0x55)
    rig, status = initialized_with(make_rig, config, query=True, windows_version=windows)
    if flags is None:
        assert (status, config.flags, config.concurrent_channels) == (STOR_STATUS_UNSUCCESSFUL, 0x55, 0)
        assert rig.messages("PF-02") == [f"PERF_CONFIGURATION_DATA version {version}; 2 to 5 exist"]
        return
    assert status == STOR_STATUS_SUCCESS and rig.found == set()
    assert config.flags == (flags if windows >= (6, 2) else flags & ~STOR_PERF_CONCURRENT_CHANNELS)
    assert config.concurrent_channels == 64
    assert adapter_of(rig)["perf_flags"] == []


@pytest.mark.parametrize("limit", [None, 3])
def test_PF_01_the_channels_there_are(make_rig: MakeRig, limit: int | None) -> None:
    config = PerfConfigurationData()
    initialized_with(make_rig, config, query=True, concurrent_channels=limit)
    assert config.concurrent_channels == (limit or 64)


@pytest.mark.parametrize(
    ("asked", "limit", "channels"),
    [(1, None, 1), (2, None, 2), (64, None, 64), (65, None, 64), (4, 3, 3), (3, 3, 3), (2, 3, 2)],
)
def test_ST_11_as_many_channels_as_asked_for_and_granted(
    make_rig: MakeRig, asked: int, limit: int | None, channels: int
) -> None:
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=asked)
    rig, status = initialized_with(make_rig, config, concurrent_channels=limit)
    assert (status, config.concurrent_channels, adapter_of(rig)["channels"]) == (
        STOR_STATUS_SUCCESS,
        channels,
        channels,
    )
    assert adapter_of(rig)["perf_flags"] == ["STOR_PERF_CONCURRENT_CHANNELS"] and rig.found == set()


@pytest.mark.parametrize("asked", [0, -1])
def test_PF_02_no_channels_at_all(make_rig: MakeRig, asked: int) -> None:
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=asked)
    rig, status = initialized_with(make_rig, config)
    assert (status, config.concurrent_channels) == (STOR_STATUS_UNSUCCESSFUL, asked)
    assert rig.messages("PF-02") == ["STOR_PERF_CONCURRENT_CHANNELS with ConcurrentChannels 0"]
    assert (adapter_of(rig)["channels"], adapter_of(rig)["perf_flags"]) == (1, [])


@pytest.mark.parametrize("others", [0, 1, 2, 3, 4, 5, 6])
def test_flags_have_their_names(make_rig: MakeRig, others: int) -> None:
    """And do nothing but their own: a channel more, or no lists."""
    flags = EVERY_FLAG[others] | STOR_PERF_DPC_REDIRECTION | STOR_PERF_INTERRUPT_MESSAGE_RANGES
    config = PerfConfigurationData(flags=flags, concurrent_channels=1, message_targets=[None])
    rig, status = initialized_with(make_rig, config)
    names = (
        "DPC_REDIRECTION",
        "CONCURRENT_CHANNELS",
        "INTERRUPT_MESSAGE_RANGES",
        "ADV_CONFIG_LOCALITY",
        "OPTIMIZE_FOR_COMPLETION_DURING_STARTIO",
        "DPC_REDIRECTION_CURRENT_CPU",
        "NO_SGL",
    )
    expected = [f"STOR_PERF_{names[number]}" for number in sorted({0, 2, others})]
    assert (status, adapter_of(rig)["perf_flags"]) == (STOR_STATUS_SUCCESS, expected)
    assert adapter_of(rig)["channels"] == 1
    given: list[bool] = []

    def start(srb: Srb) -> bool:
        given.append(rig.scripted.port.get_scatter_gather_list(srb) is not None)
        return True

    rig.scripted.start = start
    rig.submit()
    assert given == [EVERY_FLAG[others] != STOR_PERF_NO_SGL]


def test_options_last_until_the_adapter_is_found_anew(make_rig: MakeRig) -> None:
    """A miniport that asks for nothing the second time has nothing: each list is given again, StartIo has its lock."""
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS | STOR_PERF_NO_SGL, concurrent_channels=2)
    rig, _ = initialized_with(make_rig, config)
    assert adapter_of(rig)["channels"] == 2
    rig.scripted.initialize = None
    rig.port.pnp.stop(lambda steps: None)
    rig.port.pnp.start(lambda steps: None)
    assert (adapter_of(rig)["channels"], adapter_of(rig)["perf_flags"]) == (1, [])
    given: list[bool] = []

    def start(srb: Srb) -> bool:
        given.append(rig.scripted.port.get_scatter_gather_list(srb) is not None)
        return True

    rig.scripted.start = start
    rig.submit()
    assert given == [True]


@pytest.mark.parametrize("granted", [0, 1, 3])
def test_PF_06_without_options_every_message_may_be_the_best(make_rig: MakeRig, granted: int) -> None:
    """Requests come from the processors in turn, and the messages are theirs in turn."""
    miniport = Scripted(interrupt_synchronization_mode=1, hw_ms_interrupt_routine=lambda miniport, message_id: True)
    rig = make_rig(miniport, message_number_limit=granted, processors=4)
    seen: list[tuple[int, int]] = []

    def start(srb: Srb) -> bool:
        params = StartIoPerformanceParameters(message_number=77, channel_number=77)
        assert miniport.port.get_start_io_perf_params(srb, params) == STOR_STATUS_SUCCESS
        seen.append((params.message_number, params.channel_number))
        return True

    miniport.start = start
    for _ in range(8):
        rig.submit()
    assert seen == [(number % 4 % granted if granted else 0, 0) for number in range(1, 9)]


@pytest.mark.parametrize(("size", "status"), [(0x0F, STOR_STATUS_INVALID_PARAMETER), (0x10, STOR_STATUS_SUCCESS)])
def test_PF_06_the_size_of_the_parameters(rig: Rig, size: int, status: int) -> None:
    statuses: list[int] = []

    def start(srb: Srb) -> bool:
        params = StartIoPerformanceParameters(size=size)
        statuses.append(rig.scripted.port.get_start_io_perf_params(srb, params))
        return True

    rig.scripted.start = start
    rig.submit()
    assert statuses == [status]
    found = [f"StorPortGetStartIoPerfParams with StartIoPerfParams of Size {size}, which is too small"] * (size < 0x10)
    assert rig.messages("PF-06") == found


def test_PF_06_beside_a_start_io_that_did_not_ask(make_rig: MakeRig) -> None:
    """The first of two that run at once is in channel 0, whether it has asked or not."""
    miniport = Scripted()
    config = PerfConfigurationData(flags=STOR_PERF_CONCURRENT_CHANNELS, concurrent_channels=3)
    miniport.initialize = lambda: miniport.port.initialize_perf_opts(False, config) == 0
    rig = make_rig(miniport, interleave=1)
    channels: list[int] = []
    first: list[Srb] = []

    def start(srb: Srb) -> bool:
        if not first:
            first.append(srb)
            miniport.port.get_scatter_gather_list(srb)  # the other processor gets its turn
        else:
            params = StartIoPerformanceParameters()
            miniport.port.get_start_io_perf_params(srb, params)
            channels.append(params.channel_number)
        return True

    miniport.start = start
    miniport.port.pause(1)
    for _ in range(2):
        rig.submit()
    miniport.port.resume()
    assert channels == [1]


def test_PF_05_messages_between_the_first_and_the_last(make_rig: MakeRig) -> None:
    """All of them and no more; what the port says of the device's node goes into the structure."""
    flags = STOR_PERF_DPC_REDIRECTION | STOR_PERF_INTERRUPT_MESSAGE_RANGES | STOR_PERF_ADV_CONFIG_LOCALITY
    for first, last, room, status in (
        (0, 7, 8, STOR_STATUS_SUCCESS),
        (7, 7, 1, STOR_STATUS_SUCCESS),
        (7, 8, 2, STOR_STATUS_UNSUCCESSFUL),
        (2, 4, 2, STOR_STATUS_UNSUCCESSFUL),
        (2, 4, 5, STOR_STATUS_SUCCESS),
    ):
        config = PerfConfigurationData(
            flags=flags,
            first_redirection_message_number=first,
            last_redirection_message_number=last,
            device_node=99,
            message_targets=[None] * room,
        )
        rig, got = initialized_with(make_rig, config, processors=16)
        assert got == status and rig.found == (set() if status == STOR_STATUS_SUCCESS else {"PF-05"})
        if got == STOR_STATUS_SUCCESS:
            given = [target is not None for target in config.message_targets]
            assert given == [index <= last - first for index in range(room)]
            assert config.device_node == 0
        else:
            assert config.message_targets == [None] * room
    rig, _ = initialized_with(
        make_rig,
        PerfConfigurationData(flags=flags & ~STOR_PERF_ADV_CONFIG_LOCALITY, last_redirection_message_number=1),
        message_number_limit=1,
    )
    assert rig.messages("PF-05") == ["redirection messages 0 to 1, but 1 messages are granted"]
    rig, _ = initialized_with(make_rig, PerfConfigurationData(flags=0x05), message_number_limit=0)
    assert rig.messages("PF-05") == ["redirection messages 0 to 0, but no message is granted"]
