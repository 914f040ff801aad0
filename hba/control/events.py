"""What can be subscribed to. A topic costs nothing while nobody listens."""

from __future__ import annotations

from collections.abc import Callable

TOPICS = {
    "verifier": "a finding of the verifier, as `show.verifier` has them",
    "trace": "an event of the request trace (many per command)",
    "storage": "something happened to a backing store by itself",
    "hotplug": "a logical unit was added or removed, a medium changed; or the guest does not hear of it",
    "inject": "a request that was injected, or a sequence of them, has ended after its method had answered",
    "client": "a vfio-user client connected, left or was refused, or its memory cannot be reached",
}

Listener = Callable[[str, object], None]  # (topic, data)
Attach = Callable[[], Callable[[], None]]  # switches a source on; what it returns switches it off again


class EventHub:
    """Passes events on from those who know to those who asked.

    `sources` are switched on by the first listener of their topic and off when the last one leaves, so that
    tracing for nobody costs nothing on the hot path.
    """

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {topic: [] for topic in TOPICS}
        self._sources: dict[str, Attach] = {}
        self._detach: dict[str, Callable[[], None]] = {}

    def source(self, topic: str, attach: Attach) -> None:
        """`attach()` is called when the topic gets its first listener."""
        self._sources[topic] = attach
        if self._listeners[topic]:
            self._detach[topic] = attach()

    def publish(self, topic: str, data: object) -> None:
        for listener in self._listeners[topic][:]:
            listener(topic, data)

    def subscribe(self, topic: str, listener: Listener) -> None:
        listeners = self._listeners[topic]
        if listener in listeners:
            return
        listeners.append(listener)
        if len(listeners) == 1 and topic in self._sources:
            self._detach[topic] = self._sources[topic]()

    def unsubscribe(self, topic: str, listener: Listener) -> None:
        listeners = self._listeners[topic]
        if listener not in listeners:
            return
        listeners.remove(listener)
        if not listeners and topic in self._detach:
            self._detach.pop(topic)()

    def drop(self, listener: Listener) -> None:
        for topic in TOPICS:
            self.unsubscribe(topic, listener)
