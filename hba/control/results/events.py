"""What events carry, by topic."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from hba.control.results.inject import InjectEvent
from hba.control.results.trace import TraceStep
from hba.control.results.verifier import FindingShown
from hba.shapes import Count, Result, UnitName


class Subscribed(Result):
    """The topics that were subscribed to, or no longer are."""

    topics: list[str]


class HotplugEvent(Result, kw_only=True):
    """A unit, or its medium, has changed. `untold`: why the guest was not told, or not yet. With `change` "untold" it
    is about the guest, which misses messages: `message` then, and no address."""

    change: Literal["added", "removed", "ejected", "inserted", "resized", "read-only", "writable", "untold"]
    unit: UnitName | UnsetType = UNSET
    target: Count | UnsetType = UNSET
    lun: Count | UnsetType = UNSET
    untold: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class StorageEvent(Result):
    """What a store said by itself: "resized", "gone", "back", or "error: " and why it does not do what it should."""

    event: str
    unit: UnitName
    target: Count
    lun: Count


class ClientEvent(Result, kw_only=True):
    """A vfio-user client came or left, a second one was refused, or the client's memory cannot be reached. `message`:
    of a note and of the last two, what there is to know and to do."""

    event: Literal["connected", "left", "note", "refused", "unreachable"]
    message: str | UnsetType = UNSET


# topic -> what its events carry
TOPIC_DATA: dict[str, Any] = {
    "verifier": FindingShown,
    "trace": TraceStep,
    "storage": StorageEvent,
    "hotplug": HotplugEvent,
    "inject": InjectEvent,
    "client": ClientEvent,
}
