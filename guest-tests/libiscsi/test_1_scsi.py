"""Every SCSI test of libiscsi's test tool."""

from __future__ import annotations

import pytest
import tool

# Seconds for one test. The longest takes a few in an emulated guest.
TIMEOUT = 120.0

# A crash that is the tool's own: it asks for REPORT LUNS through its iSCSI connection, and with /dev/sg it has none.
# test_2_tool.py shows that it crashes on Linux's own scsi_debug just the same.
CRASHES_ON_SG = {"SCSI.ReportLUNs.Simple"}

# What gets --dataloss on a protected disk: the tests that expect writes to be refused, and those that write no block
# but cannot do without the option (reservations, service actions that do not exist). All others want to write.
FOR_PROTECTED = ("SCSI.ReadOnly.", "SCSI.Prin", "SCSI.Prout", "SCSI.Sanitize.InvalidServiceAction")


# What the tool expects, and the standard forbids.
CONTRADICTS = {
    "SCSI.StartStopUnit.PwrCnd": "wants reserved power conditions to be GOOD (SBC-3, START STOP UNIT: 4h to 6h, 8h, 9h "
    "and Ch to Fh are reserved)"
}


def test_scsi(disk, kind, scsi_test, score):
    may_write = kind != "protected" or scsi_test.startswith(FOR_PROTECTED)
    result = tool.run(scsi_test, disk.generic, TIMEOUT, dataloss=may_write)
    print(result.output)
    score.add(scsi_test, kind, result.outcome)
    if result.outcome == tool.SKIPPED:
        pytest.skip(result.reason)
    if result.outcome == tool.CRASHED and scsi_test in CRASHES_ON_SG:
        pytest.skip("the tool crashes on any /dev/sg (its own bug, shown by test_2_tool.py)")
    if result.outcome == tool.FAILED and scsi_test in CONTRADICTS:
        pytest.skip(CONTRADICTS[scsi_test])
    assert result.outcome == tool.PASSED, f"{result.outcome}: {result.reason}"
