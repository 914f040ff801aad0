"""The registry and what is told to people."""

from __future__ import annotations

from typing import Any

import pytest

from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_BUFFER_SIZE,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
    STOR_STATUS_UNSUPPORTED_VERSION,
)
from hba.port.library.events import (
    STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE,
    LogEventDetails,
    TelemetryEvent,
)
from hba.port.library.registry import REG_BINARY, REG_DWORD, REG_MULTI_SZ, REG_QWORD, REG_SZ, encoded
from hba.srb import (
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_PNP,
    SRB_STATUS_NO_DEVICE,
    SRB_STATUS_PARITY_ERROR,
    STOR_SURPRISE_REMOVAL,
    Srb,
)
from tests.miniport.rig import Rig as AnyRig
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


def read(rig: Rig, name: str, kind: int, size: int = 64, is_global: bool = False) -> tuple[bool, bytes | int]:
    port = rig.scripted.port
    buffer = port.allocate_registry_buffer(size)
    assert buffer is not None
    found, length = port.registry_read(name, is_global, kind, buffer, len(buffer))
    data = bytes(buffer[:length]) if found else length
    port.free_registry_buffer(buffer)
    return found, data


def test_the_miniports_options_are_in_the_registry(rig: Rig) -> None:
    rig.scripted.options = {"depth": 16, "on": True, "big": 1 << 40, "Name": "blue", "list": ["a", "b"], "table": {}}
    assert read(rig, "Depth", REG_DWORD) == (True, (16).to_bytes(4, "little"))
    assert read(rig, "depth", REG_DWORD, is_global=True) == (True, (16).to_bytes(4, "little"))
    assert read(rig, "on", REG_DWORD) == (True, (1).to_bytes(4, "little"))
    assert read(rig, "big", REG_QWORD) == (True, (1 << 40).to_bytes(8, "little"))
    assert read(rig, "name", REG_SZ) == (True, b"blue\0")
    assert read(rig, "list", REG_MULTI_SZ) == (True, b"a\0b\0\0")
    assert read(rig, "name", REG_SZ, 4) == (False, 5)  # too small
    assert read(rig, "name", REG_DWORD) == read(rig, "table", REG_SZ) == read(rig, "none", REG_SZ) == (False, 0)


def test_what_is_written_is_kept_by_key(rig: Rig) -> None:
    port = rig.scripted.port
    rig.scripted.options = {"depth": 16}
    buffer = port.allocate_registry_buffer(8)
    assert buffer is not None
    buffer[:4] = b"\x01\x02\x03\x04"
    assert port.registry_write("depth", False, REG_BINARY, buffer, 4)
    assert not port.registry_write("depth", False, REG_BINARY, buffer, 9)
    assert not port.registry_write("depth", False, REG_BINARY, memoryview(bytearray(8)), 4)
    port.free_registry_buffer(buffer)
    assert read(rig, "DEPTH", REG_BINARY) == (True, b"\x01\x02\x03\x04")
    assert read(rig, "depth", REG_DWORD, is_global=True)[0]  # the other key has the option still
    rig.port.start()
    assert read(rig, "depth", REG_BINARY)[0]  # it outlives a restart of the adapter


def test_one_registry_buffer_at_a_time(rig: Rig) -> None:
    port = rig.scripted.port
    buffer = port.allocate_registry_buffer(16)
    assert buffer is not None and len(buffer) == 16
    assert port.allocate_registry_buffer(16) is None
    port.free_registry_buffer(buffer)
    assert rig.found == set()
    assert port.allocate_registry_buffer(1 << 20) is None
    port.free_registry_buffer(buffer)
    assert rig.found == {"LB-04"}


def test_the_adapters_own_key(rig: Rig) -> None:
    port = rig.scripted.port
    rig.scripted.options = {"depth": 16}
    assert port.registry_read_adapter_key(None, "depth", REG_DWORD, 4) == (STOR_STATUS_SUCCESS, b"\x10\0\0\0")
    assert port.registry_read_adapter_key("Sub", "depth", REG_DWORD, 4) == (STOR_STATUS_UNSUCCESSFUL, b"")
    assert port.registry_write_adapter_key("Sub", "depth", REG_DWORD, b"\x05\0\0\0") == STOR_STATUS_SUCCESS
    assert port.registry_read_adapter_key("sub", "Depth", REG_DWORD, 4) == (STOR_STATUS_SUCCESS, b"\x05\0\0\0")
    assert port.registry_read_adapter_key("sub", "depth", REG_DWORD, 3)[0] == STOR_STATUS_BUFFER_TOO_SMALL
    assert port.registry_read_adapter_key(None, "", REG_DWORD, 4)[0] == STOR_STATUS_INVALID_PARAMETER
    assert port.registry_write_adapter_key(None, "x", REG_DWORD, None) == STOR_STATUS_INVALID_PARAMETER


