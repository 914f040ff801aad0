"""How the libiscsi suite reads what iscsi-test-cu says (guest-tests/libiscsi/tool.py)."""

from __future__ import annotations

import importlib.util
import signal
import sys
from types import ModuleType

import pytest

from hba.lab import paths

BEFORE = """\
    Send PRIN/READ_KEYS
    Send READCAPACITY10 (Expecting SUCCESS) LBA:0 pmi:0

     CUnit - A unit testing framework for C - Version 2.1-3

Suite: Read10
  Test: Simple ...
"""
AFTER = """\
Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      1      1      {good}      {bad}        0
             asserts      3      3      {good}      {bad}      n/a

Elapsed time =    0.019 seconds
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("libiscsi_tool", paths.GUEST_TESTS / "libiscsi" / "tool.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def said(middle: str, good: int = 3, bad: int = 0, before: str = BEFORE) -> str:
    return before + middle + AFTER.format(good=good, bad=bad)


def test_a_pass(tool: ModuleType) -> None:
    assert tool.judge(0, said("    [OK] READ10 returned SUCCESS\npassed\n")).outcome == tool.PASSED


def test_a_skip_is_a_pass_that_says_so(tool: ModuleType) -> None:
    result = tool.judge(0, said("    [SKIPPED] Not an iSCSI device. Skipping test\npassed\n"))
    assert (result.outcome, result.reason) == (tool.SKIPPED, "Not an iSCSI device. Skipping test")


def test_what_is_said_before_the_test_is_no_skip(tool: ModuleType) -> None:
    before = "    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n" + BEFORE
    assert tool.judge(0, said("passed\n", before=before)).outcome == tool.PASSED


def test_a_failure_says_why(tool: ModuleType) -> None:
    middle = '    [FAILED] Blocks did not read back as zero\nFAILED\n    1. test_x.c:60  - CU_FAIL("zero")\n'
    result = tool.judge(1, said(middle, 2, 1))
    assert result.outcome == tool.FAILED
    assert "did not read back as zero" in result.reason and 'CU_FAIL("zero")' in result.reason


def test_a_write_the_tool_left_out_is_a_skip(tool: ModuleType) -> None:
    middle = "--dataloss flag is not set in. Skipping write\nFAILED\n    1. test_x.c:65  - CU_ASSERT_EQUAL(_r,0)\n"
    result = tool.judge(1, said(middle, 2, 1))
    assert result.outcome == tool.SKIPPED and "left out a write" in result.reason


def test_a_skip_after_a_failure_is_a_failure(tool: ModuleType) -> None:
    assert tool.judge(1, said("    [SKIPPED] the rest\nFAILED\n", 2, 1)).outcome == tool.FAILED


def test_a_crash_names_the_signal(tool: ModuleType) -> None:
    result = tool.judge(-signal.SIGSEGV, BEFORE)
    assert result.outcome == tool.CRASHED and "SIGSEGV" in result.reason


@pytest.mark.parametrize("output", ["", BEFORE, "Failed to open SG_IO device"])
def test_an_end_before_the_test_is_a_failure(tool: ModuleType, output: str) -> None:
    assert tool.judge(255, output).outcome == tool.FAILED
    assert tool.judge(0, output).outcome == tool.FAILED
