"""The verifier's findings during a suite, as they come: alike ones as one, with the test in which the first came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from hba.control.client import ControlClient
from hba.errors import ControlError
from hba.lab.server import Adapter
from hba.rules.rule import VIOLATION, WARNING

FailOn = Literal["violation", "warning", "never"]
_COUNTED: dict[FailOn, tuple[str, ...]] = {"violation": (VIOLATION,), "warning": (VIOLATION, WARNING), "never": ()}
assert set(_COUNTED) == set(get_args(FailOn))

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]+h\b|\d+")
BEFORE = "the guest's start"


class Finding(msgspec.Struct):
    """One as `show.verifier` has it."""

    rule: str
    severity: str
    message: str
    where: str = ""
    srb: str = ""
    history: list[str] = []


@dataclass
class Group:
    """Findings of one rule, at one place, that say the same but for the numbers in it."""

    adapter: str
    first: Finding
    during: str  # the guest's test in which the first came
    count: int = 0

    @property
    def title(self) -> str:
        """One line: how often, what, where."""
        times = f" ({self.count} x)" if self.count > 1 else ""
        place = f" at {self.first.where}" if self.first.where else ""
        rule = f"{self.first.rule}: " if self.first.rule else ""
        return f"{self.first.severity} {rule}{self.first.message}{place}{times}"

    @property
    def text(self) -> str:
        """All there is to say of the first."""
        lines = [self.title, f"adapter {self.adapter}, first during {self.during}"]
        if self.first.srb:
            lines.append(f"request: {self.first.srb}")
        lines += [f"  {step}" for step in self.first.history]
        if self.first.rule:
            lines.append(f"`hba explain {self.first.rule}` tells the rule")
        return "\n".join(lines)


def failing(groups: Sequence[Group], fail_on: FailOn) -> list[Group]:
    """Those that make a run red."""
    return [group for group in groups if group.first.severity in _COUNTED[fail_on]]


class _Listener:
    """One adapter's findings. It sends them as they come; what is lost on the way is counted at the end."""

    def __init__(self, adapter: Adapter) -> None:
        self.name = adapter.name
        self._path = adapter.control
        self._client: ControlClient | None = None
        self._connect()
        self.before = self.totals()  # of an earlier experiment with the same server

    def _connect(self) -> None:
        self._client = ControlClient(self._path)
        self._client.call("events.subscribe", topics=["verifier"])

    def totals(self) -> dict[str, int]:
        """All findings so far, by severity; asks with a connection that has nothing to catch up with."""
        with ControlClient(self._path) as client:
            answer = client.call("show.verifier", limit=0)
        return msgspec.convert(answer["severities"], dict[str, int])

    def take(self) -> list[Finding]:
        """What has come since the last time."""
        found: list[Finding] = []
        try:
            if self._client is None:
                self._connect()
            assert self._client is not None
            self._client.call("events.topics")  # what came before its answer is here when the answer is
            for event in self._client.events(timeout=0):
                found.append(msgspec.convert(event["data"], Finding))
        except ControlError:  # it sent faster than we read, and gave us up; or it has gone, which others tell
            self.close()
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Findings:
    """Collects the findings of all adapters of an experiment while a suite runs.

    `test` says which test runs now. Raises `ControlError` when an adapter does not answer at the start or the end.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self._listeners = [_Listener(adapter) for adapter in adapters]
        self._groups: dict[tuple[str, str, str, str, str], Group] = {}
        self._during = BEFORE

    def test(self, name: str) -> None:
        """The guest begins a test: what came so far came before it."""
        if name != self._during:
            self._take()
            self._during = name

    def end(self) -> list[Group]:
        """All of them, the most severe first, then as they came."""
        self._take()
        for listener in self._listeners:
            for severity, total in listener.totals().items():
                known = sum(
                    group.count
                    for group in self._groups.values()
                    if group.adapter == listener.name and group.first.severity == severity
                )
                lost = total - listener.before.get(severity, 0) - known
                if lost > 0:
                    message = "findings more than could be kept up with; `hba show verifier` has them by rule"
                    self._add(listener.name, Finding("", severity, message), lost)
            listener.close()
        order = (VIOLATION, WARNING)
        return sorted(
            self._groups.values(),
            key=lambda group: order.index(group.first.severity) if group.first.severity in order else len(order),
        )

    def _take(self) -> None:
        for listener in self._listeners:
            for finding in listener.take():
                self._add(listener.name, finding)

    def _add(self, adapter: str, finding: Finding, count: int = 1) -> None:
        key = (adapter, finding.severity, finding.rule, finding.where, _NUMBER.sub("#", finding.message))
        group = self._groups.setdefault(key, Group(adapter, finding, self._during))
        group.count += count
