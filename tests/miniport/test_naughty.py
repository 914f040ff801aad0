"""The miniport that breaks rules on purpose: what is found is exactly what its documentation says."""

from __future__ import annotations

from collections import Counter

import pytest

from hba.errors import ConfigError
from hba.miniport.board import MEMORY_BASE
from hba.miniport.examples.naughty import NOWHERE, SINS, expected
from hba.rules import RULES
from hba.srb import SRB_STATUS_SUCCESS
from tests.miniport.rig import MODELS, Rig

NAUGHTY = "hba.miniport.examples.naughty:NaughtyMiniport"


def serve(rig: Rig, requests: int) -> None:
    """Reads and writes that must all succeed."""
    rig.submit(b"\x12" + bytes(5), 36)
    for number in range(requests):
        write = number % 3 == 0
        srb = rig.submit((b"\x2a" if write else b"\x28") + bytes(9), write=write)
        assert srb.srb_status == SRB_STATUS_SUCCESS, number
        assert write or srb.mdl is None or srb.mdl.read() == b"\x5a" * 4096
    assert len(rig.done) == requests + 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", ["report", "strict"])
def test_all_sins_are_found_and_nothing_else(model: str, level: str) -> None:
    rig = Rig(model, NAUGHTY, level)
    serve(rig, 2 * 10 * len(SINS[model]))
    assert rig.found == expected(model)
    assert expected(model) <= set(RULES)


@pytest.mark.parametrize(("model", "rule"), [(model, rule) for model in MODELS for rule in SINS[model]])
def test_each_sin_alone(model: str, rule: str) -> None:
    rig = Rig(model, NAUGHTY, "report", options={"rules": [rule], "every": 2})
    serve(rig, 10)
    assert rig.found == expected(model, [rule])


RELEASED = "after the request was completed"
BOTH_SAY = {
    "OW-01": [(5, f"srb.cdb read {RELEASED}")],
    "OW-02": [(5, "hw_start_io passed an SRB the miniport does not own (NOTIFIED)")],
    "OW-06": [(5, "srb.time_out_value = 7: read-only to a miniport; not written")],
    "OW-08": [(5, f"srb.srb_extension read {RELEASED}")],
    "OW-09": [(5, "srb.mdl read, which is no member of an SRB")],
    "Q-13": [(5, "the miniport set SRB_STATUS_QUEUE_FROZEN; the bit was cleared")],
    "IN-03": [(5, "stall of 200000 us; more than 100000 us is forbidden")],
    "MB-13": [
        (5, "command started: DMA at 0xbadf00d0000+0x24 is outside every request the miniport has"),
        (5, f"DMA went on {RELEASED}"),
    ],
    "LB-02": [(5, "GetBusData from hw_start_io")],
    "LB-03": [(5, f"read of {MEMORY_BASE}, which is no address GetDeviceBase gave out")],
}
ADDRESSES = [
    (5, "get_physical_address of a data buffer without its live SRB"),
    (5, "get_physical_address of an address in the SRB extension with an SRB, which must be NULL for it"),
]
SAY = {
    "scsiport": {
        **BOTH_SAY,
        "CF-02": [(5, "read of a data buffer that is not mapped (MapBuffers FALSE)")],
        "CF-04": ADDRESSES,
    },
    "storport": {
        **BOTH_SAY,
        "IN-03": [(5, "stall of 200000 us in hw_start_io"), *BOTH_SAY["IN-03"]],
        "MB-05": [(5, "read of a data buffer that is not mapped (MapBuffers is 2)")],
        "MB-11": [(10, "scatter/gather list used after its request was completed")],  # its length, and what it holds
        "MB-12": ADDRESSES,
        "ST-02": [(5, "NextRequest means nothing to Storport")],
        "ST-09": [(1, "SynchronizationModel was left at StorSynchronizeHalfDuplex")],
        "LK-03": [(4, "hw_build_io returned holding InterruptLock")],  # the request after the one whose turn it was
        "LK-04": [(5, "StorPortAcquireMSISpinLock with InterruptSynchronizationMode 0")],
        "PF-05": [(1, "redirection messages 0 to 65535, but no message is granted")],
        "PF-06": [(5, "StorPortGetStartIoPerfParams with StartIoPerfParams of NULL")],
        "QD-04": [(5, "StorPortSetDeviceQueueDepth with depth 0")],
        "LB-01": [(5, "StorPortRegistryRead above PASSIVE_LEVEL, at DISPATCH_LEVEL")],
        "LB-04": [(5, "StorPortFreeRegistryBuffer of what is not the registry buffer, or not any more")],
        "IN-08": [(5, "StorPortGetMSIInfo from HwMSInterruptRoutine")],
    },
}