def test_LB_01_the_registry_is_read_at_passive_level(rig: Rig) -> None:
    above_dispatch(rig, lambda: rig.scripted.port.registry_read_adapter_key(None, "x", REG_SZ, 4))
    assert rig.found == {"LB-01"}


def test_changes_below_the_device_key_are_told(rig: Rig) -> None:
    port = rig.scripted.port
    told: list[int] = []
    assert port.enable_registry_key_notification(None) == STOR_STATUS_INVALID_PARAMETER
    assert port.enable_registry_key_notification(lambda: told.append(rig.port.irql)) == STOR_STATUS_SUCCESS
    buffer = port.allocate_registry_buffer(8)
    port.registry_write("x", True, REG_BINARY, buffer, 1)
    port.registry_write("x", False, REG_BINARY, buffer, 1)  # the other key
    rig.turn()
    assert told == [0]


# -- events ---------------------------------------------------------------------------------------------------------


def test_system_events(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    port = rig.scripted.port
    details = LogEventDetails(error_code=0xC004_000B, unique_id=7, dump_data=b"\x01\x02", string_list=["bad"])
    assert port.log_system_event(details) == (STOR_STATUS_SUCCESS, 0)
    assert rig.port.counters["system events logged"] == 1
    assert port.log_system_event(None) == (STOR_STATUS_INVALID_PARAMETER, 0)
    assert port.log_system_event(LogEventDetails(flags=1)) == (STOR_STATUS_INVALID_PARAMETER, 0)
    assert port.log_system_event(LogEventDetails(event_association=3)) == (STOR_STATUS_INVALID_PARAMETER, 0)
    newer = LogEventDetails(interface_revision=0x200)
    assert port.log_system_event(newer) == (STOR_STATUS_UNSUPPORTED_VERSION, 0)
    assert newer.interface_revision == 0x100
    assert port.log_system_event(LogEventDetails(interface_revision=0x101))[0] == STOR_STATUS_SUCCESS
    assert port.log_system_event(LogEventDetails(dump_data=bytes(151))) == (STOR_STATUS_INVALID_BUFFER_SIZE, 150)
    assert above_dispatch(rig, lambda: port.log_system_event(details)) == (STOR_STATUS_INVALID_IRQL, None)
    assert rig.recorder is not None
    said = [event.detail for event in rig.recorder.events if event.kind == "log_system_event"]
    assert said[0] == "adapter code 0xc004000b id 0x7 0102 ['bad']"


def test_event_tracing(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    port = rig.scripted.port
    assert port.etw_event2(None, 5, "started", 0, 4, 1, None, "a", 1, None, 9) == STOR_STATUS_SUCCESS
    assert port.etw_event4(None, 5, "started", 0, 4, 1, None, "a", 1, "b", 2) == STOR_STATUS_SUCCESS
    assert port.etw_event8(None, 5, "started", 0, 4, 1, None, *("x", 1) * 8) == STOR_STATUS_SUCCESS
    assert port.etw_event8(None, 5, "started", 0, 4, 1, None, *("x", 1) * 9) == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_event2(None, 5, "x" * 33, 0, 4, 1, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_event2(None, 5, "x", 0, 4, 1, None, "n" * 17, 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_event2(None, 5, None, 0, 4, 1, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_event2(None, 5, "x", 0, 6, 1, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_log_byte_stream(None, 0, 5, "bytes", 0, 4, 1, 2, b"\xab\xcd\xef") == STOR_STATUS_SUCCESS
    assert port.etw_log_byte_stream(None, 9, 5, "bytes", 0, 4, 1, 2, b"\xab\xcd") == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_log_byte_stream(None, 0, 5, "bytes", 0, 4, 1, 3, b"\xab\xcd") == STOR_STATUS_INVALID_PARAMETER
    assert port.etw_log_error(None, 5, "protocol", 2, b"\xab\xcd") == STOR_STATUS_SUCCESS
    assert port.etw_log_error(None, 5, "protocol", 0, b"") == STOR_STATUS_INVALID_PARAMETER
    assert rig.recorder is not None
    said = [event.detail for event in rig.recorder.events if event.kind == "etw"]
    assert said[0] == "0x5 started a=1" and said[3] == "0x5 bytes data=abcd"


def test_an_event_of_a_request_is_in_its_history(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    in_build_io(rig, lambda srb: rig.scripted.port.etw_event2(None, 5, "built", 0, 4, 0, srb))
    assert rig.recorder is not None
    (event,) = [event for event in rig.recorder.events if event.kind == "etw"]
    assert event.srb is not None


def test_telemetry(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.log_telemetry(None, TelemetryEvent(1, 2, "resets", parameters={"count": 3})) == STOR_STATUS_SUCCESS
    assert port.log_telemetry_ex(None, TelemetryEvent(event_buffer=b"ab", event_buffer_length=2), 1) == (
        STOR_STATUS_SUCCESS
    )
    assert port.log_telemetry(None, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.log_telemetry(None, TelemetryEvent(event_buffer=b"ab")) == STOR_STATUS_INVALID_PARAMETER
    huge = TelemetryEvent(event_buffer=bytes(5000), event_buffer_length=5000)
    assert port.log_telemetry(None, huge) == STOR_STATUS_INVALID_BUFFER_SIZE
    assert rig.port.counters["telemetry events"] == 2


def test_a_failed_device_is_told_of(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    port = rig.scripted.port
    rig.inquire()
    port.mark_device_failed((0, 0, 0), STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE, "no answer")
    assert port.mark_device_failed_ex(None, 0, 0x10, "hot", b"\x01") == STOR_STATUS_SUCCESS
    assert port.mark_device_failed_ex(None, 0x80, 0x10, "hot") == STOR_STATUS_INVALID_PARAMETER
    assert rig.port.counters["devices marked failed"] == 2
    assert "0:0:0 has failed: no answer" in caplog.text and "adapter has failed: 0x10 hot 01" in caplog.text


def test_RS_08_a_failed_device_is_taken_out_as_by_the_pnp_manager(rig: Rig) -> None:
    """Handling an IRP_MN_SURPRISE_REMOVAL Request: that is what a device that is PNP_DEVICE_FAILED gets."""
    rig.inquire()
    active = rig.submit()
    rig.port.submit(Srb(SRB_FUNCTION_LOCK_QUEUE))
    waiting = rig.submit()
    port = rig.scripted.port
    rig.in_interrupt(lambda: port.mark_device_failed((0, 0, 0), STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE, "gone"))
    assert rig.port.knows(0, 0, 0)
    rig.loop.run_once(0)
    assert waiting.srb_status == SRB_STATUS_NO_DEVICE and active not in rig.done
    removal = rig.scripted.started[-1]
    assert (removal.function, removal.pnp_action) == (SRB_FUNCTION_PNP, STOR_SURPRISE_REMOVAL)
    port.mark_device_failed((0, 7, 0), STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE, "never there")
    rig.loop.run_once(0)
    assert rig.port.knows(0, 0, 0)


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_debug_prints(model: str, caplog: pytest.LogCaptureFixture) -> None:
    port: Any = AnyRig(model).miniport.port
    caplog.set_level("DEBUG", "hba.miniport")
    port.debug_print(0, "lost %d of %s\n", 3, "five")
    port.debug_print(3, "100 %")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "lost 3 of five"),
        ("DEBUG", "100 %"),
    ]


# -- events, exactly --------------------------------------------------------------------------------------------------


def said(rig: Rig, kind: str) -> list[Any]:
    """(number of the request or 0, text) of each event of a kind in the trace."""
    assert rig.recorder is not None
    return [(event.srb, event.detail) for event in rig.recorder.events if event.kind == kind]


def test_ER_02_an_entry_of_the_miniport_is_counted_and_traced(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    port = rig.scripted.port
    in_build_io(rig, lambda srb: port.log_error(srb, 0, 3, 1, 0xA5, 7))
    port.log_error(None, 0, 3, 1, 0x1234, 8)
    assert rig.port.counters["errors logged"] == 2
    assert said(rig, "log_error") == [(1, "0:3:1 code 0x00a5 id 7"), (0, "0:3:1 code 0x1234 id 8")]


@pytest.mark.parametrize(
    ("dump", "strings", "fits"),
    [
        (150, [], True),
        (151, [], False),
        (0, ["x" * 74], True),  # in Unicode, with a NUL
        (0, ["x" * 75], False),
        (148, [""], True),
        (149, [""], False),
        (124, ["abcde", "fghijk"], True),
        (125, ["abcde", "fghijk"], False),
    ],
)
def test_how_much_a_system_event_may_have(rig: Rig, dump: int, strings: list[str], fits: bool) -> None:
    details = LogEventDetails(dump_data=bytes(dump), string_list=strings)
    assert rig.scripted.port.log_system_event(details) == (
        (STOR_STATUS_SUCCESS, 0) if fits else (STOR_STATUS_INVALID_BUFFER_SIZE, 150)
    )


@pytest.mark.parametrize(
    ("association", "where", "logged"),
    [(0, "adapter", [0, 1, 2, 3, 4]), (1, "0:2:254", [2]), (2, "0:2:255", [1, 2])],
)
def test_ER_02_a_system_event_is_about_an_adapter_a_unit_or_a_target(
    make_rig: MakeRig, association: int, where: str, logged: list[int]
) -> None:
    """An error of a request that is under way there counts as logged. Of the numbers one byte counts."""

    def find(config: Any) -> None:
        config.maximum_number_of_logical_units = 255
        config.maximum_number_of_targets = 4
        config.number_of_buses = 2

    rig = make_rig(find, trace=True)
    for path, target, lun in ((0, 1, 0), (0, 2, 0), (0, 2, 254), (0, 3, 254), (1, 2, 254)):
        srb = rig.srb(target=target, lun=lun)
        srb.path_id = path
        rig.port.submit(srb)
    last = 254 if association == 1 else 255  # a target's has no unit
    details = LogEventDetails(
        event_association=association,
        path_id=0x100,
        target_id=0x102,
        lun_id=0x100 | last,
        error_code=0x12,
        unique_id=0x34,
    )
    assert rig.scripted.port.log_system_event(details) == (STOR_STATUS_SUCCESS, 0)
    assert said(rig, "log_system_event") == [(0, f"{where} code 0x00000012 id 0x34")]
    assert rig.port.counters["system events logged"] == 1
    rig.finish_all(SRB_STATUS_PARITY_ERROR)
    assert rig.verifier is not None
    told = {finding.srb.split(" ")[0] for finding in rig.verifier.findings if finding.rule == "ER-02"}
    assert told == {f"#{number + 1}" for number in range(5) if number not in logged}


def test_what_is_traced_of_events(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    port = rig.scripted.port
    good, bad = STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER
    name, text = "n" * 16, "d" * 32  # the longest there are
    assert port.etw_event2(None, 0x1F, text, 0, 0, 1, None, name, 1, "b", 2) == good
    assert port.etw_event2(None, 1, "e", 0, 5, 1, None) == good
    assert port.etw_event2(None, 1, "e", 0, -1, 1, None) == port.etw_event2(None, 1, "", 0, 0, 1, None) == bad
    assert port.etw_event2(None, 1, "e", 0, 0, 1, None, "a", 1, name + "n", 1) == bad
    assert port.etw_event4(None, 1, "e", 0, 0, 1, None, *("x", 1) * 4) == good
    assert port.etw_event4(None, 1, "e", 0, 0, 1, None, *("x", 1) * 5) == bad
    assert port.etw_event4(None, 1, "e", 0, 0, 1, None, "x") == bad
    assert port.etw_event8(None, 1, "e", 0, 0, 1, None) == good
    in_build_io(rig, lambda srb: port.etw_event8(None, 2, "mine", 0, 0, 1, srb, "x", 1))
    assert port.etw_log_byte_stream(None, 0, 3, "bytes", 0, 0, 1, 1, b"\x01\x02") == good
    assert port.etw_log_byte_stream(None, 3, 3, "bytes", 0, 0, 1, 2, b"\x01\x02") == good
    for channel, length, data in ((4, 1, b"1"), (-1, 1, b"1"), (0, 0, b"1"), (0, -1, b"1"), (0, 2, b"1"), (0, 1, None)):
        assert port.etw_log_byte_stream(None, channel, 3, "bytes", 0, 0, 1, length, data) == bad
    assert port.etw_log_byte_stream(None, 0, 4, "most", 0, 0, 1, 32768, bytes(32769)) == good
    assert port.etw_log_byte_stream(None, 0, 4, "most", 0, 0, 1, 32769, bytes(32769)) == bad
    assert said(rig, "etw") == [
        (0, f"0x1f {text} {name}=1, b=2"),
        (0, "0x1 e"),
        (0, "0x1 e x=1, x=1, x=1, x=1"),
        (0, "0x1 e"),
        (1, "0x2 mine x=1"),
        (0, "0x3 bytes data=01"),
        (0, "0x3 bytes data=0102"),
        (0, f"0x4 most data={'00' * 32768}"),
    ]
    assert rig.port.counters["ETW events"] == 8
    assert port.etw_log_error(None, 5, "protocol", 1, b"\xab\xcd") == good
    for length, data in ((0, b"1"), (2, b"1"), (-1, b"1"), (1, None)):
        assert port.etw_log_error(None, 5, "protocol", length, data) == bad
    assert port.etw_log_error(None, 5, None, 1, b"1") == bad
    assert said(rig, "etw_log_error") == [(0, "0x5 protocol: ab")]
    assert rig.port.counters["ETW events"] == 9


def test_what_is_traced_of_telemetry(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    port = rig.scripted.port
    eight = {f"p{number}": number for number in range(8)}
    full = TelemetryEvent(1, 2, "full", event_buffer=bytes(4096), event_buffer_length=4096, parameters=eight)
    assert port.log_telemetry(None, full) == STOR_STATUS_SUCCESS
    assert port.log_telemetry_ex(None, TelemetryEvent(1, 3, "none"), 1) == STOR_STATUS_SUCCESS
    assert said(rig, "telemetry") == [(0, f"0x2 full {eight}"), (0, "0x3 none")]
    too_many = TelemetryEvent(1, 2, "full", parameters={**eight, "p8": 8})
    short = TelemetryEvent(event_buffer=b"ab", event_buffer_length=3)
    absent = TelemetryEvent(event_buffer=None, event_buffer_length=3)
    for event in (too_many, short, absent):
        assert port.log_telemetry(None, event) == STOR_STATUS_INVALID_PARAMETER
    large = TelemetryEvent(event_buffer=bytes(4097), event_buffer_length=4097)
    assert port.log_telemetry(None, large) == STOR_STATUS_INVALID_BUFFER_SIZE
    assert rig.port.counters["telemetry events"] == 2


@pytest.mark.parametrize(
    ("flags", "address", "what", "gone"),
    [
        (0, (0, 0, 0), "0:0:0 has failed", False),
        (1, (0, 0, 0), "0:0:0 has failed", True),
        (1, None, "adapter has failed", False),
        (2, (0, 0, 0), "0:0:0 is about to fail", False),
        (3, (0, 0, 0), "0:0:0 is about to fail", False),
    ],
)
def test_a_device_is_taken_out_only_when_it_has_failed_and_that_is_asked_for(
    make_rig: MakeRig, flags: int, address: Any, what: str, gone: bool
) -> None:
    for ex in (False, True):
        rig = make_rig(trace=True)
        rig.inquire()
        port = rig.scripted.port
        if ex:
            assert port.mark_device_failed_ex(address, flags, 0x10, "hot", b"\x01", b"\x02") == STOR_STATUS_SUCCESS
        else:
            port.mark_device_failed(address, flags, "hot")
        rig.turn()
        assert [srb.pnp_action for srb in rig.scripted.started] == ([STOR_SURPRISE_REMOVAL] if gone else [])
        assert said(rig, "device_failed") == [(0, f"{what}: {'0x10 hot 01 02' if ex else 'hot'}")]
        assert rig.port.counters["devices marked failed"] == 1


def test_a_flag_of_failed_devices_that_does_not_exist(rig: Rig) -> None:
    assert rig.scripted.port.mark_device_failed_ex(None, 4, 0, "hot") == STOR_STATUS_INVALID_PARAMETER
    assert "devices marked failed" not in rig.port.counters


def test_levels_of_debug_prints(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "hba.miniport")
    for level in (-1, 0, 1, 2, 3, 4):
        rig.scripted.port.debug_print(level, f"{level}\n")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "-1"),
        ("WARNING", "0"),
        ("INFO", "1"),
        ("DEBUG", "2"),
        ("DEBUG", "3"),
        ("DEBUG", "4"),
    ]


# -- the registry at its edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (False, (REG_DWORD, bytes(4))),
        (0, (REG_DWORD, bytes(4))),
        (0xFFFF_FFFF, (REG_DWORD, b"\xff" * 4)),
        (1 << 32, (REG_QWORD, (1 << 32).to_bytes(8, "little"))),
        ((1 << 64) + 5, (REG_QWORD, (5).to_bytes(8, "little"))),
        (-1, (REG_QWORD, b"\xff" * 8)),
        ("blå", (REG_SZ, b"bl?\0")),
        ([], (REG_MULTI_SZ, b"\0")),
        (["å"], (REG_MULTI_SZ, b"?\0\0")),
        (["a", 1], None),
        ({}, None),
        (1.5, None),
    ],
)
def test_options_as_registry_values(option: object, value: Any) -> None:
    assert encoded(option) == value


def test_registry_buffers_of_every_size(rig: Rig) -> None:
    port = rig.scripted.port
    for length in (-1, 0, (64 << 10) + 1):
        assert port.allocate_registry_buffer(length) is None
    for length in (1, 64 << 10):
        buffer = port.allocate_registry_buffer(length)
        assert buffer is not None and len(buffer) == length
        port.free_registry_buffer(buffer)
    port.free_registry_buffer(None)
    assert rig.messages("LB-04") == ["StorPortFreeRegistryBuffer of what is not the registry buffer, or not any more"]


def test_values_that_just_fit(rig: Rig) -> None:
    port = rig.scripted.port
    rig.scripted.options = {"name": "blue"}
    buffer = port.allocate_registry_buffer(8)
    assert buffer is not None
    for length, answer in ((4, (False, 5)), (5, (True, 5)), (9, (True, 5))):
        assert port.registry_read("name", False, REG_SZ, buffer, length) == answer
    assert port.registry_read("name", False, REG_SZ, memoryview(bytearray(8)), 8) == (False, 0)
    assert port.registry_read("name", False, REG_SZ, None, 8) == (False, 0)
    buffer[:] = b"12345678"
    for length, good in ((8, True), (9, False), (-1, False), (0, True)):
        assert port.registry_write("x", False, REG_BINARY, buffer, length) == good
    assert port.registry_read("x", False, REG_BINARY, buffer, 8) == (True, 0)
    assert not port.registry_write("", False, REG_BINARY, buffer, 1)
    assert not port.registry_write("x", False, REG_BINARY, None, 1)
    assert port.registry_write("x", False, REG_BINARY, buffer, 8)
    assert port.registry_read("x", False, REG_BINARY, buffer, 8) == (True, 8) and bytes(buffer) == b"12345678"
    assert port.registry_read_adapter_key(None, "name", REG_SZ, 4) == (STOR_STATUS_BUFFER_TOO_SMALL, b"")
    assert port.registry_read_adapter_key(None, "name", REG_SZ, 5) == (STOR_STATUS_SUCCESS, b"blue\0")
    assert port.registry_write_adapter_key(None, "name", REG_SZ, b"red\0") == STOR_STATUS_SUCCESS
    assert port.registry_read_adapter_key(None, "NAME", REG_SZ, 5) == (STOR_STATUS_SUCCESS, b"red\0")
    assert port.registry_write_adapter_key(None, "", REG_SZ, b"") == STOR_STATUS_INVALID_PARAMETER
    assert port.registry_read_adapter_key(None, "", REG_SZ, 5) == (STOR_STATUS_INVALID_PARAMETER, b"")


def test_a_new_find_adapter_begins_without_buffer_and_without_notification(rig: Rig) -> None:
    port = rig.scripted.port
    told: list[int] = []
    port.enable_registry_key_notification(lambda: told.append(1))
    old = port.allocate_registry_buffer(8)
    rig.port.start()
    buffer = port.allocate_registry_buffer(8)
    assert buffer is not None
    port.free_registry_buffer(old)
    assert rig.found == {"LB-04"}
    assert port.registry_write("x", True, REG_BINARY, buffer, 1)
    rig.turn()
    assert told == []
    port.enable_registry_key_notification(lambda: told.append(1))
    for name, is_global in (("x", False), ("y", True), ("x", False)):
        assert port.registry_write(name, is_global, REG_BINARY, buffer, 1)
        assert told == []
        rig.turn()
        assert told == ([1] if is_global else [])
        told.clear()
    assert "miniport exceptions" not in rig.port.counters
