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
from hba.port.library.registry import REG_BINARY, REG_DWORD, REG_MULTI_SZ, REG_QWORD, REG_SZ
from hba.srb import (
    SRB_FUNCTION_LOCK_QUEUE,
    SRB_FUNCTION_PNP,
    SRB_STATUS_NO_DEVICE,
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
