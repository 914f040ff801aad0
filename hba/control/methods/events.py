"""Subscriptions. Events then come on the same connection, between replies."""

from __future__ import annotations

import msgspec

from hba.control.events import TOPICS
from hba.control.method import Call, Method, NoParams, Refused
from hba.control.results.events import Subscribed
from hba.terminal.suggest import did_you_mean


class Topics(msgspec.Struct, forbid_unknown_fields=True):
    """Empty: all topics but `trace`, which is many events per command."""

    topics: list[str] = []


def _checked(topics: list[str]) -> list[str]:
    for topic in topics:
        if topic not in TOPICS:
            raise Refused(
                f"there is no topic {topic[:60]!r}{did_you_mean(topic, TOPICS)}", "topics: " + ", ".join(TOPICS)
            )
    return topics or [topic for topic in TOPICS if topic != "trace"]


def subscribe(call: Call, params: Topics) -> object:
    topics = _checked(params.topics)
    if "trace" in topics and call.parts.recorder is None:
        raise Refused("the adapter does not trace", "set enabled = true in [adapter.trace] and start it again")
    for topic in topics:
        call.parts.events.subscribe(topic, call.connection.event)
    return {"topics": topics}


def unsubscribe(call: Call, params: Topics) -> object:
    topics = _checked(params.topics)
    for topic in topics:
        call.parts.events.unsubscribe(topic, call.connection.event)
    return {"topics": topics}


def topics(call: Call, params: NoParams) -> object:
    return TOPICS


METHODS = (
    Method("events.topics", topics, "What can be subscribed to.", result=dict[str, str]),
    Method("events.subscribe", subscribe, "Send events of these topics on this connection.", Topics, Subscribed),
    Method("events.unsubscribe", unsubscribe, "Send no more of them.", Topics, Subscribed),
)
