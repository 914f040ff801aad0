"""Compares what comes out with the type it is documented as: nothing may be missing, and nothing may come on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, inspect

from hba.contract import SCHEMA_VERSION
from hba.shapes import Result


class Checker:
    """Remembers what it has seen, so that a field that never comes does not stay documented."""

    def __init__(self) -> None:
        self._seen: set[str] = set()  # "Type", and "Type.field" of the fields, where Type is the one that has it first

    def check(self, value: Any, kind: Any) -> None:
        """`value`, as JSON was decoded, is a `kind` to the last field."""
        decoded = msgspec.convert(value, kind)  # what has another type, is not named, or is missing without a default
        assert msgspec.json.decode(msgspec.json.encode(decoded)) == value  # what is missing and has a default
        self._see(decoded)

    def output(self, value: Any, kind: Any) -> None:
        """The same of what a command prints."""
        assert value.pop("schema_version") == SCHEMA_VERSION
        self.check(value, kind)

    def _see(self, value: Any) -> None:
        if isinstance(value, Struct):
            name = type(value).__name__
            self._seen.add(name)
            for field in msgspec.structs.fields(value):
                item = getattr(value, field.name)
                if item is not UNSET:
                    self._seen.add(_place(type(value), field))
                    self._see(item)
        elif isinstance(value, Mapping):
            self._see_all(value.values())
        elif isinstance(value, list | tuple):
            self._see_all(value)

    def _see_all(self, items: Iterable[Any]) -> None:
        for item in items:
            self._see(item)

    def unseen(self, kinds: Iterable[Any], module: str = "hba") -> set[str]:
        """The results of `module` that can be reached from `kinds`, and their fields that need not be there, which were
        never met so far.
        """
        return names_of(kinds, module) - self._seen


def _optional(field: msgspec.structs.FieldInfo) -> bool:
    return UnsetType in getattr(field.type, "__args__", ())


def _place(kind: type[Struct], field: msgspec.structs.FieldInfo) -> str:
    first = next(owner for owner in kind.__mro__ if field.name in vars(owner).get("__annotations__", {}))
    return f"{first.__name__}.{field.encode_name}"


def names_of(kinds: Iterable[Any], module: str) -> set[str]:
    names: set[str] = set()
    known: set[type[Struct]] = set()
    waiting: list[Any] = list(inspect.multi_type_info(kinds))
    while waiting:
        info = waiting.pop()
        if isinstance(info, inspect.StructType):
            if info.cls in known or not issubclass(info.cls, Result):
                continue
            known.add(info.cls)
            if info.cls.__module__.startswith(module):
                names.add(info.cls.__name__)
                names |= {_place(info.cls, field) for field in msgspec.structs.fields(info.cls) if _optional(field)}
            waiting += [field.type for field in info.fields]
        else:
            for part in ("types", "item_types"):
                waiting += getattr(info, part, ())
            waiting += [
                inner
                for part in ("type", "item_type", "key_type", "value_type")
                if isinstance(inner := getattr(info, part, None), inspect.Type)
            ]
    return names
