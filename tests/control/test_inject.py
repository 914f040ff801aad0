"""`inject.*` over a real control socket of a whole adapter: outcomes, what does not end, and input that is hostile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.control.client import CallRefused, ControlClient
from hba.control.methods import inject
from hba.control.methods.inject import MOST_PENDING
from hba.control.parts import Parts
from tests.contract.adapter import NAME, config, running, within

TEST_UNIT_READY = "00" * 6


@pytest.fixture(params=["scsiport", "storport"])
def model(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def parts(tmp_path: Path, model: str) -> Iterator[Parts]:
    with running(tmp_path, config(model)) as parts:
        yield parts


@pytest.fixture
def client(tmp_path: Path, parts: Parts) -> Iterator[ControlClient]:
    with ControlClient(tmp_path / f"{NAME}.ctl") as client:
        yield client


def scsi(client: ControlClient, cdb: str = TEST_UNIT_READY, **params: Any) -> Any:
    return client.call("inject.scsi", target=0, cdb=cdb, **params)


def settled(client: ControlClient) -> None:
    """The unit has told that it was switched on."""
    for _ in range(3):
        if scsi(client)["status"] == "SUCCESS":
            return
    raise AssertionError("a unit attention that does not go")


def test_data_out_and_in(client: ControlClient) -> None:
    settled(client)
    block = bytes(range(256)) * 2
    assert scsi(client, "2a000000000000000100", data=block.hex())["status"] == "SUCCESS"
    read = scsi(client, "28000000000000000100", length=512)
    assert bytes.fromhex(read["data"]) == block and read["length"] == 512 and read["took"] > 0


def test_sense_data_have_their_name(client: ControlClient) -> None:
    settled(client)
    failed = scsi(client, "2800ffffffff00000100", length=512)
    assert (failed["status"], failed["scsi_status"], failed["autosense"]) == ("ERROR", 2, True)
    assert failed["sense_text"] == "LBA OUT OF RANGE" and failed["sense"].startswith(("70", "f0", "72"))


def test_a_lock_holds_and_who_does_not_end_is_told_later(client: ControlClient) -> None:
    settled(client)
    client.call("events.subscribe", topics=["inject"])
    client.call("inject.control", target=0, function="LOCK_QUEUE", owner="me")
    held = scsi(client, wait=0)
    assert (held["completed"], held["where"]) == (False, "QUEUED")
    assert any("locked" in why for why in held["blocked"])
    past = scsi(client, flags=["bypass_locked_queue"], owner="me")
    assert past["status"] == "SUCCESS"
    client.call("inject.control", target=0, function="UNLOCK_QUEUE", owner="me")
    (event,) = (event["data"]["request"] for event in [next(client.events())])
    assert (event["id"], event["completed"], event["status"]) == (held["id"], True, "SUCCESS")


def test_Q_11_another_driver_bypasses_the_lock(client: ControlClient) -> None:
    settled(client)
    client.call("inject.control", target=0, function="LOCK_QUEUE", owner="me")
    scsi(client, flags=["BYPASS_LOCKED_QUEUE"], owner="other")
    assert client.call("show.verifier")["counts"].get("Q-11") == 1
    client.call("inject.control", target=0, function="UNLOCK_QUEUE", owner="me")


def test_sleep_holds_the_guests_requests(client: ControlClient, parts: Parts) -> None:
    settled(client)
    slept = client.call("inject.machine", what="sleep")
    assert slept["completed"] and slept["state"] == "asleep"
    outcomes = {step["what"]: step["outcome"] for step in slept["steps"]}
    assert outcomes["ScsiStopAdapter"] == "success" and outcomes["LOCK_QUEUE"] == "SUCCESS"
    assert client.call("show.queues")["port"]["adapter"]["state"] in ("asleep", "READY")
    with pytest.raises(CallRefused, match="the adapter is asleep"):
        client.call("inject.machine", what="stop")
    assert client.call("inject.machine", what="resume")["state"] == "running"
    settled(client)


def test_what_can_not_be_removed(client: ControlClient) -> None:
    with pytest.raises(CallRefused, match="the port knows no unit at 0:60:0"):
        client.call("inject.remove", target=60)


def test_who_waits_for_ever_is_told_so(client: ControlClient, parts: Parts) -> None:
    client.call("inject.control", target=0, function="LOCK_QUEUE")
    for _ in range(MOST_PENDING):
        assert not scsi(client, wait=0)["completed"]
    with pytest.raises(CallRefused, match="64 injected requests have not ended"):
        scsi(client, wait=0)
    within(parts, lambda: parts.machine.port.reset_adapter())  # type: ignore[union-attr]
    settled(client)


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("inject.scsi", {"target": 0, "cdb": "00"}, "cdb"),
        ("inject.scsi", {"target": 0, "cdb": "zz" * 6}, "cdb"),
        ("inject.scsi", {"target": 256, "cdb": "00" * 6}, "256|<= 255"),
        ("inject.scsi", {"target": 0, "cdb": "00" * 6, "length": 1 << 20}, "65536"),
        ("inject.scsi", {"target": 0, "cdb": "00" * 6, "data": "00", "length": 1}, "one way"),
        ("inject.scsi", {"target": 0, "cdb": "00" * 6, "flags": ["BYPASS_FROZEN_QEUE"]}, "did you mean"),
        ("inject.scsi", {"target": 0, "cdb": "00" * 6, "wait": 1e9}, "600"),
        ("inject.io_control", {"target": 0, "code": -1}, ">= 0"),
        ("inject.io_control", {"target": 0, "code": 1, "signature": "too long a one"}, "signature"),
        ("inject.control", {"target": 0, "function": "EXECUTE_SCSI"}, "EXECUTE_SCSI"),
        ("inject.machine", {"what": "explode"}, "explode"),
    ],
)
def test_what_is_refused(client: ControlClient, method: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(CallRefused, match=said):
        client.call(method, **params)
    client.call("ping")


ANY = st.fixed_dictionaries(
    {},
    optional={
        "target": st.integers(0, 8),
        "lun": st.integers(0, 3),
        "cdb": st.binary(min_size=6, max_size=16).map(bytes.hex),
        "data": st.binary(max_size=600).map(bytes.hex),
        "length": st.integers(0, 600),
        "flags": st.lists(st.sampled_from(["BYPASS_FROZEN_QUEUE", "NO_QUEUE_FREEZE", "DISABLE_DISCONNECT"])),
        "tag": st.sampled_from(["simple", "ordered", "head-of-queue", None]),
        "function": st.sampled_from(inject.CONTROLS),
        "bypass": st.booleans(),
        "code": st.integers(0, 2**32 - 1),
        "signature": st.text("ABC", max_size=8),
        "state": st.sampled_from(["D0", "D3", "D1"]),
        "action": st.sampled_from(["none", "stop-device", "sleep"]),
        "what": st.sampled_from(inject.WHOLES),
        "surprise": st.booleans(),
        "enabled": st.booleans(),
        "owner": st.sampled_from(["", "a", "b"]),
    },
)
METHODS = sorted(method.name for method in inject.METHODS)


def test_no_sequence_of_them_harms_the_adapter(tmp_path: Path, model: str) -> None:
    """Whatever is sent in whatever order: every call is answered, nothing is a defect, and a reset of the adapter ends
    what is still there."""
    with running(tmp_path, config(model)) as parts, ControlClient(tmp_path / f"{NAME}.ctl") as client:
        assert parts.machine is not None

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.tuples(st.sampled_from(METHODS), ANY), max_size=6))
        def many(calls: list[tuple[str, dict[str, Any]]]) -> None:
            for method, some in calls:
                known = {field for field in _FIELDS[method] if field in some}
                params = {field: some[field] for field in known}
                if "wait" in _FIELDS[method]:
                    params["wait"] = 0
                try:
                    client.call(method, **params)
                except CallRefused as refused:
                    assert refused.code in ("refused", "bad-params"), refused
            port = parts.machine.port  # type: ignore[union-attr]
            within(parts, port.reset_adapter)
            for what in ("resume", "start"):
                try:
                    client.call("inject.machine", what=what)
                except CallRefused:
                    pass
            within(parts, port.reset_adapter)

        many()
        assert within(parts, lambda: parts.machine.port.outstanding) == 0  # type: ignore[union-attr]


_FIELDS = {method.name: method.params.__struct_fields__ for method in inject.METHODS}
