"""Turn plain TOML values into msgspec Structs, and collect every error instead of stopping at the first.

Knows nothing of adapters: it walks Structs, lists, dictionaries and tagged unions of Structs by their annotations
and leaves everything else to `msgspec.convert` in strict mode.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from hba.terminal.suggest import did_you_mean

Path = tuple[str | int, ...]  # ("adapter", 0, "lun", 1, "storage", "path")
FAILED = object()  # what `convert` returns when it has noted a problem instead of a value

_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}
_OF_MSGSPEC = {"int": int, "float": float, "str": str, "bool": bool, "object": dict, "array": list}


def dotted(path: Path) -> str:
    """`adapter[0].lun[1].storage.path`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, and what was expected there."""

    path: Path
    message: str


@dataclass
class Checker:
    """Converts values and keeps the problems it meets on the way."""

    problems: list[Problem] = field(default_factory=list)

    def note(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))

    def convert(self, value: object, kind: Any, path: Path) -> Any:
        """`value` as a `kind` (any annotation), or FAILED with at least one problem noted."""
        kind, structs = _unwrap(kind)
        if structs:
            return self._struct(value, structs, path)
        origin = get_origin(kind)
        if origin in (list, tuple) and isinstance(value, list) and _holds_structs(kind):
            return self._sequence(value, kind, path)
        if origin is list and isinstance(value, dict) and _holds_structs(kind):
            name = dotted(path)
            self.note(path, f"expected a list of tables: write [[{name}]] instead of [{name}]")
            return FAILED
        if origin is dict and isinstance(value, dict):
            return self._mapping(value, kind, path)
        if isinstance(value, float) and math.isnan(value):  # no comparison finds it outside of a range
            self.note(path, f"expected {_expected(kind)}, got nan")
            return FAILED
        try:
            return msgspec.convert(value, kind, strict=True)
        except msgspec.ValidationError as error:
            self.note(path, _say(error, value, kind))
            return FAILED

    def _sequence(self, value: list[object], kind: Any, path: Path) -> Any:
        (inner, *_) = get_args(kind)
        items = [self.convert(item, inner, (*path, index)) for index, item in enumerate(value)]
        if any(item is FAILED for item in items):
            return FAILED
        return tuple(items) if get_origin(kind) is tuple else items

    def _mapping(self, value: dict[str, object], kind: Any, path: Path) -> Any:
        _, inner = get_args(kind)
        items = {key: self.convert(item, inner, (*path, key)) for key, item in value.items()}
        return FAILED if any(item is FAILED for item in items.values()) else items

    def _struct(self, value: object, structs: Mapping[str | int | None, type[Struct]], path: Path) -> Any:
        if not isinstance(value, dict):
            self.note(path, f"expected a table, got {_describe(value)}")
            return FAILED
        given = dict(value)
        cls = self._variant(given, structs, path)
        if cls is None:
            return FAILED
        known = {item.encode_name: item for item in msgspec.structs.fields(cls)}
        values: dict[str, Any] = {}
        failed = False
        for key, item in given.items():
            if key not in known:
                names = ", ".join(sorted(known)) or "nothing"
                self.note((*path, key), f"no such key{did_you_mean(key, known)} (known here: {names})")
                failed = True
                continue
            converted = self.convert(item, known[key].type, (*path, key))
            failed |= converted is FAILED
            values[known[key].name] = converted
        for name, info in known.items():
            if name not in given and info.default is NODEFAULT and info.default_factory is NODEFAULT:
                self.note((*path, name), f"missing; expected {_expected(info.type)}")
                failed = True
        if failed:
            return FAILED
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:  # from __post_init__: keys that do not go together
            self.note(path, str(error))
            return FAILED

    def _variant(
        self, given: dict[str, object], structs: Mapping[str | int | None, type[Struct]], path: Path
    ) -> type[Struct] | None:
        """The Struct that the tag key selects (and takes the tag out), or the only one there is."""
        if None in structs:
            return structs[None]
        tag_field = cast(str, next(iter(structs.values())).__struct_config__.tag_field)
        choices = ", ".join(f'"{tag}"' for tag in sorted(map(str, structs)))
        if tag_field not in given:
            self.note((*path, tag_field), f"missing; expected one of {choices}")
            return None
        tag = given.pop(tag_field)
        if not isinstance(tag, str | int) or tag not in structs:
            hint = did_you_mean(str(tag), map(str, structs))
            self.note((*path, tag_field), f"expected one of {choices}, got {_describe(tag)}{hint}")
            return None
        return structs[tag]


def _unwrap(kind: Any) -> tuple[Any, dict[str | int | None, type[Struct]]]:
    """Strip None and UNSET (TOML can say neither); and the Structs a table may become here, by tag."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        members = [item for item in get_args(kind) if item not in (type(None), msgspec.UnsetType)]
        if len(members) == 1:
            return _unwrap(members[0])
        if all(_is_struct(item) for item in members):
            return kind, {item.__struct_config__.tag: item for item in members}
        return Union[tuple(members)], {}  # noqa: UP007 - built at run time
    if _is_struct(kind):
        tag = kind.__struct_config__.tag
        return kind, {tag: kind}
    return kind, {}


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _holds_structs(kind: Any) -> bool:
    arguments = get_args(kind)
    return bool(arguments) and bool(_unwrap(arguments[0])[1])


def _describe(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return _NAMES.get(type(value), f"a {type(value).__name__}")


def _expected(kind: Any) -> str:
    kind, structs = _unwrap(kind)
    if structs:
        return "a table"
    if get_origin(kind) is Annotated:
        return _expected(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_expected(item) for item in get_args(kind))
    return _NAMES.get(get_origin(kind) or kind, str(kind))


def _say(error: msgspec.ValidationError, value: object, kind: Any) -> str:
    """msgspec's message in the words of a configuration file."""
    text = str(error)
    what, _, where = text.partition(" - at ")
    if what.startswith("Invalid enum value") and get_origin(kind) is Literal:
        hint = did_you_mean(str(value), map(str, get_args(kind)))
        return f"expected {_expected(kind)}, got {_describe(value)}{hint}"
    if what.startswith("Expected `"):
        wanted, _, rest = what.removeprefix("Expected `").partition("`")
        names = " or ".join(_NAMES.get(_OF_MSGSPEC.get(word, object), word) for word in wanted.split(" | "))
        limit = rest.split(", got")[0].strip()
        place = f" at {where.strip('`')}" if where else ""
        return f"expected {names}{' ' + limit if limit else ''}, got {_describe(value)}{place}"
    return what if not where else f"{what} at {where.strip('`')}"
