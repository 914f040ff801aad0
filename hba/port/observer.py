"""Who listens to what a port says about itself. This is nobody; instruments put themselves in front of it.

The port tells the same whether somebody listens or not. What is told on every request has a method of its own that
gets the request and nothing else, so that no words are made for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hba.port.request import Request


class Observer:
    """Nobody listens."""

    def submitted(self, requests: Sequence[Request], by: str = "") -> None:
        """The port has got requests; `by`: the port's own reason for making them."""

    def completed(self, requests: Sequence[Request]) -> None:
        """They go up now."""

    def interrupted(self, during: int) -> None:
        """The chip raised its line while callback `during` ran."""

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        """Something that does not happen on every request."""

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> bool:
        """A broken rule. True asks the port to raise `violation(...)` into the miniport (level strict)."""
        return False

    def violation(self) -> Exception:
        """What to raise for the finding just made."""
        raise NotImplementedError

    def reports(self) -> bool:
        """Whether a finding would get anywhere: what is kept waiting only to be reported need not be."""
        return False


class WrappedObserver(Observer):
    """One who listens, in front of another: tells everything on."""

    def __init__(self, inner: Observer) -> None:
        self.inner = inner

    def submitted(self, requests: Sequence[Request], by: str = "") -> None:
        self.inner.submitted(requests, by)

    def completed(self, requests: Sequence[Request]) -> None:
        self.inner.completed(requests)

    def interrupted(self, during: int) -> None:
        self.inner.interrupted(during)

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        self.inner.note(request, what, detail)

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> bool:
        return self.inner.finding(rule, message, request, where, severity, details)

    def violation(self) -> Exception:
        return self.inner.violation()

    def reports(self) -> bool:
        return self.inner.reports()
