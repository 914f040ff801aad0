"""sg3_utils as functions: run one, insist on its exit code, read its JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

# Exit codes (sg3_utils(8), "EXIT STATUS").
GOOD = 0
ILLEGAL_REQUEST = 5
MISCOMPARE = 14
INVALID_PARAMETER = 19  # illegal request, invalid field in parameter list
LBA_OUT_OF_RANGE = 22
RESERVATION_CONFLICT = 24

TIMEOUT = 120.0


def run(program: str, *arguments: object, code: int = GOOD) -> str:
    """Run the program, which must end with `code`; what it says, on standard output and error."""
    done = _done(program, arguments, code)
    return (done.stdout + done.stderr).decode(errors="replace")


def run_binary(program: str, *arguments: object, code: int = GOOD) -> bytes:
    """As `run`, but standard output alone."""
    return _done(program, arguments, code).stdout


def _done(program: str, arguments: tuple[object, ...], code: int) -> subprocess.CompletedProcess[bytes]:
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}, not {code}\n{said}"
    return done


def ask(program: str, *arguments: object) -> dict[str, Any]:
    """The program's answer as JSON."""
    return json.loads(run_binary(program, "--json", *arguments))


def extents(node: str, lba: int = 0) -> Iterator[tuple[int, int, int]]:
    """First block, number of blocks and provisioning status (0 mapped, 1 deallocated) of every extent from `lba` on."""
    for entry in ask("sg_get_lba_status", f"--lba={lba}", node)["lba_status_descriptor"]:
        yield entry["lba"], entry["blocks"], entry["provisoning_status"]["i"]


def status_of(node: str, lba: int, count: int) -> set[int]:
    """The provisioning statuses there are among these blocks."""
    return {
        status
        for first, blocks, status in extents(node, lba)
        if first < lba + count and first + blocks > lba and blocks
    }
