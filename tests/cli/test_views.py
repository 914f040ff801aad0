"""What `hba show` makes of a busy adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hba.cli.views import config, irq, luns, queues
from hba.config.load import parse
from hba.config.model import to_plain

READ = {
    "number": 7,
    "where": "ISSUED",
    "function": 0,
    "cdb": "28000000000000000800",
    "length": 4096,
    "tag": 3,
    "command": "READ(10)",
}
RESET = {
    "number": 8,
    "where": "QUEUED",
    "function": 0x13,
    "command": "RESET_DEVICE",
    "cdb": "",
    "length": 0,
    "tag": 0xFF,
    "age_ms": None,
}

STORPORT: dict[str, Any] = {
    "model": "storport",
    "started": True,
    "outstanding": 1,
    "stuck": ["LU 0:1:0 paused since 12 s, never resumed"],
    "units": [
        {
            "address": "0:1:0", "depth": 20, "outstanding": [READ | {"age_ms": 12}], "queued": 1, "queue": [RESET],
            "started": 9, "completed": 8, "timeout_left": 48, "powered": False, "blocked_by": ["paused", "link down"],
        }
    ],
}  # fmt: skip
SCSIPORT: dict[str, Any] = {
    "model": "scsiport",
    "started": True,
    "outstanding": 0,
    "adapter": {"state": "BUSY", "blocked": ["BUSY: no NextRequest since #7"], "queue": [7, 8]},
    "units": [
        {
            "address": "0:0:0", "outstanding": [], "queued": [READ, RESET], "started": 1, "completed": 1,
            "timeout_left": -1, "blocked": "frozen", "frozen": True, "frozen_by": "#6", "frozen_ms": 250,
            "retrying": "#5", "locked": True,
        }
    ],
}  # fmt: skip
RINGS = {
    "state_page": 0x1000,
    "request": {"entries": 32, "prod": 5, "cons": 3, "most_pending": 17, "pages": [0x2000, 0x3000]},
    "completion": {"entries": 128, "prod": 1, "cons": 0xFFFFFFFF, "pages": [0x4000]},
}


def shown(capsys: pytest.CaptureFixture[str], value: dict[str, Any]) -> list[str]:
    queues.view(value)
    return capsys.readouterr().out.splitlines()


def row(lines: list[str], *starts: str) -> list[str]:
    (found,) = [line.split() for line in lines if line.split()[: len(starts)] == list(starts)]
    return found


def test_storport(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, {"port": STORPORT})
    assert "    stuck: LU 0:1:0 paused since 12 s, never resumed" in lines
    assert row(lines, "0:1:0", "20")[2:8] == ["1", "1", "9", "8", "48", "s"]
    assert lines[4].endswith("paused; link down; not powered")
    assert row(lines, "0:1:0", "7") == [
        "0:1:0",
        "7",
        "ISSUED",
        "12",
        "ms",
        "READ(10)",
        "28000000000000000800",
        "4096",
        "3",
    ]
    assert row(lines, "0:1:0", "8") == ["0:1:0", "8", "QUEUED", "-", "RESET_DEVICE", "0", "-"]


def test_scsiport(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, {"port": SCSIPORT})
    assert row(lines, "blocked") == ["blocked", "BUSY:", "no", "NextRequest", "since", "#7"]
    assert row(lines, "0:0:0", "-")[:7] == ["0:0:0", "-", "0", "2", "1", "1", "-"]
    assert any(line.endswith("frozen; frozen by #6 for 250 ms; retrying #5; locked") for line in lines)
    assert row(lines, "0:0:0", "7")


def test_rings(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, {"adapter": {"type": "x", "rings": RINGS, "ring_fault": "reqProdIdx jumped"}, "port": {}})
    assert row(lines, "request") == ["request", "32", "5", "3", "2", "17", "0x2000,", "0x3000"]
    assert row(lines, "completion") == ["completion", "128", "1", "4294967295", "2", "-", "0x4000"]
    assert "  state page  0x1000" in lines
    assert "  ring fault  reqProdIdx jumped" in lines


def test_messages_that_wait(capsys: pytest.CaptureFixture[str]) -> None:
    waits = {"waiting": 3, "next": ["removed 0:5:0", "added 0:5:0"], "stuck": "the guest sleeps"}
    lines = shown(capsys, {"adapter": {"type": "x", "rings": RINGS, "messages": waits}, "port": {}})
    assert "  3 messages wait for the message ring: removed 0:5:0, added 0:5:0, ..." in lines
    assert "  stuck: the guest sleeps" in lines
    lines = shown(capsys, {"adapter": {"rings": RINGS, "messages": {"waiting": 0, "next": [], "stuck": ""}}})
    assert not [line for line in lines if "message" in line]


TRAFFIC: dict[str, Any] = {
    "unit": "0:1:0", "requests": 1234, "per_second": 246.8, "outstanding": 0, "highest": 16,
    "latency": {"mean": 85_500, "p50": 65_536, "p99": 2_000_000, "max": 2_000_000, "histogram": {"65536": 1}},
}  # fmt: skip


def test_what_requests_did(capsys: pytest.CaptureFixture[str]) -> None:
    fresh = TRAFFIC | {"unit": "0:2:0", "requests": 0, "outstanding": 3, "latency": None}
    lines = shown(capsys, {"adapter": {"traffic": [TRAFFIC, fresh]}})
    assert row(lines, "0:1:0") == [
        "0:1:0",
        "1234",
        "246.8",
        "0",
        "16",
        "85.5",
        "µs",
        "65.5",
        "µs",
        "2.0",
        "ms",
        "2.0",
        "ms",
    ]
    assert row(lines, "0:2:0") == ["0:2:0", "0", "246.8", "3", "16", "-", "-", "-", "-"]


def test_conditions_of_units_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    luns.view([{"unit": "0:0:0", "target": 0, "lun": 0, "unit_attentions": {"7": ["062901", "06FFFF"]}}])
    luns.view([{"target": 0, "lun": 0, "reservations": {"type": 5, "holder": 7}}])
    said = capsys.readouterr().out
    assert "write exclusive, registrants only" in said
    assert "initiator 7  POWER ON OCCURRED (062901), 06FFFF" in said


def test_no_rings_and_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, {})[0] == "  rings: not set up"


def test_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    index = {"index": 2, "name": "msix", "vectors": 8, "connected": [0, 1, 2, 5], "masked": [], "pending": [7]}
    irq.view({"mode": "msix", "line": False, "sent": {"msix": 12}, "indexes": [index | {"resample": False}]})
    lines = capsys.readouterr().out.splitlines()
    assert row(lines, "mode") == ["mode", "msix"]
    assert row(lines, "msix") == ["msix", "8", "12", "0-2,", "5", "-", "7", "no"]


def test_units_and_what_their_storage_failed_with(capsys: pytest.CaptureFixture[str]) -> None:
    fine = {"target": 0, "lun": 0, "type": "disk", "storage_errors": 0, "latest_storage_error": None}
    full = fine | {"target": 1, "lun": 2, "storage_errors": 3, "latest_storage_error": "No space left"}
    luns.brief([fine, full])
    assert capsys.readouterr().out.splitlines()[-1] == "unit 0:1:2: storage errors: 3, the latest: No space left"
    luns.brief([fine])
    assert "errors" not in capsys.readouterr().out


@pytest.mark.parametrize("port", ["scsiport", "storport"])
def test_the_configuration_has_what_is_in_force_and_where_the_bytes_lie(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""
[[adapter]]
type = "pvscsi"
port = "{port}"
[[adapter.lun]]
target = 3
storage = {{ kind = "overlay", base = {{ kind = "file", path = "golden.img" }} }}
"""
    (adapter,) = parse(text, Path("x.toml")).adapters
    plain = to_plain(adapter)
    assert port in plain and ({"scsiport", "storport"} - {port}).pop() not in plain
    config.view(plain)
    said = capsys.readouterr().out
    assert "unit 0:3:0:" in said and "golden.img" in said
    assert ("READ(6) 08h, WRITE(6) 0Ah, READ(10) 28h" in said) == (port == "storport")


def test_a_cd_drive_has_no_options_of_disks(capsys: pytest.CaptureFixture[str]) -> None:
    text = '[[adapter]]\ntype = "pvscsi"\n[[adapter.lun]]\ntype = "cdrom"\n'
    (adapter,) = parse(text, Path("x.toml")).adapters
    config.view(to_plain(adapter))
    unit = capsys.readouterr().out.partition("unit 0:0:0:")[2]
    assert "cdrom" in unit and "block_size" not in unit and "write_cache" not in unit


def test_map_buffers_of_scsi_port_is_yes_or_no() -> None:
    """TRUE is 1, which is a value of Storport's; SCSI Port has no names for its two."""
    assert config._readable({"map_buffers": True}) == {"map_buffers": True}
    assert config._readable({"map_buffers": 2}) == {"map_buffers": "STOR_MAP_NON_READ_WRITE_BUFFERS"}
