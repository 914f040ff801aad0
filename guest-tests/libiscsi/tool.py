"""iscsi-test-cu: which tests it has, and one of them run in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass

PROGRAM = "iscsi-test-cu"
FAMILY = "SCSI"
PASSED, SKIPPED, FAILED, TIMED_OUT, CRASHED = "passed", "skipped", "failed", "timed out", "crashed"

# `    1. iscsi-support.c:123  - CU_FAIL("...")`: an assertion that did not hold, as CUnit lists it.
_ASSERTION = re.compile(r"^\s+\d+\. \S+:\d+\s+- .*$", re.MULTILINE)
# `               asserts     14     14     14      0      n/a`: total, run, passed, failed.
_ASSERTS = re.compile(r"^\s*asserts\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.MULTILINE)
_SKIPPED = re.compile(r"\[SKIPPED\]\s*(.*)")
# Some tests do not look at --dataloss themselves: what they want to write fails within the tool, and nothing is sent.
_UNWRITTEN = re.compile(r"^\s*--dataloss flag is not set in\. Skipping (\w+)", re.MULTILINE)
_VERBOSE_FAILURE = re.compile(r"\[FAILED\].*")


@dataclass(frozen=True)
class Result:
    """What came of one test."""

    outcome: str
    reason: str  # of a skip, of a failure; empty when passed
    output: str


def tests() -> list[str]:
    """The names of the family's tests, such as `SCSI.Read10.Simple`, from the tool itself."""
    run = subprocess.run([PROGRAM, "--list"], capture_output=True, text=True, timeout=60)
    return [name for name in run.stdout.split() if name.startswith(FAMILY + ".") and name.count(".") == 2]


def run(test: str, node: str, timeout: float, dataloss: bool = True) -> Result:
    """Run one test on /dev/sgN. A test that hangs is killed after `timeout` seconds.

    Without `dataloss`, tests that write skip themselves.
    """
    # Some skips are only told with --Verbose-scsi; without them a test that did nothing would count as passed.
    options = ["--allow-sanitize", "--Verbose-scsi", *(["--dataloss"] if dataloss else [])]
    command = [PROGRAM, *options, "-t", test, node]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        return Result(TIMED_OUT, f"not over after {timeout:.0f} s", (error.stdout or b"").decode(errors="replace"))
    return judge(done.returncode, done.stdout)


def judge(code: int, output: str) -> Result:
    """The result that an exit code and an output stand for."""
    if code < 0:
        return Result(CRASHED, f"the tool was ended by {signal.Signals(-code).name}", output)
    counted = _ASSERTS.search(output)
    if counted is None:
        return Result(FAILED, f"the tool ended with exit code {code} before the test", output)
    if unwritten := _UNWRITTEN.search(output):
        return Result(SKIPPED, f"--dataloss flag is not set: the tool left out a {unwritten[1]}", output)
    if int(counted[4]) or code:
        said = [*_VERBOSE_FAILURE.findall(output), *_ASSERTION.findall(output)]
        return Result(FAILED, "\n".join(line.strip() for line in said) or f"exit code {code}", output)
    # What the tool says before the test (it looks for reservations) is none of the test's.
    if skip := _SKIPPED.search(output, max(0, output.find("\nSuite: "))):
        return Result(SKIPPED, skip[1].strip(), output)
    return Result(PASSED, "", output)
