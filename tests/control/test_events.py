"""The event hub: who gets what, and that nothing is produced for nobody."""

from __future__ import annotations

from collections.abc import Callable

from hba.control.events import EventHub


class Source:
    def __init__(self) -> None:
        self.log: list[str] = []

    def attach(self) -> Callable[[], None]:
        self.log.append("on")
        return lambda: self.log.append("off")


def test_a_source_runs_only_while_somebody_listens() -> None:
    hub, source = EventHub(), Source()
    hub.source("trace", source.attach)
    first: list[object] = []
    second: list[object] = []

    def one(topic: str, data: object) -> None:
        first.append(data)

    def two(topic: str, data: object) -> None:
        second.append(data)

    assert source.log == []
    hub.subscribe("trace", one)
    hub.subscribe("trace", one)
    hub.subscribe("trace", two)
    assert source.log == ["on"]
    hub.publish("trace", 1)
    hub.unsubscribe("trace", one)
    assert source.log == ["on"]
    hub.publish("trace", 2)
    hub.drop(two)
    assert source.log == ["on", "off"]
    hub.publish("trace", 3)
    assert (first, second) == ([1], [1, 2])


def test_a_source_that_comes_late_is_switched_on_for_those_who_wait() -> None:
    hub, source = EventHub(), Source()
    hub.subscribe("trace", lambda topic, data: None)
    hub.source("trace", source.attach)
    assert source.log == ["on"]


def test_a_listener_may_leave_while_it_is_told() -> None:
    hub = EventHub()
    heard: list[str] = []

    def leaves(topic: str, data: object) -> None:
        heard.append("leaves")
        hub.drop(leaves)

    hub.subscribe("storage", leaves)
    hub.subscribe("storage", lambda topic, data: heard.append("stays"))
    hub.publish("storage", None)
    hub.publish("storage", None)
    assert heard == ["leaves", "stays", "stays"]
