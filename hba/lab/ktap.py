"""A suite's results in the Kernel Test Anything Protocol, for what reads the kernel's own tests.

Source: Linux, Documentation/dev-tools/ktap.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from hba.lab.case import Case
from hba.visible import visible

VERSION = "KTAP version 1"


def render(suite: str, cases: Sequence[Case], passed: bool) -> str:
    """The document: one test, the suite, whose subtests are the cases. What a case says comes before its result."""
    lines = [VERSION, "1..1", f"  {VERSION}", f"  # Subtest: {_name(suite)}", f"  1..{len(cases)}"]
    for number, case in enumerate(cases, 1):
        if case.outcome == "failed":
            lines += [f"  # {visible(line)}" for line in case.text.splitlines()]
        result = "not ok" if case.outcome == "failed" else "ok"
        line = f"  {result} {number} {_name(case.name)}"
        if case.outcome == "skipped":
            line += f" # SKIP {_name(case.message)}"
        lines.append(line.rstrip())
    lines.append(f"{'ok' if passed else 'not ok'} 1 {_name(suite)}")
    return "\n".join(lines) + "\n"


def _name(text: str) -> str:
    """A description has neither an end of line nor a number sign, which begins a directive."""
    return visible(" ".join(text.split())).replace("#", "/")