@pytest.mark.parametrize(("model", "rule"), [(model, rule) for model in MODELS for rule in SAY[model]])
def test_how_often_each_and_what_is_said(model: str, rule: str) -> None:
    rig = Rig(model, NAUGHTY, "report", options={"rules": [rule], "every": 2})
    serve(rig, 10)
    assert rig.verifier is not None
    said = Counter(finding.message for finding in rig.verifier.findings)
    assert [(count, message) for message, count in said.items()] == SAY[model][rule]
    if rule == "MB-13":
        (own,) = {(task.cdb, *task.data.segments) for _, _, task in rig.bus.seen if task.owner is None and task.data}
        assert own == (bytes.fromhex("120000002400"), (NOWHERE, 36))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("options", "first", "further"), [({}, 10, 10), ({"every": 1}, 1, 1), ({"every": 3}, 3, 3)])
def test_when_they_are_committed(model: str, options: dict[str, int], first: int, further: int) -> None:
    """Every so many reads and writes; nothing else counts."""
    rig = Rig(model, NAUGHTY, "report", options={"rules": ["OW-06"], **options})
    sinned = []
    for number in range(1, 2 * further + 2):
        rig.submit(b"\x12" + bytes(5), 36)
        rig.submit(bytes(6), 0)
        before = rig.verifier.counts["OW-06"] if rig.verifier else 0
        rig.submit()
        if rig.verifier is not None and rig.verifier.counts["OW-06"] > before:
            sinned.append(number)
    assert sinned == list(range(first, 2 * further + 2, further))


@pytest.mark.parametrize(("limit", "found"), [(0, {"OW-06"}), (1, {"IN-08", "OW-06"})])
def test_a_sin_that_needs_messages(limit: int, found: set[str]) -> None:
    rig = Rig("storport", NAUGHTY, "report", {"rules": ["IN-08", "OW-06"], "every": 1}, message_number_limit=limit)
    serve(rig, 10)
    assert rig.found == found and rig.verifier is not None
    assert rig.verifier.counts["OW-06"] == 10 // len(found)  # nobody waits for what cannot come


def test_its_messages_are_dismissed() -> None:
    rig = Rig("storport", NAUGHTY, options={"rules": ["IN-08"]})
    rig.chip.interrupts_enabled = False
    rig.chip.raise_interrupt()
    assert rig.miniport.hw_msi_interrupt(0) is True and not rig.chip.asserted


def test_a_sin_waits_for_its_opportunity() -> None:
    """A request without data has no list that could be used too late."""
    rig = Rig("storport", NAUGHTY, options={"rules": ["MB-11"], "every": 1})
    rig.bus.hold = True
    rig.submit()
    rig.bus.hold = False
    rig.submit(bytes(6), 0)
    assert len(rig.done) == 1 and rig.found == set()
    rig.bus.release(rig.bus.held[0])
    assert len(rig.done) == 2 and rig.found == {"MB-11"}


@pytest.mark.parametrize("model", MODELS)
def test_without_the_verifier_it_serves_all_the_same(model: str) -> None:
    serve(Rig(model, NAUGHTY, None), 400)


@pytest.mark.parametrize("model", MODELS)
def test_commands_that_end_later(model: str) -> None:
    rig = Rig(model, NAUGHTY, "report", options={"every": 3})
    rig.bus.hold = True
    submitted = 0
    while submitted < 400:
        for _ in range(4):
            rig.submit()
            submitted += 1
        while rig.bus.held:
            rig.bus.release(rig.bus.held[0])
    assert len(rig.done) == submitted
    assert {srb.srb_status for srb in rig.done} == {SRB_STATUS_SUCCESS}
    assert rig.found == expected(model)


@pytest.mark.parametrize("options", [{"rules": ["XX-01"]}, {"every": 0}, {"every": "often"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Rig("storport", NAUGHTY, options=options)
